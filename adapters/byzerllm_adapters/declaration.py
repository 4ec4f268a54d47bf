"""What a declaration of keys is made of: the base class, and the types that have a form of their own in a cell."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from .secret_values import MASK, is_secret

PROBLEM = "byzerllm_problem"
"""The type of the errors that `problem` makes."""


class Parameters(BaseModel):
    """What a declaration of keys derives from: values never change, an unknown key is an error.

    A field's `json_schema_extra` may hold `unit`, `note` (a text, or a text for each value that needs one; see
    `keys.notes`) and `default` (the words for a default that differs from machine to machine).
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False, loc_by_alias=False
    )

    refused: ClassVar[Mapping[str, str]] = {}
    """Keys that users know from elsewhere and that do not exist here: what to do instead."""

    def notes_of_several(self) -> list[str]:
        """Return what there is to know about given keys that only several of them together tell."""
        return []

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, MASK if name and value is not None and is_secret(name) else value

    __str__ = BaseModel.__repr__


def problem(what: str, do: str, key: str = "") -> PydanticCustomError:
    """Return the error that a declaration's validator raises; a model's validator names a declared `key`."""
    return PydanticCustomError(PROBLEM, "{what}", {"what": what, "do": do, "key": key})


def as_text(value: object) -> str:
    """Return a value as an adapter gets it: booleans are `true` and `false`, lists and dicts JSON."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def load_json(value: object) -> object:
    """Return what a JSON text says; anything but a text stays as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        if value.strip().endswith(".json"):
            raise problem("is a file's name, and files are not read", "write what the file says") from None
        place = f"line {error.lineno}, column {error.colno}"
        raise problem(f"is not JSON: {error.msg} at {place} of the value", "correct the JSON text") from None


Text = Annotated[str, StringConstraints(min_length=1)]
AnyText = Annotated[str, BeforeValidator(as_text)]
JsonObject = Annotated[dict[str, Any], BeforeValidator(load_json)]
JsonList = Annotated[list[Any], BeforeValidator(load_json)]


class OpenParameters(Parameters):
    """A group that takes any key besides those declared; a subclass says here of which type."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any] = Field(init=False)
