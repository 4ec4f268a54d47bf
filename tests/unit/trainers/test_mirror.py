"""The copy of a job's folder at an object store: whole, in order, and written by one."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import disk, follow
from byzerllm_trainers.checkpoint import committed, damage
from byzerllm_trainers.copying import Copying
from byzerllm_trainers.job_folder import JobFolder, LeaseLost
from byzerllm_trainers.mirror import Mirror, fetch, mirror_of
from byzerllm_trainers.object_store import store_settings, working_folder

PREFIX = "s3://bucket/jobs"


@pytest.fixture
def job(elsewhere: Callable[[str], None], request: pytest.FixtureRequest) -> JobFolder:
    """A job with an attempt, two checkpoints and a few records, and no copy yet."""
    folder = JobFolder(working_folder(PREFIX) / request.node.name.partition("[")[0])
    folder.create({"parameters": {"localPathPrefix": PREFIX}})
    folder.take_lease("first")
    for step in (10, 20):
        checkpoint(folder, step)
    folder.append("metrics.jsonl", [{"step": step, "attempt": 1} for step in range(1, 23)])
    folder.append("events.jsonl", [{"event": "running", "attempt": 1}])
    return folder


def checkpoint(folder: JobFolder, step: int, content: bytes = b"weights") -> Path:
    path = folder.checkpoints / f"step-{step}"
    (path / "state").mkdir(parents=True)
    (path / "state" / "rank-0.pt").write_bytes(content)
    files = {"state/rank-0.pt": {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
    (path / "manifest.json").write_text(json.dumps({"step": step, "files": files}))
    return path


def copied(folder: JobFolder) -> Mirror:
    mirror = mirror_of(folder)
    assert mirror is not None
    if mirror.newest() < folder.attempt():
        mirror.claim(folder.attempt(), folder.owner(folder.attempt()))
    mirror.push(folder.attempt())
    return mirror


def contents(folder: JobFolder) -> dict[str, bytes]:
    files = (path for path in folder.root.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder.root)): path.read_bytes() for path in files}


def together(*calls: Callable[[], None]) -> list[Exception | None]:
    """Make calls at the same time; return what each raised."""

    def made(call: Callable[[], None]) -> Exception | None:
        try:
            call()
        except LeaseLost as error:
            return error
        return None

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(made, calls))


def address(folder: JobFolder) -> str:
    return f"{PREFIX}/{folder.name}"


def test_what_is_fetched_elsewhere_is_what_was_sent(job: JobFolder, elsewhere: Callable[[str], None]) -> None:
    (job.data / "rows.parquet").write_bytes(b"rows")
    (job.logs / "rank-0.log").write_bytes(b"no end of line")
    mirror = copied(job)
    job.append("metrics.jsonl", [{"step": 23, "attempt": 1}])
    mirror.push(1)
    elsewhere("second")
    found = fetch(address(job))
    assert found.root != job.root
    assert contents(found) == contents(job)


def test_secrets_stay(job: JobFolder, elsewhere: Callable[[str], None]) -> None:
    job.afterwards.mkdir()
    (job.afterwards / "pausing").write_bytes(b"a pickled key")
    copied(job)
    elsewhere("second")
    assert not fetch(address(job)).afterwards.exists()


def test_a_torn_checkpoint_and_half_made_shards_stay(job: JobFolder, elsewhere: Callable[[str], None]) -> None:
    (job.checkpoints / "step-20" / "manifest.json").unlink()
    (job.data / "attempt-1" / "shards").mkdir(parents=True)
    (job.data / "attempt-1" / "shards" / "tokens.bin").write_bytes(b"half")
    copied(job)
    elsewhere("second")
    found = fetch(address(job))
    assert [path.name for path in committed(found)] == ["step-10"]
    assert not (found.checkpoints / "step-20").exists()
    assert not list(found.data.iterdir())


def test_what_was_removed_here_is_removed_there(job: JobFolder, elsewhere: Callable[[str], None]) -> None:
    mirror = copied(job)
    shutil.rmtree(job.checkpoints / "step-10")
    checkpoint(job, 30)
    mirror.push(1)
    elsewhere("second")
    assert [path.name for path in committed(fetch(address(job)))] == ["step-20", "step-30"]


def test_cleaning_a_finished_job_cleans_its_copy(job: JobFolder, elsewhere: Callable[[str], None]) -> None:
    job.append("events.jsonl", [{"event": "finished", "attempt": 1, "steps": 22}])
    copied(job)
    disk.clean(job)
    elsewhere("second")
    assert not committed(fetch(address(job)))


def test_a_checkpoint_that_was_written_again_replaces_the_copy(
    job: JobFolder, elsewhere: Callable[[str], None]
) -> None:
    copied(job)
    shutil.rmtree(job.checkpoints / "step-20")
    checkpoint(job, 20, b"other w")
    copied(job)  # by another process: it has to find out what is there
    elsewhere("second")
    found = fetch(address(job))
    assert (found.checkpoints / "step-20" / "state" / "rank-0.pt").read_bytes() == b"other w"
    assert not damage(found.checkpoints / "step-20")


def test_what_was_changed_there_is_seen_by_its_checksum(job: JobFolder, elsewhere: Callable[[str], None]) -> None:
    mirror = copied(job)
    mirror._write("checkpoints/step-20/state/rank-0.pt", b"weightz")
    elsewhere("second")
    whole = [path.name for path in committed(fetch(address(job))) if not damage(path)]
    assert whole == ["step-10"]


def test_another_coordinator_sends_only_what_is_new_of_the_records(
    job: JobFolder, elsewhere: Callable[[str], None]
) -> None:
    copied(job)
    job.append("metrics.jsonl", [{"step": 23, "attempt": 1}])
    mirror = copied(job)
    assert len(mirror._sizes("metrics.jsonl")) == 2
    elsewhere("second")
    assert [step["step"] for step in fetch(address(job)).metrics()] == list(range(1, 24))


def test_a_line_that_is_being_written_is_not_sent(job: JobFolder, elsewhere: Callable[[str], None]) -> None:
    with (job.root / "metrics.jsonl").open("a") as handle:
        handle.write('{"step": 23, "att')
    copied(job)
    elsewhere("second")
    assert fetch(address(job)).metrics() == job.metrics()
    assert not (working_folder(PREFIX) / job.name / "metrics.jsonl").read_bytes().endswith(b"att")


def test_an_attempt_elsewhere_ends_those_who_write_here(job: JobFolder, elsewhere: Callable[[str], None]) -> None:
    mirror = copied(job)
    elsewhere("second")
    other = fetch(address(job))
    assert other.take_lease("second") == 2
    copied(other)
    before = mirror._sizes("")
    checkpoint(job, 30)
    with pytest.raises(LeaseLost, match=f"attempt 2 took over from attempt 1 at {address(job)}"):
        mirror.push(1)
    assert mirror._sizes("") == before
    with pytest.raises(LeaseLost):
        job.check_lease(1)  # which every worker asks before it writes


def test_a_job_that_went_on_elsewhere_is_fetched_back(job: JobFolder, elsewhere: Callable[[str], None]) -> None:
    copied(job)
    elsewhere("second")
    other = fetch(address(job))
    other.take_lease("second")
    checkpoint(other, 30)
    copied(other)
    elsewhere("first")
    assert contents(fetch(address(job))) == contents(other)


def test_who_had_looked_before_gets_what_came_since(job: JobFolder, elsewhere: Callable[[str], None]) -> None:
    mirror = copied(job)
    elsewhere("second")
    fetch(address(job))
    checkpoint(job, 30)
    mirror.push(1)
    assert [path.name for path in committed(fetch(address(job)))] == ["step-10", "step-20", "step-30"]


def test_who_was_superseded_gets_what_superseded_it(job: JobFolder, elsewhere: Callable[[str], None]) -> None:
    mirror = copied(job)
    elsewhere("second")
    other = fetch(address(job))
    other.take_lease("second")
    checkpoint(other, 30)
    copied(other)
    with pytest.raises(LeaseLost):
        mirror.push(1)
    elsewhere("first")
    assert contents(fetch(address(job))) == contents(other)


def test_what_a_superseded_one_still_writes_counts_for_nothing(
    job: JobFolder, elsewhere: Callable[[str], None]
) -> None:
    mirror = copied(job)
    elsewhere("second")
    other = fetch(address(job))
    mirror._send_growth("events.jsonl", b'{"event": "checkpoint", "attempt": 1, "step": 99}\n', 1)
    other.take_lease("second")
    other.append("events.jsonl", [{"event": "restarting", "attempt": 2}])
    copied(other)
    mirror._send_growth("events.jsonl", b'{"event": "late", "attempt": 1}\n', 1)
    elsewhere("third")
    assert fetch(address(job)).events() == other.events()


def test_to_claim_again_what_is_held_changes_nothing(job: JobFolder) -> None:
    """As when the store's answer to the claim was lost."""
    mirror = copied(job)
    mirror.claim(1, "first")
    mirror.push(1)
    assert job.owner(1) == "first"


