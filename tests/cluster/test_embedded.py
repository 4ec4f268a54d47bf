"""The embedded cluster: found again, closed to others, alive without the kernel that started it, ended alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from byzerllm_magics.cluster import connection, embedded
from byzerllm_magics.cluster.jobs import Job
from byzerllm_trainers.job_folder import JobFolder
from tests.cluster.helpers import eventually, pretraining, python
from tests.tiny import make_reciter

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

FIRST_KERNEL = """
import json, sys, time
from byzerllm_magics.session import Session
session = Session()
session.setup("sfft", num_gpus=1, owner="tester")
session.run(json.loads(sys.argv[1]))
session.run(action="infer", localModelDir=sys.argv[2], udfName="reciter")
print("ready", flush=True)
time.sleep(600)
"""
SECOND_KERNEL = """
import json
from byzerllm_magics.session import Session
session = Session()
info = session.setup(owner="tester")
answer = "".join(session.chat("Say it", model="reciter", temperature=0.0, max_tokens=30))
print(json.dumps({"address": info.address, "embedded": info.embedded, "answer": answer}))
"""
SHUT_DOWN = """
from byzerllm_magics.session import Session
session = Session()
session.connect()
print(session.shutdown(force=True))
"""
WITHOUT_TOKEN = """
from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.session import Session
try:
    Session().setup()
except ByzerError as error:
    print("\\n".join(error.render()))
"""


@dataclass(frozen=True)
class Orphan:
    """A second cluster of this machine whose starting process was killed while a job ran and a model answered."""

    cluster: embedded.EmbeddedCluster
    environment: dict[str, str]
    state: Path
    job: Job
    steps_at_death: int


@pytest.fixture(scope="module")
def orphan(
    cluster: object, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, corpus: Path
) -> Iterator[Orphan]:
    """Start a cluster of another state folder, a long job and a model from a process, and kill -9 that process."""
    state = tmp_path_factory.mktemp("another")
    reciter = make_reciter(tmp_path_factory.mktemp("models") / "reciter")
    environment = os.environ | {"BYZERLLM_STATE": str(state)}
    parameters = pretraining(tiny_model, corpus, state, name="long", stage=2, steps=100_000)
    command = [sys.executable, "-c", FIRST_KERNEL, json.dumps(parameters), str(reciter)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        try:
            assert "ready\n" in first.stdout, "after what a job says of its data"
            job = Job(JobFolder(state / "long"))
            eventually(job.folder.metrics, 120)
        finally:
            first.send_signal(signal.SIGKILL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYZERLLM_STATE", str(state))
        found = embedded.find()
    assert found is not None
    yield Orphan(found, environment, state, job, job.folder.metrics()[-1]["step"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYZERLLM_STATE", str(state))
        embedded.stop(found)


def test_another_process_finds_it_and_starts_none(cluster: Any, state: Path) -> None:
    before = (state / "embedded.json").read_text()
    code = (
        "import ray; from byzerllm_magics import Session; info = Session().setup(); print(info.address, info.embedded)"
    )
    done = python(code, dict(os.environ))  # a cell above may have imported Ray
    assert done.stdout.split() == [cluster.address, "True"], done.stderr
    assert (state / "embedded.json").read_text() == before


def test_it_outlives_the_process_that_started_it_with_its_job_and_its_model(orphan: Orphan) -> None:
    done = python(SECOND_KERNEL, orphan.environment)
    seen = json.loads(done.stdout)
    assert (seen["address"], seen["embedded"]) == (orphan.cluster.address, True)
    assert "abcdefghijklmnopqrstuvwxyz"[:5] in seen["answer"] * 2
    assert orphan.job.folder.metrics()[-1]["step"] > orphan.steps_at_death
    assert orphan.job.state == "running"


def test_every_listener_is_on_loopback_while_a_job_and_a_model_run(orphan: Orphan) -> None:
    roots = [psutil.Process(pid) for pid in orphan.cluster.processes]
    processes = {*roots, *(child for root in roots for child in root.children(recursive=True))}
    listeners = {
        (" ".join(process.cmdline())[:60], connection.laddr.ip)
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert len(processes) > len(roots), "workers were looked at, too"
    assert listeners
    assert {item for item in listeners if item[1].removeprefix("::ffff:") not in ("127.0.0.1", "::1")} == set()


@pytest.fixture(scope="module")
def refused(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An empty home folder, and what a process of that home printed when it was refused."""
    home = tmp_path_factory.mktemp("home")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = python(WITHOUT_TOKEN, environment | {"HOME": str(home), "RAY_ADDRESS": cluster.address})
    return home, done.stdout + done.stderr


def test_a_connection_without_the_token_is_refused_and_told_where_the_token_belongs(refused: tuple[Path, str]) -> None:
    home, told = refused
    assert told.startswith("ByzerError: ")
    assert str(home / ".ray" / "auth_token") in told
    assert len(told.splitlines()) <= 5


def test_no_output_holds_the_token(orphan: Orphan, refused: tuple[Path, str]) -> None:
    from byzerllm_magics.magics.setup_card import SetupCard
    from byzerllm_magics.session import Session

    token = embedded.token_file().read_text().strip()
    card = SetupCard(connection.cluster_info(), Session().settings)
    commands = [word for pid in orphan.cluster.processes for word in psutil.Process(pid).cmdline()]
    assert not any(token in text for text in [repr(card), card._repr_html_(), refused[1], *commands])
    kept = [path for path in orphan.state.rglob("*") if path.is_file()]
    assert {"embedded.json", "ray-start.log", "coordinator.log"} <= {path.name for path in kept}
    assert not [path for path in kept if token.encode() in path.read_bytes()]


def test_shutdown_ends_its_own_processes_and_no_others(cluster: Any, state: Path, orphan: Orphan) -> None:
    roots = [psutil.Process(pid) for pid in orphan.cluster.processes]
    doomed = {*roots, *(child for root in roots for child in root.children(recursive=True))}
    done = python(SHUT_DOWN, orphan.environment)
    assert done.stdout.strip() == "True", done.stderr
    _, alive = psutil.wait_procs(list(doomed), timeout=10)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    assert not (orphan.state / "embedded.json").exists()
    first = embedded.find()
    assert first is not None
    assert first.address == cluster.address == connection.cluster_info().address
