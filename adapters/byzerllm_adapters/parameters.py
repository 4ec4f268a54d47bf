"""Keys and what may stand for them: each is declared once, as a pydantic field of a `Parameters`.

Reading, errors, help, completion and docs are made from the declaration. A field's name is Python's
(`local_model_dir`), its alias is the language's (`localModelDir`); messages use the language's. A field whose
type is again a `Parameters` is a group: its keys are dotted (`sft.max_seq_length`) and may name their type in
between (`sft.int.max_seq_length`).
"""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from .errors import ByzerError

P = TypeVar("P", bound="Parameters")

TYPES = {"int": int, "float": float, "bool": bool, "str": str, "list": list, "dict": dict}
_FORMS = {
    "int": ("a whole number", "128"),
    "float": ("a number", "2e-4"),
    "bool": ("true or false", ""),
    "str": ("text", ""),
    "list": ("a JSON list", '["a", "b"]'),
    "dict": ("a JSON object", '{"key": 1}'),
}
"""For each type what it is in words, and an example."""

_BOUNDS = {
    "greater_than": "greater than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
}
_PROBLEM = "byzerllm_problem"


class Parameters(BaseModel):
    """What a declaration of keys derives from: values never change, an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False, loc_by_alias=False
    )


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


@dataclass(frozen=True)
class KeyDoc:
    """What help says of a key: `type` is e.g. `int` or `cosine | linear`, `default` as in a cell."""

    name: str
    type: str
    default: str
    unit: str
    doc: str


@dataclass(frozen=True)
class _Key:
    """A key of a declaration: the field names that lead to it, its spellings (messages use the first)."""

    path: tuple[str, ...]
    spellings: tuple[str, ...]
    field: FieldInfo

    @property
    def name(self) -> str:
        return self.spellings[0]

    @property
    def annotation(self) -> Any:
        """The type without `| None`."""
        options = [option for option in _options(self.field.annotation) if option is not type(None)]
        return options[0] if len(options) == 1 else self.field.annotation

    @property
    def choices(self) -> tuple[Any, ...]:
        return get_args(self.annotation) if get_origin(self.annotation) is Literal else ()

    @property
    def type(self) -> str:
        """The name of the type among TYPES."""
        kind = type(self.choices[0]) if self.choices else get_origin(self.annotation) or self.annotation
        return next(name for name, known in TYPES.items() if known is kind)

    @property
    def optional(self) -> bool:
        return type(None) in _options(self.field.annotation)

    @property
    def form(self) -> str:
        """What may stand for this key, in words."""
        if self.choices:
            return f"{'one of ' if len(self.choices) > 1 else ''}{', '.join(map(str, self.choices))}"
        return _FORMS[self.type][0]

    @property
    def advice(self) -> str:
        """What to write for this key."""
        example = "" if self.choices else _FORMS[self.type][1]
        return f"write {self.form}, e.g. {example}" if example else f"write {self.form}"


def problem(what: str, do: str, key: str = "") -> PydanticCustomError:
    """Return the error that a declaration's validator raises; a model's validator names a declared `key`."""
    return PydanticCustomError(_PROBLEM, "{what}", {"what": what, "do": do, "key": key})


def read(declaration: type[P], raw: Mapping[str, object]) -> P:
    """Return the declared parameters of raw ones: strings from a cell, or Python values.

    Raises:
        ParameterError: Keys are unknown, missing or given twice, or values are not of their type.

    """
    keys = list(_keys(declaration))
    found: dict[tuple[str, ...], tuple[str, object]] = {}
    problems: list[Problem] = []
    for written, value in _flat(raw, {key.path[0] for key in keys if len(key.path) > 1}):
        key = _find(written, keys, problems)
        if key is None:
            continue
        if key.path in found:
            what = f"{key.name} is given twice, as {found[key.path][0]} and as {written}"
            problems.append(Problem(written, what, "keep one of them"))
        else:
            found[key.path] = (written, _prepared(value, key))
    try:
        result = declaration.model_validate(_nested({path: value for path, (_, value) in found.items()}))
    except ValidationError as error:
        spelled = {key.name: found[key.path][0] for key in keys if key.path in found}
        by_path = {key.path: key for key in keys}
        problems += [_problem(details, by_path, spelled) for details in error.errors()]
    if problems:
        order = {written: index for index, written in enumerate(raw)}
        raise ParameterError(tuple(sorted(problems, key=lambda p: order.get(p.key, len(order)))))
    return result


def describe(declaration: type[Parameters]) -> list[KeyDoc]:
    """Return what there is to say of each key, in the order of the declaration, groups dotted."""
    return [
        KeyDoc(
            name=key.name,
            type=" | ".join(map(str, key.choices)) or key.type,
            default=_default(key.field),
            unit=_unit(key.field),
            doc=key.field.description or "",
        )
        for key in _keys(declaration)
    ]


def load_json(value: object) -> object:
    """Return what a JSON text says; anything but a text stays as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise problem(f"is not JSON: {error.msg} at {place} of the value", "correct the JSON text") from None