def test_an_old_checkpoint_stays_there_until_a_newer_one_is_there(
    job: JobFolder, elsewhere: Callable[[str], None]
) -> None:
    mirror = copied(job)
    for step in (10, 20):
        shutil.rmtree(job.checkpoints / f"step-{step}")
    (checkpoint(job, 30) / "manifest.json").unlink()  # it is being written
    mirror.push(1)
    elsewhere("second")
    assert [path.name for path in committed(fetch(address(job)))] == ["step-10", "step-20"]


def test_what_is_damaged_here_stays_whole_there(job: JobFolder, elsewhere: Callable[[str], None]) -> None:
    mirror = copied(job)
    (job.checkpoints / "step-20" / "state" / "rank-0.pt").write_bytes(b"rotten")
    (job.checkpoints / "step-20").rename(job.checkpoints / "damaged-step-20")
    checkpoint(job, 30)
    mirror.push(1)
    elsewhere("second")
    found = fetch(address(job))
    assert [path.name for path in committed(found) if not damage(path)] == ["step-10", "step-20", "step-30"]
    assert not list(found.checkpoints.glob("damaged-*"))


def test_a_job_elsewhere_is_not_called_dead(job: JobFolder, elsewhere: Callable[[str], None]) -> None:
    copied(job)
    assert not job.is_fetched
    elsewhere("second")
    found = fetch(address(job))
    assert found.is_fetched
    assert follow.is_alive(found)


