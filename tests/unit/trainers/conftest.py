import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from byzerllm_trainers.job_folder import JobFolder


@pytest.fixture(scope="session")
def group() -> Iterator[None]:
    """This process as a gang of one."""
    from torch import distributed

    from byzerllm_trainers.engine import Rank, join_group

    before = dict(os.environ)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    join_group(Rank(0, 1), "127.0.0.1", port, local_index=0, local_world=1)
    yield
    distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    """A new job's folder; its request is not a real one."""
    folder = JobFolder(tmp_path / "job")
    folder.create({"parameters": {"pretrainedModelType": "sft/llama"}, "workers": 1})
    return folder
