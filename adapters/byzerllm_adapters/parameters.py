"""Keys and what may stand for them: each is declared once, as a pydantic field of a `Parameters`.

Reading, errors, help, completion and docs are made from the declaration. A field's name is Python's
(`local_model_dir`), its alias is the language's (`localModelDir`); messages use the language's. A field whose
type is again a `Parameters` is a group: its keys are dotted (`sft.max_seq_length`) and may name their type in
between (`sft.int.max_seq_length`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .declaration import (
    PROBLEM,
    AnyText,
    JsonList,
    JsonObject,
    OpenParameters,
    Parameters,
    Text,
    as_text,
    load_json,
    problem,
)
from .errors import ByzerError
from .keys import TYPES, DeclaredKey, Key, any_key, by_spelling, declared, describe, groups, notes
from .secret_values import MASK, is_secret

__all__ = [
    "AnyText",
    "JsonList",
    "JsonObject",
    "Key",
    "OpenParameters",
    "ParameterError",
    "Parameters",
    "Problem",
    "Text",
    "as_strings",
    "as_text",
    "describe",
    "groups",
    "load_json",
    "notes",
    "problem",
    "read",
]

P = TypeVar("P", bound="Parameters")

_BOUNDS = {
    "greater_than": "greater than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: the key as it was written (a missing one as declared), what, what to do."""

    key: str
    what: str
    do: str


