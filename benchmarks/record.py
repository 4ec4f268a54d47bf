"""A figure as a JSON line: with everything that is needed to compare it with another day's or machine's."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from measure import Figure

LIBRARIES = ("torch", "transformers", "deepspeed", "ray", "peft", "pyarrow", "duckdb", "sqlglot")


def line(figure: Figure) -> str:
    """Return the record of a figure that was measured just now, on this machine."""
    return json.dumps(
        {
            "name": figure.name,
            "value": round(figure.value, 5),
            "unit": figure.unit,
            "goal": figure.goal,
            "met": figure.met,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "machine": machine(),
            "raw": {side: [round(value, 5) for value in values] for side, values in figure.raw.items()},
        }
    )


def versions() -> dict[str, str]:
    """Versions of Python, of what does the work, and of ours, with its commit where there is one."""
    import byzerllm_magics

    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,  # a source archive is no checkout
    )
    ours = "+".join(part for part in (byzerllm_magics.__version__, described.stdout.strip()) if part)
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}, "ours": ours}


def machine() -> dict[str, object]:
    """What computed, and how busy it was with whatever else over the last minute."""
    import psutil

    from byzerllm_adapters.loading import fast_bf16

    return {
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "fast_bf16": fast_bf16("cpu"),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [text.partition(":")[2].strip() for text in lines if text.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
