"""Following a job: cursors over its folder, from any process, while it runs or years later."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from byzerllm_adapters.errors import ByzerError

from .job_folder import JobFolder, Record, ending_of

POLL_SECONDS = 0.25


class Cursor:
    """Reads what was appended to a JSON-lines file since the last look; costs one ``stat`` when nothing was.

    Args:
        path: The file; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def advance(self) -> list[Record]:
        """Return the records of the new whole lines."""
        return [json.loads(line) for line in self.read().splitlines()]

    def read(self, most: int = -1) -> bytes:
        """Return the new whole lines; of more than ``most`` bytes the first ones, at least one (-1: all)."""
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return b""
        if size == self._offset:
            return b""
        with self._path.open("rb") as handle:
            handle.seek(self._offset)
            new = handle.read(most)
            if b"\n" not in new:
                new += handle.readline()
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole


def is_alive(folder: JobFolder) -> bool:
    """Whether the job's coordinator lives; where it runs on a cluster that cannot be asked, it is not called dead.

    Nor is it where the folder was fetched from elsewhere.

    A connected cluster is asked itself; of another one, whether anything listens at its address.
    """
    if folder.is_fetched:
        return True
    cluster = folder.cluster()
    ray = sys.modules.get("ray")  # who has not imported it, which takes a second, is not connected
    if ray is not None and ray.is_initialized() and cluster in ("", ray.get_runtime_context().gcs_address):
        from .gang import NAMESPACE

        try:
            ray.get_actor(folder.name, NAMESPACE)
        except ValueError:
            return False
        return True
    return not cluster or _listens(cluster)


def _listens(address: str) -> bool:
    """Whether something may listen at ``host:port``: only a refusal says that nothing does."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=0.5):
            return True
    except ConnectionRefusedError:
        return False
    except OSError:  # no route, no answer, no such name here: nobody knows
        return True


def wait(folder: JobFolder, on_look: Callable[[], None] = lambda: None, tell: Callable[[str], None] = print) -> Record:
    """Wait until a job has ended and return its final event. Interrupting leaves the job running.

    Args:
        folder: The job.
        on_look: Called at every look, a few times a second.
        tell: Called with what the job waits for, if there is no room for it.

    Raises:
        ByzerError: the job failed (its error), or its coordinator is gone without having said how it ended.
    """
    events, looks = Cursor(folder.root / "events.jsonl"), 0
    while True:
        on_look()
        new = events.advance()
        for event in new:
            if event.get("waiting"):
                tell(f"job {folder.name} is {event['message']}")
        if ending := ending_of(new):  # else it was resumed since
            on_look()
            return finished(folder, ending)
        looks += 1
        if looks % 20 == 0 and not is_alive(folder) and folder.ending() is None:
            raise ByzerError(
                f"job {folder.name}: its coordinator is gone and it did not end",
                where=f"folder {folder.root}",
                do=f'"%byzerllm resume {folder.name}" goes on from its last checkpoint',
            )
        time.sleep(POLL_SECONDS)


def finished(folder: JobFolder, event: Record) -> Record:
    """Return the final event, or raise the error that it carries."""
    if event["event"] != "failed":
        return event
    first, *rest = event["error"]
    do = rest.pop().removeprefix("→ ") if rest and rest[-1].startswith("→ ") else ""
    first = first.removeprefix("ByzerError: ")
    raise ByzerError(f"job {folder.name} failed: {first}", where="\n".join(rest), do=do)


def evaluation_of(metrics: Sequence[Record], model_step: int | None) -> Record:
    """Return the step's record with the evaluation of the model that a job ends with, or else the last; {}: none."""
    evaluated = [record for record in metrics if "eval_loss" in record]
    of_model = [record for record in evaluated if record["step"] == model_step] or evaluated or [{}]
    return of_model[-1]


def result_row(folder: JobFolder) -> Record:
    """One row that says what a job did: what ``outputTable`` and the plain calls return.

    Paths are absolute, ``started`` is UTC, losses are of the first and the last step, ``eval_loss`` and
    ``eval_accuracy`` of the model that the job ends with. None: it is not known (yet), or there is none.
    """
    from .job_request import read_request

    request, events, metrics = read_request(folder), folder.events(), folder.metrics()
    last: Record = folder.ending() or {"event": "running"}
    evaluated = evaluation_of(metrics, last.get("model_step"))
    return {
        "name": folder.name,
        "status": last["event"],
        "error": last["error"][0] if "error" in last else None,
        "owner": request.owner,
        "method": request.train.pretrained_model_type,
        "base": request.parameters.get("localModelDir"),
        "model": str(folder.model) if folder.model.exists() else None,
        "folder": str(folder.root),
        "workers": request.workers,
        "precision": next((e["precision"] for e in reversed(events) if "precision" in e), None),
        "steps": metrics[-1]["step"] if metrics else 0,
        "tokens": sum(record["tokens"] for record in metrics),
        "first_loss": metrics[0]["loss"] if metrics else None,
        "last_loss": metrics[-1]["loss"] if metrics else None,
        "eval_loss": evaluated.get("eval_loss"),
        "eval_accuracy": evaluated.get("eval_accuracy"),
        "started": datetime.fromtimestamp(events[0]["time"], UTC) if events else None,
        "seconds": _seconds(last, metrics),
    }


def _seconds(ending: Record, metrics: Sequence[Record]) -> float | None:
    """Return the wall time of all steps: the last attempt's own, and that of earlier attempts' steps that remained."""
    if "seconds" not in ending:
        return None
    earlier = [record["seconds"] for record in metrics if record["attempt"] < ending["attempt"]]
    return round(float(ending["seconds"] + sum(earlier)), 3)
