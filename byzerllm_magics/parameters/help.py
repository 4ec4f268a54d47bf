"""Help about keys, as a plain text table made from their declarations."""

from __future__ import annotations

import difflib

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.infer_parameters import InferParameters
from byzerllm_adapters.parameters import KeyDoc, Parameters, describe
from byzerllm_trainers.train_parameters import TrainParameters

from .setup import SetupSettings

GROUPS: dict[str, tuple[type[Parameters], str]] = {
    "setup": (SetupSettings, ""),
    "infer": (InferParameters, ""),
    "train": (TrainParameters, ""),
    "sft": (TrainParameters, "sft."),
    "sfft": (TrainParameters, "sfft."),
}
"""A name for help: the declaration, and the prefix of the keys to show ("" for those without one)."""


def help_text(group: str) -> str:
    """Return a table of a group's keys: key, type, default, unit, what it is for.

    Args:
        group: `setup`, `infer`, `train`, `sft` or `sfft`.

    Raises:
        ByzerError: There is no such group.

    """
    if group not in GROUPS:
        near = difflib.get_close_matches(group, GROUPS, n=1)
        do = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(GROUPS)}"
        raise ByzerError(f"there is no group of parameters named {group}", do=do)
    declaration, prefix = GROUPS[group]
    return _table([key for key in describe(declaration) if _prefix(key) == prefix])


def _prefix(key: KeyDoc) -> str:
    head, dot, _ = key.name.rpartition(".")
    return head + dot


def _table(keys: list[KeyDoc]) -> str:
    rows = [("key", "type", "default", "unit", "what it is for")]
    rows += [(key.name, key.type, key.default, key.unit, key.doc) for key in keys]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
