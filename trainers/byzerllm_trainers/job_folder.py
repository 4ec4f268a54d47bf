"""The job folder: the truth of a training job. Everything else (coordinator, chart, kernel) is a cache of it.

job.json            the whole request and the versions; enough to run it again
lease.json          attempt number, owner and cluster: only the holder of the newest attempt may write
leases/N            each attempt's claim and its owner, made exclusively: no two ever hold one number
metrics.jsonl       one line a step, keyed (attempt, step); a reader keeps the latest attempt of a step
events.jsonl        started, checkpoint, worker lost, resumed, finished, failed
evaluations.jsonl   one line an evaluation of the job's models on a table
samples.jsonl       one line an answer to one of the user's prompts
data/ checkpoints/step-N/ logs/ tensorboard/ model/
afterwards/         what the coordinator calls at the end
.reserve            space that is given up to say that the disk is full
.fetched            this is what a job elsewhere was when it was fetched (see `mirror`)
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from byzerllm_adapters.errors import ByzerError

Record = dict[str, Any]
"""One line of metrics.jsonl or events.jsonl."""

FINAL_STATES = ("finished", "failed", "stopped")

SAMPLES_FILE = "samples.jsonl"

UNPUBLISHED = "attempt-"
"""How the folders of shards begin that nobody may train on yet."""

FETCHED = ".fetched"
"""Says of a folder that it was fetched from elsewhere, or that the job went on there: it may be behind."""

RESERVE_BYTES = 65_536

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""What a full disk, or a used-up quota, says."""


class LeaseLost(ByzerError):
    """Another attempt of this job holds the lease now: this one must not write any more."""


