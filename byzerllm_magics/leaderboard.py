"""Jobs compared: a DataFrame with everything, which a notebook shows in the width of a narrow column.

pandas is imported with this module, which is therefore imported where it is used.
"""

from __future__ import annotations

import difflib
import html
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import disk, follow

from .cluster.job_watch import JobWatch
from .estimate_card import size

if TYPE_CHECKING:
    from byzerllm_trainers.job_folder import Record

    from .cluster.jobs import Job

FIRST = ("name", "method", "base", "state", "step", "of", "loss", "eval_loss")
LAST = ("disk", "seconds", "folder")
"""Columns of every leaderboard; between them stand those of the evaluations, ``TABLE.METRIC``."""

HIDDEN = ("of", "seconds", "folder")
LOSSES = ("loss", "eval_loss", "perplexity")
"""Of these, and of texts, the smallest comes first; of all other numbers the largest."""


class Leaderboard(pd.DataFrame):
    """A DataFrame that is shown narrow: the base by its last name, steps as done/planned, evaluations by metric.

    What is made of it (sorted, selected) is a plain DataFrame, shown whole.
    """

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        shown = _narrow(self)
        sides = [_side(column) for column in shown.columns]
        head = "".join(f"<th{side}>{_breakable(name)}</th>" for name, side in zip(shown.columns, sides, strict=True))
        rows = "".join(
            "<tr>"
            + "".join(f"<td{side}>{html.escape(cell, quote=False)}</td>" for side, cell in zip(sides, row, strict=True))
            + "</tr>"
            for row in shown.itertuples(index=False)
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if len(shown) else "no job yet"
        return f'<div class="tex2jax_ignore mathjax_ignore" style="max-width:100%;overflow-x:auto">{table}</div>'

    def __repr__(self) -> str:
        return _narrow(self).to_string(index=False) if len(self) else "no job yet"


def leaderboard(jobs: Sequence[Job], by: str | None = None) -> Leaderboard:
    """Return a row a job: what it trained, how far it is, how good it is; needs no cluster.

    Columns are `FIRST`, the evaluations of the job's model (the latest of each table), and `LAST`.

    Args:
        jobs: In the order of the rows.
        by: Sort by this column instead, the best first; jobs without a value come last.

    Raises:
        ByzerError: there is no such column.
    """
    rows = [_row(job) for job in jobs]
    measured = dict.fromkeys(key for row in rows for key in row if key not in (*FIRST, *LAST))
    board = Leaderboard(rows, columns=[*FIRST, *measured, *LAST])
    if by is None:
        return board
    if by not in board.columns:
        near = difflib.get_close_matches(by, board.columns, n=1)
        do = f"did you mean {near[0]}?" if near else f"there are: {', '.join(board.columns)}"
        raise ByzerError(f"no column {by!r} to sort by", do=do)
    ascending = by.rpartition(".")[2] in LOSSES or not pd.api.types.is_numeric_dtype(board[by])
    board = Leaderboard(board.sort_values(by, ascending=ascending, na_position="last", kind="stable"))
    board.attrs["by"] = by
    return board


def _row(job: Job) -> Record:
    watch = JobWatch(job.folder)
    state = watch.look()
    request = job.folder.request()
    return {
        "name": job.name,
        "method": state.method,
        "base": request["parameters"].get("localModelDir"),
        "state": "lost" if state.active and not follow.is_alive(job.folder) else state.state,
        "step": state.step,
        "of": state.total_steps,
        "loss": state.last("loss"),
        "eval_loss": watch.curve.eval_loss(watch.model_step),
        **_measured(job.folder.evaluations()),
        "disk": disk.size(job.folder.root),
        "seconds": round(state.elapsed(time.time()) or 0, 1),
        "folder": state.folder,
    }


def _measured(evaluations: Sequence[Record]) -> dict[str, float]:
    """Return what the evaluations found, the latest of each table; names of columns are TABLE.METRIC."""
    found = {}
    for record in evaluations:
        for measure in (record["metric"], "loss", "perplexity"):
            if measure is not None and record.get(measure) is not None:
                found[f"{record['table']}.{measure}"] = record[measure]
    return found


def _narrow(board: pd.DataFrame) -> pd.DataFrame:
    """Return the texts that are shown."""
    measured = [str(name) for name in board.columns if name not in (*FIRST, *LAST)]
    tables_with_metric = {name.rpartition(".")[0] for name in measured if not name.endswith((".loss", ".perplexity"))}
    left_out = [
        name
        for name in measured
        if name.endswith(".loss") or (name.endswith(".perplexity") and name.rpartition(".")[0] in tables_with_metric)
    ]
    texts = {
        str(name): [_text(str(name), row) for row in board.to_dict("records")]
        for name in board.columns
        if name not in (*HIDDEN, *left_out) or name == board.attrs.get("by")
    }
    return pd.DataFrame(texts)


def _text(column: str, row: Mapping[Any, Any]) -> str:
    value = row[column]
    if column == "step":
        return f"{value}/{row['of']:g}" if pd.notna(row["of"]) else str(value)
    if pd.isna(value):
        return ""
    if column == "disk":
        return size(value)
    if column == "base":
        path = Path(value)
        return f"{path.parent.name}/{path.name}" if path.name == "model" else path.name  # another job's result
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _side(column: str) -> str:
    """Return the style of a column's cells: texts at the left, which may be broken anywhere when room is short."""
    if column in ("name", "base"):
        return ' style="text-align:left;overflow-wrap:anywhere;min-width:6em"'
    return ' style="text-align:left"' if column in ("method", "state") else ""


def _breakable(name: str) -> str:
    """Return a column's name as HTML that may be broken behind its dots and underscores."""
    return html.escape(name, quote=False).replace("_", "_<wbr>").replace(".", ".<wbr>")
