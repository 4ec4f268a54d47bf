"""An S3 server on loopback, and what a process has to know of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

BUCKET = "bucket"


@contextmanager
def object_store() -> Iterator[dict[str, str]]:
    """Run a server with an empty bucket; yield the environment with which it is found."""
    from moto.server import ThreadedMotoServer
    from pyarrow.fs import S3FileSystem

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line a request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    key = {"access_key": "tests", "secret_key": "no-secret"}
    store = S3FileSystem(
        **key, region="us-east-1", endpoint_override=f"{host}:{port}", scheme="http", allow_bucket_creation=True
    )
    store.create_dir(BUCKET)
    try:
        yield {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": key["access_key"],
            "AWS_SECRET_ACCESS_KEY": key["secret_key"],
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.stop()
