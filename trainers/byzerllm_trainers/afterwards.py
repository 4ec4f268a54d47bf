"""What a job's coordinator does when the job has ended: functions that whoever wants them has put into its folder."""

from __future__ import annotations

import os
from collections.abc import Callable

from .job_folder import JobFolder

Function = Callable[[], None]


def add(folder: JobFolder, name: str, function: Function) -> None:
    """Have a function called at a job's end, on the coordinator's node, once; it is kept until then.

    Args:
        folder: The job's.
        name: What it is for; another one of this name is replaced.
        function: Is pickled: what it is given is readable by the folder's owner alone.
    """
    from ray import cloudpickle

    folder.afterwards.mkdir(exist_ok=True)
    path = folder.afterwards / name
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(cloudpickle.dumps(function))


def remove(folder: JobFolder, name: str) -> None:
    """Have it not called after all."""
    (folder.afterwards / name).unlink(missing_ok=True)


def call_all(folder: JobFolder) -> list[str]:
    """Call the functions of a job that has ended; return what went wrong, a sentence each."""
    from ray import cloudpickle

    wrong = []
    for path in sorted(folder.afterwards.iterdir()) if folder.afterwards.is_dir() else ():
        try:
            cloudpickle.loads(path.read_bytes())()
        except Exception as error:  # noqa: BLE001 - whatever it was, the job has ended all the same
            wrong.append(f"{path.name} failed: {error}")
        path.unlink()
    return wrong