def test_what_is_as_new_on_disk_is_not_fetched(job: JobFolder) -> None:
    copied(job)
    checkpoint(job, 30)  # not sent yet when the cluster ended
    assert [path.name for path in committed(fetch(address(job)))] == ["step-10", "step-20", "step-30"]


def test_of_two_who_claim_one_attempt_one_gets_it(job: JobFolder, elsewhere: Callable[[str], None]) -> None:
    copied(job)
    elsewhere("second")
    other = fetch(address(job))
    job.take_lease("here")
    other.take_lease("there")
    first, second = mirror_of(job), mirror_of(other)
    assert first is not None
    assert second is not None
    outcomes = together(lambda: first.claim(2, "here"), lambda: second.claim(2, "there"))
    assert {type(each) for each in outcomes} == {LeaseLost, type(None)}
    (first if outcomes[0] is None else second).push(2)


def test_an_address_without_a_job_is_an_error(elsewhere: Callable[[str], None]) -> None:
    with pytest.raises(ByzerError, match="there is no job at s3://bucket/jobs/none"):
        fetch(f"{PREFIX}/none")


@pytest.mark.parametrize("wrong", ["s3://bucket", "s3://", "bucket/jobs"])
def test_what_is_no_address_is_an_error(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ByzerError, match="is no address of a job"):
        Mirror(JobFolder(tmp_path), wrong)


def test_a_server_that_cannot_be_reached_is_told_once_and_again_when_it_can(job: JobFolder) -> None:
    told: list[str] = []
    copying = Copying(job, store_settings(), tell=told.append, superseded=lambda: None)
    copying._ended.set()
    copying.claim(1, "first", wait=True)
    assert copying._mirror is not None
    mirror, whole = copying._mirror, copying._mirror._store
    mirror._store = S3FileSystem(
        endpoint_override="127.0.0.1:1", scheme="http", retry_strategy=AwsStandardS3RetryStrategy(max_attempts=1)
    )
    assert not copying._send(mirror, briefly=False)
    assert not copying._send(mirror, briefly=True)
    mirror._store = whole
    assert copying._send(mirror, briefly=False)
    assert len(told) == 2
    assert told[0].startswith(f"{address(job)} is not up to date: ")
    assert told[1] == f"{address(job)} is up to date again"


def test_after_a_loss_the_next_attempt_is_claimed_without_waiting_for_the_store(job: JobFolder) -> None:
    copying = Copying(job, store_settings(), tell=lambda _: None, superseded=lambda: None)
    copying._ended.set()  # its thread ends at once
    copying.claim(1, "first", wait=True)
    job.take_lease("first", 1)
    copying.claim(2, "first", wait=False)
    assert copying._mirror is not None
    assert copying._mirror.newest() == 1
    copying.finish()
    assert copying._mirror.newest() == 2