class JobFolder:
    """Paths, records and the lease of one job under ``root``.

    Args:
        root: The folder.
        preparing: The attempt that tokenises: its shards lie apart from another's until `publish`; 0: nobody does.
    """

    def __init__(self, root: str | Path, *, preparing: int = 0) -> None:
        self.root = Path(root).expanduser().absolute()
        self._preparing = preparing

    @property
    def name(self) -> str:
        """The job's name is its folder's name."""
        return self.root.name

    @property
    def model(self) -> Path:
        """The result: a transformers folder or a peft adapter, chat template included."""
        return self.root / "model"

    @property
    def data(self) -> Path:
        """Rows as handed in, token shards and their manifest."""
        return self.root / "data"

    @property
    def shards(self) -> Path:
        """The tokens to train on; their manifest says that the data is prepared."""
        return self._prepared / "shards"

    @property
    def held_out(self) -> Path:
        """The tokens to evaluate on."""
        return self._prepared / "held-out"

    @property
    def _prepared(self) -> Path:
        return self.data / f"{UNPUBLISHED}{self._preparing}" if self._preparing else self.data

    @property
    def checkpoints(self) -> Path:
        """Holds ``step-N`` folders; one without a valid manifest does not exist."""
        return self.root / "checkpoints"

    @property
    def logs(self) -> Path:
        """One file a rank and one of the coordinator."""
        return self.root / "logs"

    @property
    def afterwards(self) -> Path:
        """What the coordinator calls at the end."""
        return self.root / "afterwards"

    @property
    def tensorboard(self) -> Path:
        """Event files of rank 0."""
        return self.root / "tensorboard"

    def exists(self) -> bool:
        """Whether this folder holds a job."""
        return (self.root / "job.json").is_file()

    @property
    def is_fetched(self) -> bool:
        """Whether the job's newest attempt is, or was, elsewhere, so that this folder may be behind."""
        return (self.root / FETCHED).exists()

    def create(self, request: Record) -> None:
        """Write ``job.json`` into a new folder.

        Raises:
            ByzerError: a job of that name, or a folder that holds something else, is already there.
        """
        if self.exists():
            finished = (self.ending() or {}).get("event") == "finished"
            goes_on = "" if finished or self.request().get("driven") else f', "%byzerllm resume {self.name}" goes on'
            raise ByzerError(
                f"a job named {self.name!r} exists already in {self.root.parent}",
                do=f'choose another name; "%byzerllm attach {self.name}" shows it{goes_on}',
            )
        if self.root.exists() and any(self.root.iterdir()):
            raise ByzerError(f"{self.root} holds other files", do="choose another name or localPathPrefix")
        for folder in (self.root, self.data, self.checkpoints, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        self._reserve()
        write_json(self.root / "job.json", request)

    def request(self) -> Record:
        """Read ``job.json``.

        Raises:
            ByzerError: the folder holds no job.
        """
        if not self.exists():
            raise ByzerError(f"no job in {self.root}", do='"%byzerllm jobs" lists the jobs that are known')
        return read_json(self.root / "job.json")

    def ending(self) -> Record | None:
        """Return the final event of a job that has ended; None: it goes on, or was resumed."""
        return ending_of(self.events())

    # -- the lease --------------------------------------------------------------------------------------

    def attempt(self) -> int:
        """The newest attempt's number; 0 before the first."""
        claims = self.root / "leases"
        return max((int(path.name) for path in claims.iterdir()), default=0) if claims.exists() else 0

    def owner(self, attempt: int) -> str:
        """Who claimed an attempt."""
        return (self.root / "leases" / str(attempt)).read_text(encoding="utf-8")

    def cluster(self) -> str:
        """Address of the cluster on which the newest attempt was begun; empty: nobody has begun one."""
        path = self.root / "lease.json"
        return str(read_json(path).get("cluster", "")) if path.exists() else ""

    def take_lease(self, owner: str, held: int | None = None, *, cluster: str = "") -> int:
        """Become the newest attempt and return its number, counted from 1; whoever held the lease may not write now.

        Args:
            owner: Who takes it.
            held: The attempt that the owner holds, which its next one follows; None: it holds none.
            cluster: The address of the cluster that it is on.

        Raises:
            LeaseLost: ``held`` is not the newest attempt any more.
        """
        (self.root / "leases").mkdir(exist_ok=True)
        while True:
            if held is not None:
                self.check_lease(held)
            attempt = self.attempt() + 1
            try:
                with (self.root / "leases" / str(attempt)).open("x", encoding="utf-8") as claim:
                    claim.write(owner)
            except FileExistsError:  # somebody else was faster
                continue
            except OSError:  # a claim without an owner would be nobody's
                (self.root / "leases" / str(attempt)).unlink(missing_ok=True)
                raise
            break
        for file in ("metrics.jsonl", "events.jsonl"):
            _drop_torn_line(self.root / file)
        lease = {"attempt": attempt, "owner": owner, "cluster": cluster, "taken": time.time()}
        write_json(self.root / "lease.json", lease)
        self._reserve()
        return attempt

    def check_lease(self, attempt: int) -> None:
        """Raise `LeaseLost` unless ``attempt`` is the newest."""
        newest = self.attempt()
        if newest != attempt:
            raise LeaseLost(f"job {self.name}: attempt {newest} took over from attempt {attempt}")

    def publish(self) -> None:
        """Put the shards that the preparing attempt has made where every attempt looks for them.

        Raises:
            LeaseLost: another attempt goes on with the job.
        """
        assert self._preparing
        self.check_lease(self._preparing)
        for made in (self.held_out, self.shards):  # what is trained on comes last: where it is, all is there
            shutil.rmtree(self.data / made.name, ignore_errors=True)
            if made.exists():
                made.rename(self.data / made.name)
        for left in self.data.glob(f"{UNPUBLISHED}*"):  # of attempts whose task died, too
            shutil.rmtree(left, ignore_errors=True)

    # -- records ----------------------------------------------------------------------------------------

    def append(self, file: str, records: Iterable[Record], *, last_words: bool = False) -> None:
        """Append ``records`` to one of the folder's JSON-lines files: all of them, or none.

        Args:
            file: Its name.
            records: Become a line each.
            last_words: On a full disk, give up the reserved space for them.

        Raises:
            OSError: the disk refuses them.
        """
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
        try:
            _append(self.root / file, lines)
        except OSError as error:
            if not last_words or error.errno not in NO_ROOM:
                raise
            (self.root / ".reserve").unlink(missing_ok=True)
            _append(self.root / file, lines)

    def metrics(self) -> list[Record]:
        """All steps in order, each as its latest attempt recorded it (see `extend_steps`)."""
        steps: list[Record] = []
        extend_steps(steps, _lines(self.root / "metrics.jsonl"))
        return steps

    def evaluations(self) -> list[Record]:
        """What `action="evaluate"` found for the job's models, the oldest first."""
        return list(_lines(self.root / "evaluations.jsonl"))

    def samples(self) -> list[Record]:
        """All answers to the user's prompts, the oldest first."""
        return list(_lines(self.root / SAMPLES_FILE))

    def events(self) -> list[Record]:
        """All events in the order in which they happened."""
        return list(_lines(self.root / "events.jsonl"))

    def _reserve(self) -> None:
        """Take the space that `append` gives up for last words."""
        path = self.root / ".reserve"
        if not path.exists():
            with contextlib.suppress(OSError):  # on a full disk there is nothing to reserve
                path.write_bytes(bytes(RESERVE_BYTES))


def ending_of(events: Iterable[Record]) -> Record | None:
    """Return the final event if it is the last of ``events`` but for notes; None: it is not."""
    last: Record | None = None
    for event in events:
        last = event if event["event"] != "note" else last
    return last if last is not None and last["event"] in FINAL_STATES else None


def extend_steps(steps: list[Record], records: Iterable[Record]) -> None:
    """Append ``records`` of metrics.jsonl to ``steps``, in place.

    A newer attempt's step replaces the older one and all that followed it: training went back to a checkpoint. What an
    attempt without the lease still managed to write does not count.
    """
    for record in records:
        if steps and record["attempt"] < steps[-1]["attempt"]:
            continue
        while steps and steps[-1]["step"] >= record["step"]:
            steps.pop()
        steps.append(record)


def _lines(path: Path) -> Iterator[Record]:
    """Yield the records of a JSON-lines file; a torn last line (its writer died) does not count."""
    if not path.exists():
        return
    with path.open("rb") as handle:  # bytes: a line may be torn within a character
        for line in handle:
            if line.endswith(b"\n"):
                yield json.loads(line)


def _append(path: Path, lines: bytes) -> None:
    """Append whole lines, or leave the file as it was and raise the disk's error."""
    with path.open("ab", buffering=0) as handle:
        size = handle.tell()
        try:
            if handle.write(lines) < len(lines):  # what fits is written, and the next call would say why
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            handle.truncate(size)
            raise


def _drop_torn_line(path: Path) -> None:
    """Cut off what a killed writer left behind the last whole line, so that appending goes on at a line's start."""
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)  # in place: the whole lines are never at risk


def read_json(path: Path) -> Record:
    """Read a JSON object."""
    loaded: Record = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def write_json(path: Path, content: Record) -> None:
    """Write a JSON object so that a reader sees the old one or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    temporary.replace(path)
