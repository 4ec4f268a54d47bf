"""Telling somebody that a job has ended: a shell command, or an HTTP POST."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request

from .follow import result_row
from .job_folder import JobFolder

SECONDS = 60.0
"""A command or server that takes longer is given up."""

KINDS = ("shell:", "http://", "https://")


def announce(how: str, folder: JobFolder) -> None:
    """Run ``shell:COMMAND``, or post to ``http(s)://…``, with the job's result row as JSON.

    A command gets the row on its standard input, and ``JOB_NAME``, ``JOB_STATUS`` and ``JOB_FOLDER`` in its
    environment; it runs where the coordinator does.

    Args:
        how: The job's ``on_finish``.
        folder: The job's; it has ended.

    Raises:
        OSError: the server does not answer, or with an error.
        subprocess.SubprocessError: the command failed, or took too long.
    """
    row = result_row(folder)
    content = json.dumps(row, ensure_ascii=False, default=str).encode()
    if how.startswith("shell:"):
        job = {"JOB_NAME": folder.name, "JOB_STATUS": str(row["status"]), "JOB_FOLDER": str(folder.root)}
        command = how.removeprefix("shell:").strip()
        subprocess.run(command, shell=True, input=content, env=os.environ | job, timeout=SECONDS, check=True)
        return
    request = urllib.request.Request(how, content, {"Content-Type": "application/json; charset=utf-8"})
    with urllib.request.urlopen(request, timeout=SECONDS):
        return
