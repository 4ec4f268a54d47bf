import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers.job_folder import JobFolder, LeaseLost, read_json, write_json
from byzerllm_trainers.worker import MetricsWriter

TORN = '{"event": "failed", "error": ["→'.encode()[:-1]
"""A line whose writer died within a character of three bytes."""


def metric(step: int, attempt: int, loss: float) -> dict[str, float]:
    return {"step": step, "attempt": attempt, "loss": loss}


def losses(folder: JobFolder) -> dict[int, float]:
    return {record["step"]: record["loss"] for record in folder.metrics()}


def test_a_torn_last_line_does_not_break_reading(folder: JobFolder) -> None:
    folder.append("events.jsonl", [{"event": "running"}])
    with (folder.root / "events.jsonl").open("ab") as handle:
        handle.write(TORN)
    assert folder.events() == [{"event": "running"}]


def test_the_next_attempt_drops_a_torn_line_and_goes_on_behind_it(folder: JobFolder) -> None:
    folder.append("events.jsonl", [{"event": "running"}])
    with (folder.root / "events.jsonl").open("ab") as handle:
        handle.write(TORN)
    folder.take_lease("test")
    folder.append("events.jsonl", [{"event": "restarting", "message": "工人"}])
    assert [event["event"] for event in folder.events()] == ["running", "restarting"]


@pytest.mark.parametrize("written", [b"", b'{"step": 1'])
def test_a_file_without_a_whole_line_becomes_empty(folder: JobFolder, written: bytes) -> None:
    (folder.root / "metrics.jsonl").write_bytes(written)
    folder.take_lease("test")
    assert (folder.root / "metrics.jsonl").read_bytes() == b""


def test_the_latest_attempt_of_a_step_wins(folder: JobFolder) -> None:
    folder.append("metrics.jsonl", [metric(step, 1, 1.0) for step in (1, 2, 3, 4)])
    folder.append("metrics.jsonl", [metric(step, 2, 2.0) for step in (3, 4, 5)])
    assert losses(folder) == {1: 1.0, 2: 1.0, 3: 2.0, 4: 2.0, 5: 2.0}


def test_steps_beyond_those_of_a_later_attempt_do_not_count(folder: JobFolder) -> None:
    """It went back to a checkpoint and was stopped early: the weights never saw what came after."""
    folder.append("metrics.jsonl", [metric(step, 1, 1.0) for step in (1, 2, 3, 4)])
    folder.append("metrics.jsonl", [metric(2, 2, 2.0)])
    assert losses(folder) == {1: 1.0, 2: 2.0}


def test_a_late_line_of_an_older_attempt_does_not_count(folder: JobFolder) -> None:
    folder.append("metrics.jsonl", [metric(1, 1, 1.0), metric(2, 2, 2.0), metric(3, 1, 9.0), metric(2, 1, 9.0)])
    assert losses(folder) == {1: 1.0, 2: 2.0}


def test_creating_a_job_twice_is_an_error_and_changes_nothing(folder: JobFolder) -> None:
    before = folder.request()
    with pytest.raises(ByzerError, match="exists already"):
        folder.create({"another": "request"})
    assert folder.request() == before


def test_a_folder_with_other_files_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ByzerError, match="holds other files"):
        JobFolder(tmp_path).create({})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_without_a_job_says_so(tmp_path: Path) -> None:
    with pytest.raises(ByzerError, match="no job in"):
        JobFolder(tmp_path).request()


