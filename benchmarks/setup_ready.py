"""`setup_ready_*`: from ``setup`` in a kernel that has imported nothing to a connected cluster and its card.

There is no peer: this is what a user waits for in a notebook's first cell on a machine without a cluster. Each
repeat is a process of its own that starts the embedded cluster and ends it; the clock begins before our first
import and stops when the card is made. The interpreter's own start does not count: a kernel has it behind it.
The first repeat finds less in the disk's cache than the others do, and stands by itself.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median

from measure import Figure

SMOKE = {"repeats": 1}


def measure(work: Path, repeats: int = 3) -> list[Figure]:
    seconds = [_in_a_new_process() for _ in range(repeats)]
    cold, warm = seconds[0], median(seconds[1:] or seconds)
    return [
        Figure("setup_ready_first", cold, "s", {"setup": seconds}, at_most=20),
        Figure("setup_ready_again", warm, "s", {"setup": seconds}, at_most=20),
    ]


def _in_a_new_process() -> float:
    done = subprocess.run([sys.executable, __file__], stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    """Set up once, print the seconds, end the cluster."""
    begun = time.perf_counter()
    from byzerllm_magics import Session
    from byzerllm_magics.magics.setup_card import SetupCard

    session = Session()
    repr(SetupCard(session.setup(), session.settings))
    print(time.perf_counter() - begun)
    for thread in threading.enumerate():
        if thread.name == "serve":  # it still starts, behind the card
            thread.join()
    session.shutdown()


if __name__ == "__main__":
    main()
