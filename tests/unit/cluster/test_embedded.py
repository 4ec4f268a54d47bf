"""The record of the embedded cluster, with harmless processes in place of Ray's."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.cluster import embedded
from byzerllm_magics.cluster.embedded import EmbeddedCluster
from byzerllm_trainers.job_folder import read_json, write_json

Process = subprocess.Popen[bytes]


@pytest.fixture
def sleeper() -> Iterator[Callable[..., Process]]:
    """Starts processes that only wait; the test ends them."""
    started: list[Process] = []

    def start(*command: str) -> Process:
        started.append(subprocess.Popen(command or ("sleep", "60"), start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def recorded(*processes: Process, later: float = 0.0) -> EmbeddedCluster:
    """Record a cluster of these processes, the first vital, as if created ``later`` seconds after they were."""
    created = {process.pid: psutil.Process(process.pid).create_time() + later for process in processes}
    cluster = EmbeddedCluster("127.0.0.1:1", "", "http://127.0.0.1:2", created, vital=[processes[0].pid])
    write_json(embedded._record(), asdict(cluster))
    return cluster


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(process: Process) -> bool:
    """Whether it has ended; whoever ended it may have taken its exit code."""
    process.wait(5)
    return not psutil.pid_exists(process.pid)


def test_nothing_is_found_where_nothing_was_started() -> None:
    assert embedded.find() is None


def test_a_running_cluster_is_found_by_another_process(sleeper: Callable[..., Process]) -> None:
    cluster = recorded(sleeper(), sleeper())
    assert embedded.find() == cluster
    code = "from byzerllm_magics.cluster import embedded; print(embedded.find().address)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "127.0.0.1:1\n"


def test_what_is_left_of_a_broken_cluster_is_ended(sleeper: Callable[..., Process]) -> None:
    dead, left = sleeper(), sleeper()
    recorded(dead, left)
    dead.kill()
    dead.wait()
    assert embedded.find() is None
    assert ended(left)
    assert not embedded._record().exists()


def test_a_cluster_whose_monitor_died_is_found_still(sleeper: Callable[..., Process]) -> None:
    vital, monitor = sleeper(), sleeper()
    cluster = recorded(vital, monitor)
    monitor.kill()
    monitor.wait()
    assert embedded.find() == cluster
    assert vital.poll() is None


def test_a_dead_process_that_nobody_waited_for_is_dead(sleeper: Callable[..., Process]) -> None:
    zombie, left = sleeper(), sleeper()
    recorded(zombie, left)
    zombie.kill()
    eventually(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE)
    assert embedded.find() is None
    assert ended(left)


def test_a_record_of_another_version_is_no_cluster(sleeper: Callable[..., Process]) -> None:
    left = sleeper()
    recorded(left)
    content = read_json(embedded._record())
    del content["vital"]
    write_json(embedded._record(), content)
    assert embedded.find() is None
    assert ended(left)


def test_a_process_that_only_took_over_an_id_is_left_alone(sleeper: Callable[..., Process]) -> None:
    """Process ids are used again: what was created at another time is somebody else's."""
    somebody_elses = sleeper()
    cluster = recorded(somebody_elses, later=-100.0)
    assert not cluster.is_running()
    assert embedded.find() is None
    embedded.stop(cluster)
    assert somebody_elses.poll() is None


def test_stopping_ends_children_too(sleeper: Callable[..., Process], tmp_path: Path) -> None:
    parent = sleeper("sh", "-c", f"sleep 60 & echo $! > {tmp_path}/child; wait")
    eventually(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
    child = psutil.Process(int((tmp_path / "child").read_text()))
    embedded.stop(recorded(parent))
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_processes_are_asked_before_they_are_forced(sleeper: Callable[..., Process], tmp_path: Path) -> None:
    polite = sleeper("sh", "-c", f"trap 'touch {tmp_path}/bye; exit' TERM; touch {tmp_path}/ready; sleep 60 & wait")
    eventually((tmp_path / "ready").exists)
    embedded.stop(recorded(polite))
    assert ended(polite)
    assert (tmp_path / "bye").exists()


def test_who_does_not_listen_is_ended_by_force(sleeper: Callable[..., Process], tmp_path: Path) -> None:
    deaf = sleeper("sh", "-c", f"trap '' TERM; touch {tmp_path}/ready; while true; do sleep 0.05; done")
    eventually((tmp_path / "ready").exists)
    embedded.stop(recorded(deaf), seconds=0.2)
    assert ended(deaf)


def test_stopping_what_has_ended_is_harmless(sleeper: Callable[..., Process]) -> None:
    process = sleeper()
    cluster = recorded(process)
    embedded.stop(cluster)
    embedded.stop(cluster)
    assert ended(process)


def test_a_clusters_daemons_are_those_that_name_its_folder(sleeper: Callable[..., Process], tmp_path: Path) -> None:
    mine = sleeper("sh", "-c", f"sleep 60; : {tmp_path}/mine")
    worker = sleeper("sh", "-c", "sleep 60; :", "sh", f"{tmp_path}/mine", "default_worker.py")
    sleeper("sh", "-c", f"sleep 60; : {tmp_path}/other")
    found = [process.pid for process in embedded.daemons(str(tmp_path / "mine"), "nowhere")]
    assert mine.pid in found
    assert worker.pid not in found


def test_a_cluster_that_does_not_start_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = tmp_path / "ray"
    ray.write_text("#!/bin/sh\necho starting\necho no room on this machine\nexit 3\n")
    ray.chmod(0o755)
    monkeypatch.setattr(embedded, "_ray", lambda: ray)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "not asked for here")
    with pytest.raises(ByzerError, match="did not start") as caught:
        embedded.Starting().finish()
    assert caught.value.where == "no room on this machine"
    assert embedded.find() is None


def test_one_process_at_a_time_looks_for_the_cluster(own_state: Path) -> None:
    code = "from byzerllm_magics.cluster import embedded\nwith embedded.only_one(): print('mine')"
    with embedded.only_one():
        other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(1.0)
    assert other.communicate(timeout=30)[0] == b"mine\n"


@pytest.mark.parametrize("count", [1, 3])
def test_free_ports_differ(count: int) -> None:
    assert len(set(embedded._free_ports(count))) == count