class ParameterError(ByzerError):
    """Parameters that cannot be used; `problems` holds all of them, in the order of the keys."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        assert problems, "an error needs a problem"
        self.problems = problems
        if len(problems) == 1:
            super().__init__(problems[0].what, do=problems[0].do)
            return
        lines = [f"{problem.what}: {problem.do}" for problem in problems]
        if len(lines) > 4:
            lines[3:] = [f"… and {len(problems) - 3} more: {', '.join(p.key for p in problems[3:])}"]
        super().__init__(f"{len(problems)} parameters are wrong", where="\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        """Keep `problems` when the error travels from a worker."""
        return ParameterError, (self.problems,)


def read(declaration: type[P], raw: Mapping[str, object]) -> P:
    """Return the declared parameters of raw ones: strings from a cell, or Python values.

    Raises:
        ParameterError: Keys are unknown, refused, missing or given twice, or values are not of their type.

    """
    found: dict[tuple[str, ...], tuple[DeclaredKey, str, object]] = {}
    problems: list[Problem] = []
    for written, value in _flat(raw, declaration):
        key = _find(written, declaration, problems)
        if key is None:
            continue
        if mistyped := _mistyped(written, value, key):
            problems.append(mistyped)
        elif key.path in found:
            what = f"{key.name} is given twice, as {found[key.path][1]} and as {written}"
            problems.append(Problem(written, what, "keep one of them"))
        else:
            found[key.path] = (key, written, _prepared(value, key))
    try:
        result = declaration.model_validate(_nested({path: value for path, (_, _, value) in found.items()}))
    except ValidationError as error:
        spelled = {key.name: written for key, written, _ in found.values()}
        by_path = {key.path: key for key in declared(declaration)} | {path: key for path, (key, *_) in found.items()}
        problems += [_problem(details, by_path, spelled) for details in error.errors()]
    # a key that was mistyped is not missing besides
    meant = {problem.do for problem in problems}
    problems = [p for p in problems if not (p.what == _missing(p.key) and _did_you_mean(p.key) in meant)]
    if problems:
        order = {written: index for index, written in enumerate(raw)}
        raise ParameterError(tuple(sorted(problems, key=lambda p: order.get(p.key, len(order)))))
    return result


def as_strings(parameters: Parameters, raw: Mapping[str, object]) -> dict[str, str]:
    """Return the raw parameters that were read as `parameters` the way an adapter gets them.

    Keys stay as they were written; values are text in one form each, whatever the cell wrote: `true`, `false`,
    JSON. A value of None is left out.
    """
    texts = {}
    for written, _ in _flat(raw, type(parameters)):
        key = _find(written, type(parameters), [])
        assert key is not None, f"{written} was not read"
        value = key.value(parameters)
        if value is not None:
            texts[written] = as_text(value)
    return texts


def _flat(raw: Mapping[str, object], declaration: type[Parameters]) -> Iterator[tuple[str, object]]:
    """Yield each key with its value; a group given as a mapping, as Python may, gives dotted keys."""
    heads = groups(declaration)
    for key, value in raw.items():
        if key in heads and isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", inside) for inner, inside in value.items())
        else:
            yield key, value


def _find(written: str, declaration: type[Parameters], problems: list[Problem]) -> DeclaredKey | None:
    """Return the key that is meant, or None with a problem added."""
    found = _meant(written, declaration)
    if isinstance(found, DeclaredKey):
        return found
    problems.append(found)
    return None


def _meant(written: str, declaration: type[Parameters]) -> DeclaredKey | Problem:
    known = by_spelling(declaration)
    if written in known:
        return known[written]
    group, *rest = written.split(".")
    key = known.get(".".join([group, *rest[1:]])) if len(rest) > 1 else None
    inner = groups(declaration).get(group)
    if rest and inner is not None and issubclass(inner, OpenParameters) and not (key and rest[0] in TYPES):
        return _of_open_group(written, group, inner)
    if key is None:
        return _unknown(written, declaration)
    if rest[0] == key.type or (rest[0], key.type) in (("int", "float"), ("str", "list")):  # a list may be one name
        return key
    says = f"{written} says {rest[0]}, but {key.name} takes {key.form}"
    what = says if rest[0] in TYPES else f"{written}: {rest[0]} is no type"
    return Problem(written, what, f"write {key.name} or {_typed(key)}")


def _of_open_group(written: str, group: str, inner: type[OpenParameters]) -> DeclaredKey | Problem:
    """Return the key of a group that takes any, unless it looks like a mistyped one of those declared."""
    name = written.removeprefix(f"{group}.")
    first, _, behind = name.partition(".")
    meant = _nearest(behind if first in TYPES else name, inner.model_fields, cutoff=0.8)
    if meant is None:
        return any_key(inner, (group,), name)
    return Problem(written, f"{written} is not a known parameter", _did_you_mean(f"{group}.{meant}"))


def _mistyped(written: str, value: object, key: DeclaredKey) -> Problem | None:
    """Return why a value cannot stand where the key itself says that it is a whole number; a float may be one."""
    if key.type != "float" or not written.startswith(f"{key.path[0]}.int."):
        return None
    try:
        if float(str(value)).is_integer():
            return None
    except ValueError:  # it is no number at all, which is told of any key
        return None
    what = f"{written}={_quoted(value)} is not a whole number, and {key.name} is a float"
    return Problem(written, what, f"write {key.name} or {_typed(key)}")


def _typed(key: DeclaredKey) -> str:
    """Return a key with its type: `sft.float.learning_rate`."""
    group, _, name = key.name.rpartition(".")
    return f"{group}.{key.type}.{name}"


def _unknown(written: str, declaration: type[Parameters]) -> Problem:
    first, *rest = written.split(".")
    plain = ".".join([first, *(rest[1:] if rest and rest[0] in TYPES else rest)])
    group, _, name = plain.rpartition(".")
    home = groups(declaration).get(group, declaration)
    if name in home.refused:
        return Problem(written, f"{plain} is not used here", home.refused[name])
    meant = _nearest(plain, by_spelling(declaration), cutoff=0.7)
    do = "leave it out; `%byzerllm params` lists what is known"
    if meant:
        do = _did_you_mean(by_spelling(declaration)[meant].name)
    return Problem(written, f"{written} is not a known parameter", do)


def _nearest(written: str, known: Iterable[str], *, cutoff: float) -> str | None:
    """Return the key that looks most like this one."""
    comparable = {_comparable(key): key for key in known}
    near = difflib.get_close_matches(_comparable(written), comparable, n=1, cutoff=cutoff)
    return comparable[near[0]] if near else None


def _did_you_mean(key: str) -> str:
    return f"did you mean {key}?"


def _missing(key: str) -> str:
    return f"{key} is missing"


def _comparable(key: str) -> str:
    return key.lower().replace("_", "")


def _prepared(value: object, key: DeclaredKey) -> object:
    """Return a value as pydantic takes it: in a cell, `none` stands for None where text is not asked for."""
    free_text = key.type == "str" and not key.choices
    if isinstance(value, str) and key.optional and not free_text and value.strip().lower() in ("none", "null"):
        return None
    return value


def _nested(values: Mapping[tuple[str, ...], object]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for (*above, name), value in values.items():
        inside = nested
        for group in above:
            inside = inside.setdefault(group, {})
        inside[name] = value
    return nested


def _problem(
    details: ErrorDetails, by_path: Mapping[tuple[str, ...], DeclaredKey], spelled: Mapping[str, str]
) -> Problem:
    """Return pydantic's error in the words of a cell."""
    context = details.get("ctx", {})
    place = tuple(map(str, details["loc"]))
    key = by_path.get(place[:2]) or by_path.get(place[:1])
    if key is None:  # raised by a validator of a whole declaration
        assert details["type"] == PROBLEM, f"an error of no key: {details}"
        named = ".".join((*place, context["key"]))
        return Problem(spelled.get(named, named), context["what"], context["do"])
    written = spelled.get(key.name, key.name)
    if details["type"] == "missing":
        return Problem(key.name, _missing(key.name), f'add {key.name}="…": {key.field.description}')
    given = f"{written}={_quoted(MASK if is_secret(written) else details['input'])}"
    if details["type"] == PROBLEM:
        return Problem(written, f"{given} {context['what']}", context["do"])
    if details["type"] == "string_too_short":
        return Problem(written, f"{written} is empty", f"give its value: {key.field.description}")
    if bound := _BOUNDS.get(details["type"]):
        of_unit = f" ({key.unit})" if key.unit else ""
        return Problem(written, f"{given} is out of range", f"give a value {bound.format(**context)}{of_unit}")
    return Problem(written, f"{given} is not {'allowed' if key.choices else key.form}", key.advice)


def _quoted(value: object) -> str:
    line = " ".join(as_text(value).split())
    return f'"{line}"' if len(line) <= 40 else f'"{line[:40]}…"'
