"""The keys of a declaration: how each is spelled, of what type it is, and what there is to say of it."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from .declaration import OpenParameters, Parameters

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


@dataclass(frozen=True)
class Key:
    """What help and completion say of a key.

    Attributes:
        name: As it is written, e.g. `sft.lora_rank`; `backend.NAME` stands for any name.
        typed: The same with its type, e.g. `sft.int.lora_rank`; a key without a group has none, and it is `name`.
        type: A name of `TYPES`.
        default: As in a cell; `required` where there is none.
        unit: What the value counts, or nothing.
        doc: One line.
        values: What may be written, where that is a known few.
        note: What is printed when the key is given, or nothing.

    """

    name: str
    typed: str
    type: str
    default: str
    unit: str
    doc: str
    values: tuple[str, ...]
    note: str


@dataclass(frozen=True, eq=False)
class DeclaredKey:
    """A key of a declaration: the field names that lead to it, and its spellings (messages use the first)."""

    path: tuple[str, ...]
    spellings: tuple[str, ...]
    field: FieldInfo

    @property
    def name(self) -> str:
        """The spelling that messages use."""
        return self.spellings[0]

    @cached_property
    def annotation(self) -> Any:
        """The type without `| None`."""
        options = [option for option in _options(self.field.annotation) if option is not type(None)]
        return options[0] if len(options) == 1 else self.field.annotation

    @cached_property
    def choices(self) -> tuple[Any, ...]:
        """The few values that may stand for it; none: any of its type."""
        return get_args(self.annotation) if get_origin(self.annotation) is Literal else ()

    @cached_property
    def type(self) -> str:
        """The name of the type among TYPES."""
        kind = type(self.choices[0]) if self.choices else get_origin(self.annotation) or self.annotation
        return next(name for name, known in TYPES.items() if known is kind)

    @cached_property
    def optional(self) -> bool:
        """Whether None may stand for it."""
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

    @property
    def unit(self) -> str:
        """What the value counts, or nothing."""
        return str(self.extra.get("unit", ""))

    @property
    def extra(self) -> Mapping[str, Any]:
        """What the field's declaration says besides pydantic's own."""
        extra = self.field.json_schema_extra
        return extra if isinstance(extra, dict) else {}

    @property
    def default(self) -> str:
        """The default as in a cell."""
        if "default" in self.extra:
            return str(self.extra["default"])
        if self.field.is_required():
            return "required"
        return _shown(self.field.get_default(call_default_factory=True, validated_data={}))

    def value(self, parameters: Parameters) -> object:
        """Return this key's value."""
        found: Any = parameters
        for name in self.path:
            found = getattr(found, name)
        return found

    def note(self, value: object) -> str:
        """Return what a user who wrote this value has to know, or nothing."""
        note = self.extra.get("note", "")
        return str(note.get(str(value), "") if isinstance(note, dict) else note)

    def as_key(self) -> Key:
        """Return what help and completion say of it."""
        group, dot, rest = self.name.rpartition(".")
        note = self.extra.get("note", "")
        return Key(
            name=self.name,
            typed=f"{group}.{self.type}.{rest}" if dot and not rest.isupper() else self.name,
            type=self.type,
            default=self.default,
            unit=self.unit,
            doc=self.field.description or "",
            values=("true", "false") if self.type == "bool" else tuple(map(str, self.choices)),
            note="" if isinstance(note, dict) else str(note),
        )


def describe(declaration: type[Parameters]) -> list[Key]:
    """Return what there is to say of each key, in the order of the declaration, groups dotted."""
    return [key.as_key() for key in declared(declaration)]


def notes(parameters: Parameters) -> list[str]:
    """Return what there is to know about the keys that were given: no effect here, something else in its place."""
    given = (key for key in declared(type(parameters)) if _is_given(parameters, key.path))
    found = [(key, key.note(key.value(parameters))) for key in given if key.extra.get("note")]
    return [f"{key.name}: {note}" for key, note in found if note] + parameters.notes_of_several()


@cache
def declared(declaration: type[Parameters]) -> tuple[DeclaredKey, ...]:
    """Return the keys of a declaration and its groups; an open group ends with `GROUP.NAME`."""
    return tuple(_walk(declaration, ()))


@cache
def by_spelling(declaration: type[Parameters]) -> Mapping[str, DeclaredKey]:
    """Return the key that each spelling means."""
    return {spelling: key for key in declared(declaration) for spelling in key.spellings}


def _walk(declaration: type[Parameters], group: tuple[str, ...]) -> Iterator[DeclaredKey]:
    for name, field in declaration.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Parameters):
            yield from _walk(inner, (*group, name))
            if issubclass(inner, OpenParameters):
                yield any_key(inner, (*group, name), "NAME", field.description)
            continue
        alias = field.validation_alias
        aliases = alias.choices if isinstance(alias, AliasChoices) else [alias] if alias else []
        spellings = dict.fromkeys([*map(str, aliases), name])
        yield DeclaredKey((*group, name), tuple(".".join((*group, spelling)) for spelling in spellings), field)


def any_key(
    declaration: type[OpenParameters], group: tuple[str, ...], name: str, description: str | None = None
) -> DeclaredKey:
    """Return the key of an open group that has this name."""
    free = get_type_hints(declaration, include_extras=True)["__pydantic_extra__"]
    field = FieldInfo.from_annotation(get_args(free)[1])
    field.description, field.json_schema_extra = description, {"default": ""}
    return DeclaredKey((*group, name), (".".join((*group, name)),), field)


def groups(declaration: type[Parameters]) -> dict[str, type[Parameters]]:
    """Return the declarations of the groups, by the names before the dot."""
    found = {name: field.annotation for name, field in declaration.model_fields.items()}
    return {name: kind for name, kind in found.items() if isinstance(kind, type) and issubclass(kind, Parameters)}


def _is_given(parameters: Parameters, path: tuple[str, ...]) -> bool:
    *above, name = path
    for group in above:
        parameters = getattr(parameters, group)
    return name in parameters.model_fields_set


def _options(annotation: Any) -> tuple[Any, ...]:
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return tuple(get_args(option)[0] if get_origin(option) is Annotated else option for option in options)


def _shown(value: object) -> str:
    """Return a value as it is written in a cell."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value) if isinstance(value, list | dict) else str(value)