Text = Annotated[str, StringConstraints(min_length=1)]
JsonObject = Annotated[dict[str, Any], BeforeValidator(load_json)]
JsonList = Annotated[list[Any], BeforeValidator(load_json)]


def _keys(declaration: type[Parameters], group: tuple[str, ...] = ()) -> Iterator[_Key]:
    for name, field in declaration.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Parameters):
            yield from _keys(field.annotation, (*group, name))
            continue
        alias = field.validation_alias
        aliases = alias.choices if isinstance(alias, AliasChoices) else [alias] if alias else []
        spellings = dict.fromkeys([*map(str, aliases), name])
        yield _Key((*group, name), tuple(".".join((*group, spelling)) for spelling in spellings), field)


def _options(annotation: Any) -> tuple[Any, ...]:
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return tuple(get_args(option)[0] if get_origin(option) is Annotated else option for option in options)


def _flat(raw: Mapping[str, object], groups: set[str]) -> Iterator[tuple[str, object]]:
    """Yield each key with its value; a group given as a mapping, as Python may, gives dotted keys."""
    for key, value in raw.items():
        if key in groups and isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", inside) for inner, inside in value.items())
        else:
            yield key, value


def _find(written: str, keys: list[_Key], problems: list[Problem]) -> _Key | None:
    """Return the key that is meant, or None with a problem added."""
    by_spelling = {spelling: key for key in keys for spelling in key.spellings}
    if written in by_spelling:
        return by_spelling[written]
    group, *rest = written.split(".")
    plain = ".".join([group, *rest[1:]])
    key = by_spelling.get(plain) if len(rest) > 1 and rest[0] in TYPES else None
    if key is None:
        problems.append(_unknown(written, plain if rest and rest[0] in TYPES else written, by_spelling))
        return None
    if rest[0] == key.type or (rest[0], key.type) == ("int", "float"):
        return key
    what = f"{written} says {rest[0]}, but {key.name} takes {key.form}"
    problems.append(Problem(written, what, f"write {key.name} or {group}.{key.type}.{'.'.join(rest[1:])}"))
    return None


def _unknown(written: str, plain: str, by_spelling: Mapping[str, _Key]) -> Problem:
    comparable = {_comparable(spelling): key.name for spelling, key in by_spelling.items()}
    near = difflib.get_close_matches(_comparable(plain), comparable, n=1, cutoff=0.7)
    do = f"did you mean {comparable[near[0]]}?" if near else "leave it out; `%byzerllm params` lists what is known"
    return Problem(written, f"{written} is not a known parameter", do)


def _comparable(key: str) -> str:
    return key.lower().replace("_", "")


def _prepared(value: object, key: _Key) -> object:
    """Return a value as pydantic takes it: in a cell, `none` stands for None where text is not asked for."""
    if isinstance(value, str) and key.optional and key.type != "str" and value.strip().lower() in ("none", "null"):
        return None
    return value


def _nested(values: Mapping[tuple[str, ...], object]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for (*groups, name), value in values.items():
        inside = nested
        for group in groups:
            inside = inside.setdefault(group, {})
        inside[name] = value
    return nested


def _problem(details: ErrorDetails, by_path: Mapping[tuple[str, ...], _Key], spelled: Mapping[str, str]) -> Problem:
    """Return pydantic's error in the words of a cell."""
    context = details.get("ctx", {})
    place = tuple(map(str, details["loc"]))
    key = by_path.get(place[:2]) or by_path.get(place[:1])
    if key is None:  # raised by a validator of the whole declaration
        assert details["type"] == _PROBLEM, f"an error of no key: {details}"
        return Problem(spelled.get(context["key"], context["key"]), context["what"], context["do"])
    written = spelled.get(key.name, key.name)
    if details["type"] == "missing":
        return Problem(key.name, f"{key.name} is missing", f'add {key.name}="…": {key.field.description}')
    given = f"{written}={_quoted(details['input'])}"
    if details["type"] == _PROBLEM:
        return Problem(written, f"{given} {context['what']}", context["do"])
    if details["type"] == "string_too_short":
        return Problem(written, f"{written} is empty", f"give its value: {key.field.description}")
    if bound := _BOUNDS.get(details["type"]):
        return Problem(written, f"{given} is out of range", f"give a value {bound.format(**context)}{_of_unit(key)}")
    return Problem(written, f"{given} is not {'allowed' if key.choices else key.form}", key.advice)


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else _shown(value)
    line = " ".join(text.split())
    return f'"{line}"' if len(line) <= 40 else f'"{line[:40]}…"'


def _shown(value: object) -> str:
    """Return a value as it is written in a cell."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return _shown(field.get_default(call_default_factory=True, validated_data={}))


def _unit(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def _of_unit(key: _Key) -> str:
    unit = _unit(key.field)
    return f" ({unit})" if unit else ""
