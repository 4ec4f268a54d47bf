"""Help about keys, made from their declarations: what completion offers, a table in a cell, a page of the docs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.infer_parameters import InferParameters
from byzerllm_adapters.parameters import Key, Parameters, describe
from byzerllm_trainers.actions.action_parameters import ConvertParameters, EvaluateParameters, MergeParameters
from byzerllm_trainers.refused_arguments import REFUSED
from byzerllm_trainers.train_parameters import TrainParameters, methods

from ..tables.load_options import CsvOptions, JsonOptions, TextOptions
from .repartition import RepartitionParameters
from .setup import SetupSettings

_REFUSED = """\
## What is not used here

Other fields of transformers' `TrainingArguments` are refused by name, with what to use instead."""

WIDEST_TYPE = 40
"""Characters; where the values of a key take more, they are listed with its meaning."""


def _everything(_key: Key) -> bool:
    return True


def _of(group: str) -> Callable[[Key], bool]:
    return lambda key: key.name.startswith(f"{group}.")


GROUPS: dict[str, tuple[type[Parameters], Callable[[Key], bool], str]] = {
    "setup": (SetupSettings, _everything, "`%%byzerllm setup`: what holds for every later cell"),
    "infer": (InferParameters, _everything, '`action="infer"`: deploy a model'),
    "train": (TrainParameters, lambda key: "." not in key.name, "Train a model: what to train on what"),
    **{
        name: (TrainParameters, _of(name), f'`pretrainedModelType="{name}/…"`: {method.title}')
        for name, method in methods().items()
    },
    "merge": (MergeParameters, _everything, '`action="merge"`: an adapter into its base'),
    "convert": (ConvertParameters, _everything, '`action="convert"`: a checkpoint to a model folder'),
    "evaluate": (EvaluateParameters, _everything, '`action="evaluate"`: loss and answers of models on a table'),
    "csv": (CsvOptions, _everything, "`load csv`: options"),
    "json": (JsonOptions, _everything, "`load json`: options"),
    "text": (TextOptions, _everything, "`load text`: options"),
    "repartition": (RepartitionParameters, _everything, "`TableRepartition`: options"),
}
"""A name for help: the declaration, which of its keys, and a title."""

_INTRODUCTION = """\
# Parameters

Made from the declarations by `make docs`; `%byzerllm params` prints the same in a notebook.

Values are text in a cell (`sft.lora_rank="8"`); booleans are read in any case. A key of a group may name its type:
`sft.int.lora_rank`. A default of `none` is explained by the key's meaning; where it is a value, `"none"` writes it.
Anything that is named like a secret is never shown, and `"env:NAME"` reads it from the environment."""


def keys_of(group: str) -> list[Key]:
    """Return a group's keys, in the order of their declaration.

    Args:
        group: A name of `GROUPS`.

    Raises:
        ByzerError: There is no such group.

    """
    if group not in GROUPS:
        near = difflib.get_close_matches(group, GROUPS, n=1)
        do = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(GROUPS)}"
        raise ByzerError(f"there is no group of parameters named {group}", do=do)
    declaration, belongs, _ = GROUPS[group]
    return [key for key in describe(declaration) if belongs(key)]


def help_text(group: str, words: Sequence[str] = ()) -> str:
    """Return a table of a group's keys: key, type, default, unit, what it is for.

    Args:
        group: As for `keys_of`.
        words: Only keys that have all of them, in any case, in their name, values or meaning. No key: no text.

    Raises:
        ByzerError: There is no such group.

    """
    found = [key for key in keys_of(group) if _has(key, words)]
    if not found:
        return ""
    rows = [("key", "type", "default", "unit", "what it is for")]
    rows += [(key.name, _type(key), key.default, key.unit, _meaning(key)) for key in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def search_text(words: Sequence[str]) -> str:
    """Return what `%byzerllm params WORD …` prints: of the named group, or of all of them, the keys with the words.

    Raises:
        ByzerError: No key has them.

    """
    named, words = (list(words[:1]), words[1:]) if words and words[0] in GROUPS else (list(GROUPS), words)
    tables = {group: help_text(group, words) for group in named}
    text = "\n\n".join(f"{group}\n{table}" for group, table in tables.items() if table)
    if not text:
        near = difflib.get_close_matches(words[0], GROUPS, n=1)
        do = f"did you mean {near[0]}?" if near else '"%byzerllm params" lists all of them'
        raise ByzerError(f"no parameter has {' and '.join(map(repr, words))} in its name or meaning", do=do)
    return text


def reference_page() -> str:
    """Return `docs/parameters.md`: a table for each group, and what is refused by name."""
    parts = [_INTRODUCTION]
    for group, (_, _, title) in GROUPS.items():
        parts += [f"## {title}", _markdown_table(keys_of(group))]
    rows = [f"| `{name}` | {_cell(instead)} |" for name, instead in sorted(REFUSED.items())]
    for group, method in methods().items():
        own = {name: instead for name, instead in method.refused.items() if name not in REFUSED}
        rows += [f"| `{group}.{name}` | {_cell(instead)} |" for name, instead in sorted(own.items())]
    parts += [_REFUSED, "\n".join(["| key of a way to train | instead |", "| --- | --- |", *rows])]
    return "\n\n".join(parts) + "\n"


def _has(key: Key, words: Sequence[str]) -> bool:
    text = " ".join((key.name, *key.values, key.doc)).lower()
    return all(word.lower() in text for word in words)


def _values(key: Key) -> str:
    return "" if key.type == "bool" else " | ".join(key.values)


def _type(key: Key) -> str:
    values = _values(key)
    return values if 0 < len(values) <= WIDEST_TYPE else key.type


def _meaning(key: Key) -> str:
    return f"{key.doc} {_values(key)}" if len(_values(key)) > WIDEST_TYPE else key.doc


def _markdown_table(keys: Sequence[Key]) -> str:
    rows = [
        f"| `{key.name}` | {_cell(_type(key))} | {_cell(key.default)} | {key.unit} | {_cell(_meaning(key))} |"
        for key in keys
    ]
    return "\n".join(["| key | type | default | unit | meaning |", "| --- | --- | --- | --- | --- |", *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
