"""Where an ``s3://`` address leads: the store, and what has to be known to reach it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from byzerllm_adapters.errors import ByzerError

SCHEME = "s3://"
CONNECT_SECONDS, REQUEST_SECONDS = 5, 60

KEY = {
    "access_key": "AWS_ACCESS_KEY_ID",
    "secret_key": "AWS_SECRET_ACCESS_KEY",
    "session_token": "AWS_SESSION_TOKEN",
}
"""What the environment calls the parts of a key."""

PLACE = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""What it says of the place."""


def is_remote(prefix: str) -> bool:
    """Whether job folders of this ``localPathPrefix`` are copied to an object store."""
    return prefix.startswith(SCHEME)


def working_folder(prefix: str) -> Path:
    """Return where job folders are on disk: the prefix, or for an address its place in the user's cache."""
    if not is_remote(prefix):
        return Path(prefix)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "byzerllm" / "s3" / prefix.partition("://")[2].strip("/")


def store_settings() -> dict[str, str]:
    """Return what this process' environment says of key and place."""
    return {name: os.environ[name] for name in (*KEY.values(), *PLACE) if os.environ.get(name)}


def open_store(address: str, settings: Mapping[str, str] | None = None) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it.

    Args:
        address: ``s3://bucket/folder``.
        settings: See `store_settings`; None: this process' own. Without a key, Arrow looks for one where AWS's own
            tools do (``~/.aws``, the machine's role).

    Raises:
        ByzerError: that is no address.
    """
    from pyarrow.fs import S3FileSystem

    path = address.removeprefix(SCHEME).strip("/")
    if not is_remote(address) or path.count("/") < 1:
        raise ByzerError(f"{address!r} is no address of a job", do="write s3://bucket/folder")
    said = store_settings() if settings is None else settings
    server = urlsplit(said.get("AWS_ENDPOINT_URL_S3") or said.get("AWS_ENDPOINT_URL") or "https://")
    key = {option: said[name] for option, name in KEY.items() if name in said}
    store = S3FileSystem(
        **key,
        region=said.get("AWS_REGION") or said.get("AWS_DEFAULT_REGION"),
        endpoint_override=server.netloc or None,
        scheme=server.scheme,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=REQUEST_SECONDS,
    )
    return store, path


def unreachable(address: str, error: OSError) -> ByzerError:
    """Return what a user is told when an address cannot be reached."""
    said = str(error).strip().splitlines()
    return ByzerError(
        f"cannot reach {address}: {said[0] if said else type(error).__name__}",
        do="AWS_ENDPOINT_URL names the server; the key is AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in ~/.aws",
    )
