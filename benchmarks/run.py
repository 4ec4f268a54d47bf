"""Measure figures and append each, as one JSON line, to ``out/bench.jsonl``; see README.md.

usage: run.py [--list] [--smoke] [NAME …]     without names: all
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from measure import Figure

BENCHMARKS = (
    "load_ext",
    "setup_ready",
    "sft_vs_bare_loop",
    "sft_vs_peers",
    "sfft_vs_peers",
    "first_token",
    "view_cost",
    "attach",
    "saving",
    "read_script",
    "sql_calls",
    "tables",
    "tokenise",
    "memory",
    "kills",
)
RESULTS = Path(__file__).parents[1] / "out" / "bench.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure figures; without names, all.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--list", action="store_true", help="say what each one compares, and end")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: runs, means nothing, is not kept")
    options = parser.parse_args()
    names = options.names or BENCHMARKS
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(BENCHMARKS)}")
    if options.list:
        print("\n\n".join(str(importlib.import_module(name).__doc__) for name in names))
        return
    # a short name: Ray's sockets lie below it, and a socket's path may have 107 characters
    with tempfile.TemporaryDirectory(prefix="b-", ignore_cleanup_errors=True) as folder:
        os.environ.update(_environment(folder))
        for name in names:
            for figure in _in_a_new_process(name, Path(folder), smoke=options.smoke):
                _report(figure, keep=not options.smoke)


def _environment(folder: str) -> dict[str, str]:
    """Everything below one temporary folder, nothing from the network, and the CPU even where there is a GPU."""
    return {
        "BYZERLLM_STATE": f"{folder}/state",
        "TMPDIR": folder,
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def _in_a_new_process(name: str, work: Path, *, smoke: bool) -> list[Figure]:
    """Measure in a fresh interpreter, so that no benchmark inherits another's; end the cluster that it started."""
    from byzerllm_magics.cluster import connection

    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            return process.submit(_measure, name, work, smoke).result()
    finally:
        connection.shutdown()


def _measure(name: str, work: Path, smoke: bool) -> list[Figure]:
    module = importlib.import_module(name)
    figures: list[Figure] = module.measure(work, **(module.SMOKE if smoke else {}))
    return figures


def _report(figure: Figure, *, keep: bool) -> None:
    from record import line

    text = line(figure)
    print(text, flush=True)
    if keep:
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
