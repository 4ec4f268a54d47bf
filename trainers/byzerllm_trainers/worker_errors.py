"""What to tell of a gang whose ranks raised: one error, of the rank that says most."""

from __future__ import annotations

import errno
import os
from typing import Any

from byzerllm_adapters.errors import ByzerError

from .job_folder import NO_ROOM, LeaseLost

PEER_SECONDS = 2.0
"""When a rank raises, the others' deaths and errors follow within this time."""

LINK_SECONDS = 15.0
"""When it raises because of a lost link, Ray needs this long to notice that the peer's whole node is gone."""


class WorkerLost(Exception):
    """A worker process or its node died or stood still, or ranks lost each other: the gang starts again."""


def telling_error(running: list[Any], rank: int, error: Any, job: str) -> Exception:
    """Choose what to tell when ``rank`` raised: its peers' deaths and real errors say more than lost links.

    Args:
        running: What each rank was called for, by rank.
        rank: Who raised.
        error: Ray's error, with what the rank raised as its cause.
        job: The job's name.
    """
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    ray.wait(running, num_returns=len(running), timeout=LINK_SECONDS if _lost_link(error.cause) else PEER_SECONDS)
    errors = {rank: error}
    for other, reference in enumerate(running):
        try:
            if other != rank:
                ray.get(reference, timeout=0)
        except RayActorError:
            return WorkerLost(f"worker {other} died")
        except RayTaskError as theirs:
            errors[other] = theirs
        except ray.exceptions.GetTimeoutError:
            continue
    for number, each in sorted(errors.items(), key=lambda item: (_lost_link(item[1].cause), item[0])):
        print(each)  # its text is the traceback in the worker
        if _lost_link(each.cause):
            return WorkerLost(f"worker {number} lost its connection to the others")
        return told(each.cause, f"rank {number}", job)
    raise AssertionError("errors holds at least this rank's")


def told(cause: BaseException, place: str, job: str) -> ByzerError:
    """Return what a task or worker raised as an error that names its place; a lost lease has none."""
    if isinstance(cause, LeaseLost):
        return cause
    if isinstance(cause, ByzerError):
        return ByzerError(cause.what, where=cause.where or place, do=cause.do)
    if file := _full_disk(cause):
        goes_on = f'"%byzerllm resume {job}" goes on from the last checkpoint'
        return ByzerError(f"{place}: the disk is full", where=file, do=f"make room there, then {goes_on}")
    first = " ".join(str(cause).strip().splitlines()[:2])
    return ByzerError(f"{place}: {type(cause).__name__}: {first}", do=f'"%byzerllm logs {job}" shows its traceback')


def _full_disk(error: BaseException) -> str:
    """Return what could not be written if the disk was full; empty: that was not the reason."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return str(error.filename or error)
    return str(error).strip().splitlines()[0] if os.strerror(errno.ENOSPC) in str(error) else ""  # safetensors' own


def _lost_link(error: BaseException) -> bool:
    """Whether an error only says that a peer went away."""
    return any(word in str(error) for word in ("Connection closed", "Connection reset", "Broken pipe", "gloo"))