def test_write_json_leaves_the_old_content_when_it_fails_midway(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "lease.json"
    write_json(file, {"attempt": 1})

    def die(self: Path, text: str, **_: object) -> None:
        with self.open("w") as handle:
            handle.write(text[:5])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", die)
    with pytest.raises(OSError, match="disk full"):
        write_json(file, {"attempt": 2})
    assert read_json(file) == {"attempt": 1}


def test_whoever_reads_while_it_is_written_sees_the_old_content_whole(tmp_path: Path) -> None:
    file = tmp_path / "lease.json"
    write_json(file, {"attempt": 1, "owner": "x" * 100_000})
    with file.open() as reader:
        begun = reader.read(10)
        write_json(file, {"attempt": 2, "owner": "y" * 100_000})
        assert json.loads(begun + reader.read())["owner"] == "x" * 100_000
    assert read_json(file)["attempt"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["lease.json"]


def test_attempts_count_from_one_and_only_the_newest_holds_the_lease(folder: JobFolder) -> None:
    assert folder.attempt() == 0
    first, second = folder.take_lease("a"), folder.take_lease("b")
    assert (first, second) == (1, 2)
    folder.check_lease(second)
    with pytest.raises(LeaseLost, match="attempt 2 took over from attempt 1"):
        folder.check_lease(first)


def test_of_many_that_take_the_lease_at_once_each_gets_a_number_of_its_own(folder: JobFolder) -> None:
    with ThreadPoolExecutor(8) as threads:
        attempts = list(threads.map(lambda _: folder.take_lease("one of many"), range(64)))
    assert sorted(attempts) == list(range(1, 65))
    assert folder.attempt() == 64


def test_who_goes_on_with_a_lease_that_was_taken_meanwhile_does_not_take_it_back(folder: JobFolder) -> None:
    first = folder.take_lease("a")
    second = folder.take_lease("a", first)
    newest = folder.take_lease("b")
    assert [folder.owner(attempt) for attempt in (first, second, newest)] == ["a", "a", "b"]
    with pytest.raises(LeaseLost, match="attempt 3 took over from attempt 2"):
        folder.take_lease("a", second)
    assert folder.attempt() == newest


def test_a_job_that_goes_on_after_its_end_has_not_ended(folder: JobFolder) -> None:
    assert folder.ending() is None
    folder.append("events.jsonl", [{"event": "running"}, {"event": "stopped", "steps": 3}])
    assert folder.ending() == {"event": "stopped", "steps": 3}
    folder.append("events.jsonl", [{"event": "restarting"}])
    assert folder.ending() is None


def test_metrics_reach_the_folder_with_their_attempt(folder: JobFolder) -> None:
    attempt = folder.take_lease("test")
    with MetricsWriter(folder, attempt) as metrics:
        for step in (1, 2, 3):
            metrics.add({"step": step, "loss": 1.0 / step})
    assert [(record["attempt"], record["step"]) for record in folder.metrics()] == [(1, 1), (1, 2), (1, 3)]


def endless(folder: JobFolder, attempt: int) -> None:
    """A loop whose lease is taken over while it runs."""
    with MetricsWriter(folder, attempt) as metrics:
        folder.take_lease("new")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            metrics.add({"step": 1, "loss": 1.0})
            time.sleep(0.01)


def short(folder: JobFolder, attempt: int) -> None:
    """A loop that ends before it could be told."""
    with MetricsWriter(folder, attempt) as metrics:
        metrics.add({"step": 1, "loss": 1.0})
        folder.take_lease("new")


def failing(folder: JobFolder, attempt: int) -> None:
    """A loop with an error of its own."""
    with MetricsWriter(folder, attempt) as metrics:
        metrics.add({"step": 1, "loss": 1.0})
        folder.take_lease("new")
        raise ByzerError("the loss became nan")


@pytest.mark.parametrize("loop", [endless, short])
def test_a_lost_lease_stops_the_loop_and_nothing_more_is_written(
    folder: JobFolder, loop: Callable[[JobFolder, int], None]
) -> None:
    begun = time.monotonic()
    old = folder.take_lease("old")
    with pytest.raises(LeaseLost, match="attempt 2 took over from attempt 1"):
        loop(folder, old)
    assert time.monotonic() - begun < 5
    assert not (folder.root / "metrics.jsonl").exists()


def test_the_loops_own_error_is_not_hidden_by_a_lost_lease(folder: JobFolder) -> None:
    old = folder.take_lease("old")
    with pytest.raises(ByzerError, match="the loss became nan"):
        failing(folder, old)
    assert not (folder.root / "metrics.jsonl").exists()


def test_lines_hold_other_alphabets_as_they_are(folder: JobFolder) -> None:
    folder.append("events.jsonl", [{"event": "preparing", "message": "分词\u2028\r\n"}])
    assert folder.events()[0]["message"] == "分词\u2028\r\n"
    assert "分词" in (folder.root / "events.jsonl").read_text(encoding="utf-8")
    assert json.loads((folder.root / "job.json").read_text())["workers"] == 1


def test_shards_of_an_attempt_are_apart_until_it_publishes_them_and_only_the_newest_may(folder: JobFolder) -> None:
    attempts = [JobFolder(folder.root, preparing=folder.take_lease(f"owner {number}")) for number in (1, 2)]
    for number, each in enumerate(attempts, 1):
        each.shards.mkdir(parents=True)
        (each.shards / "tokens").write_text(str(number))
    assert not folder.shards.exists()
    with pytest.raises(LeaseLost):
        attempts[0].publish()
    attempts[1].publish()
    assert (folder.shards / "tokens").read_text() == "2"
    assert [path.name for path in folder.data.iterdir()] == ["shards"], "what the other left is gone"
