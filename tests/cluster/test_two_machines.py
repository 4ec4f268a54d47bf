"""A job over two machines, each a network namespace with its own address: it trains, survives a cut link, goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from byzerllm_magics.cluster.jobs import Job
from byzerllm_trainers.job_folder import JobFolder
from tests.cluster.helpers import STEPS, Observed, eventually, pretraining
from tests.cluster.network import PORT, Machine, environment, ray_on, two_machines
from tests.cluster.test_kills import restarted
from tests.cluster.test_resume import is_the_uninterrupted

DRIVER = """
import json, sys
from byzerllm_magics.session import Session

session = Session()
session.setup("sfft", num_gpus=2, owner="tester", rayAddress=sys.argv[1], **{"resource.apart": "1"})
session.run(json.loads(sys.argv[2])).wait()
"""


@pytest.fixture
def machines() -> Iterator[tuple[Machine, Machine]]:
    with ExitStack() as stack:
        try:
            pair = stack.enter_context(two_machines())
        except (PermissionError, subprocess.CalledProcessError, FileNotFoundError) as error:
            pytest.skip(f"no network namespaces here: {error}")
        yield pair


@pytest.fixture
def temp() -> Iterator[Path]:
    """A folder with a short path, for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="bz-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def processes_of(node: int, mark: str) -> list[psutil.Process]:
    """Those below a node's ``ray start`` whose command line has a mark."""
    found = []
    for process in psutil.Process(node).children(recursive=True):
        try:
            if mark in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def test_a_cut_link_is_noticed_the_reachable_rank_ends_and_the_job_goes_on_on_a_node_that_comes_later(
    machines: tuple[Machine, Machine], temp: Path, tiny_model: Path, corpus: Path, prefix: Path, pretrained: Observed
) -> None:
    here, there = machines
    parameters = pretraining(tiny_model, corpus, prefix, name="apart", stage=2)
    parameters |= {"sfft.bool.setup_nccl_socket_ifname_by_ip": "true"}
    job = Job(JobFolder(prefix / "apart"))
    with ExitStack() as ends:
        head = ends.enter_context(ray_on(here, temp))
        node = ends.enter_context(ray_on(there, temp, head=here))
        command = here.command(sys.executable, "-c", DRIVER, f"{here.address}:{PORT}", json.dumps(parameters))
        driver = subprocess.Popen(command, env=environment() | {"BYZERLLM_STATE": str(temp / "state")})
        ends.callback(driver.wait)
        ends.callback(driver.kill)

        eventually(lambda: job.folder.exists() and len(job.folder.metrics()) > 10, 180)
        (reachable,) = processes_of(head.pid, "ray::Worker")
        (cut_off,) = processes_of(node.pid, "ray::Worker")
        there.set_link("down")
        cut = time.time()
        noticed = eventually(lambda: restarted(job), 60)["time"]
        assert noticed - cut < 15
        eventually(lambda: not alive([reachable]), 10)
        assert time.time() - noticed < 2
        there.set_link("up")
        time.sleep(30)
        assert not alive([cut_off]), "an orphan"

        ends.enter_context(ray_on(there, temp, head=here))
        assert driver.wait(180) == 0
    assert len(job.folder.metrics()) == STEPS
    assert is_the_uninterrupted(job, pretrained)
