"""What `load … where` takes, format by format. Names are Spark's, in any case."""

from __future__ import annotations

import codecs
from typing import Annotated

from pydantic import AfterValidator, AliasChoices, Field

from byzerllm_adapters.parameters import Parameters, problem


def _known_encoding(name: str) -> str:
    try:
        codecs.lookup(name)
    except LookupError:
        raise problem("is not an encoding", "write e.g. utf-8, gbk or latin-1") from None
    return name


def _one_character(text: str) -> str:
    text = {"\\t": "\t", "\\\\": "\\"}.get(text, text)
    if len(text) != 1 or not text.isascii():
        raise problem("is not one ASCII character", r'write one, e.g. ";", or "\t" for a tab')
    return text


def _known_mode(mode: str) -> str:
    if mode.lower() not in ("failfast", "dropmalformed"):
        what = "is not a mode of reading here" if mode.lower() == "permissive" else "is not a mode"
        raise problem(what, "write FAILFAST (the default: an error names the line) or DROPMALFORMED")
    return mode.lower()


def _character_or_none(text: str) -> str:
    return text and _one_character(text)


Encoding = Annotated[str, AfterValidator(_known_encoding)]
ENCODING = Field(
    "utf-8", validation_alias=AliasChoices("encoding", "charset"), description="The text's encoding, e.g. gbk."
)


class TextOptions(Parameters):
    """Columns ``value`` and ``file``."""

    whole_text: bool = Field(
        False, alias="wholetext", description="A row a file, its text whole; otherwise a row a line."
    )
    encoding: Encoding = ENCODING


class JsonOptions(Parameters):
    """A column a key; nested values stay nested."""

    multi_line: bool = Field(
        False,
        alias="multiLine",
        description="Objects may stretch over several lines; a file that is one list needs no option.",
    )
    encoding: Encoding = ENCODING


class CsvOptions(Parameters):
    """A column a field. Doubled quotes within quotes and line breaks within quotes are always understood."""

    header: bool = Field(
        False, description="The first line of each file names the columns; otherwise they are _c0, _c1, …"
    )
    sep: Annotated[str, AfterValidator(_one_character)] = Field(
        ",", validation_alias=AliasChoices("sep", "delimiter"), description="What separates fields."
    )
    quote: Annotated[str, AfterValidator(_character_or_none)] = Field(
        '"', description="What encloses a field; empty: nothing does."
    )
    escape: Annotated[str, AfterValidator(_character_or_none)] = Field(
        "\\",
        description="What takes a quote's meaning away within quotes, in files that make no sense with doubled quotes; "
        "given, in all; empty: nothing does.",
    )
    null_value: str = Field("", alias="nullValue", description="A field that stands for NULL when it is not quoted.")
    multi_line: bool = Field(
        True, alias="multiLine", description="Accepted: line breaks within quotes are understood either way."
    )
    mode: Annotated[str, AfterValidator(_known_mode)] = Field(
        "failfast",
        description="Lines with more or fewer fields: FAILFAST, an error that names one; DROPMALFORMED, left out.",
    )
    infer_schema: bool = Field(
        False, alias="inferSchema", description="Numbers, truth values and dates get such types; otherwise all is text."
    )
    encoding: Encoding = ENCODING


class ParquetOptions(Parameters):
    """Types are the file's own. Columns of several files are united."""


def spellings(declaration: type[Parameters]) -> list[str]:
    """Return all names of all options of a format."""
    names: list[str] = []
    for name, field in declaration.model_fields.items():
        alias = field.validation_alias or name
        names += map(str, alias.choices if isinstance(alias, AliasChoices) else [alias])
    return names
