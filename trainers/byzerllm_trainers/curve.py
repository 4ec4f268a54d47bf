"""A job's steps as columns: a million of them are read in seconds, and every further look reads only what is new."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from .follow import Cursor

if TYPE_CHECKING:
    Columns = dict[str, np.ndarray]

WHOLE: Final = ("attempt", "step")
NUMBERS: Final = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "eval_loss")
"""What is kept of a step; NaN where its record does not have it."""

BLOCK = 1 << 26
"""So many bytes are read at a time."""

LARGE = 1 << 20
"""From so many bytes on, Arrow reads them: Python's own reader takes 5 s for a million steps (docs/log.md)."""


class Curve:
    """The steps of a job, each once, as its latest attempt recorded it.

    Args:
        path: Its metrics.jsonl; it may not exist yet.

    Attributes:
        columns: `WHOLE` (int64) and `NUMBERS` (float64), all of one length, steps ascending.
    """

    def __init__(self, path: Path) -> None:
        self._lines = Cursor(path)
        self.columns: Columns = {name: np.empty(0, np.int64) for name in WHOLE}
        self.columns |= {name: np.empty(0) for name in NUMBERS}

    def __len__(self) -> int:
        return len(self.columns["step"])

    def advance(self) -> bool:
        """Read what is new; return whether there was anything."""
        new = [_read(lines) for lines in iter(partial(self._lines.read, BLOCK), b"")]
        if not new:
            return False
        every = [self.columns, *new]
        self.columns = latest({name: np.concatenate([each[name] for each in every]) for name in self.columns})
        return True

    def eval_loss(self, model_step: int | None) -> float | None:
        """Return the evaluation of the model that a job ends with, or else the last one; None: there is none."""
        evaluated = np.flatnonzero(~np.isnan(self.columns["eval_loss"]))
        if not len(evaluated):
            return None
        of_model = evaluated[self.columns["step"][evaluated] == model_step]
        return float(self.columns["eval_loss"][(of_model if len(of_model) else evaluated)[-1]])


def latest(columns: Columns) -> Columns:
    """Return the rows that count, as `job_folder.extend_steps` says.

    Args:
        columns: (n,) values each, "attempt" and "step" among them, in the order in which they were written.
    """
    attempt = columns["attempt"]
    counted = np.flatnonzero(attempt == np.maximum.accumulate(attempt))
    steps = columns["step"][counted]
    if len(counted) < len(attempt) or (np.diff(steps) <= 0).any():
        lowest_after = np.append(np.minimum.accumulate(steps[::-1])[::-1][1:], np.iinfo(np.int64).max)
        kept = counted[steps < lowest_after]
        return {name: column[kept] for name, column in columns.items()}
    return columns


def _read(lines: bytes) -> Columns:
    """Return the columns of whole JSON lines."""
    import pyarrow as pa

    if len(lines) >= LARGE:
        try:
            return _read_by_arrow(lines)
        except pa.ArrowInvalid:  # a gradient's norm that is NaN or infinite, which is not JSON
            pass
    records = [json.loads(line) for line in lines.splitlines()]
    columns: Columns = {name: np.array([each[name] for each in records], np.int64) for name in WHOLE}
    return columns | {name: np.array([each.get(name, np.nan) for each in records], np.float64) for name in NUMBERS}


def _read_by_arrow(lines: bytes) -> Columns:
    import pyarrow as pa
    from pyarrow import json as arrow_json

    schema = pa.schema([(name, pa.int64()) for name in WHOLE] + [(name, pa.float64()) for name in NUMBERS])
    only_these = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    table = arrow_json.read_json(pa.BufferReader(lines), parse_options=only_these)
    return {name: table[name].to_numpy() for name in schema.names}
