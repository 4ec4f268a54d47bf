"""`load_ext`: what ``%load_ext byzerllm_magics`` adds to the start of IPython.

Compared: an IPython that starts, runs one empty statement and ends; and one that loads the extension instead.
Fair, because both are whole processes of the same interpreter with an empty profile, run in turn after one
start each that fills the disk cache; the difference of medians holds every import that loading causes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

from measure import Figure, interleaved

SMOKE = {"rounds": 1}


def measure(work: Path, rounds: int = 15) -> list[Figure]:
    sides = {
        "bare": partial(_start, "pass", work),
        "with_extension": partial(_start, "%load_ext byzerllm_magics", work),
    }
    interleaved(sides, 1)
    milliseconds = interleaved(sides, rounds)
    added = median(milliseconds["with_extension"]) - median(milliseconds["bare"])
    return [Figure("load_ext", added, "ms", milliseconds, at_most=100)]


def _start(statement: str, work: Path) -> float:
    """Return the milliseconds of an IPython process that runs ``statement``."""
    command = [sys.executable, "-m", "IPython", "--no-banner", "--colors=nocolor", "-c", statement]
    begun = time.perf_counter()
    done = subprocess.run(
        command, env=os.environ | {"IPYTHONDIR": str(work / "ipython")}, capture_output=True, text=True, check=True
    )
    ended = time.perf_counter()
    assert "Error" not in done.stdout + done.stderr, done.stdout + done.stderr
    return (ended - begun) * 1000
