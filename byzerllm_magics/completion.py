"""What may be written next in a cell or a line of ours: statements, keys, values, names."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .language.forms import FORMS
from .magics import SUBCOMMANDS
from .query_completion import tables_made, words_of_query

if TYPE_CHECKING:
    from .session import Session

CELLS = ("setup", "run", "estimate")
_OF_JOBS = ("attach", "wait", "stop", "logs", "estimate")
_PATHS = (
    *("localModelDir", "localDataDir", "localPathPrefix", "tokenizer_path", "resume_from_checkpoint"),
    *("adapterNameOrPath", "modelNameOrPath", "checkpointDir", "savePath", "targetModelDir"),
)
_TABLES = ("inputTable", "evalTable")

_CELL = re.compile(r"\s*%%byzerllm\b[ \t]*(?P<name>\w*)(?P<rest>[^\n]*)(?P<body>\n[\s\S]*)?$")
_LINE = re.compile(r"(?:^|\n)[ \t]*%byzerllm[ \t]+(?:(?P<name>\w+)[ \t]+)?(?P<word>\S*)$")
_MODEL = re.compile(r"(?:^|\n)[ \t]*%%?llm_chat\b[^\n]*?(?:-m|--model)[ \t=]+(?P<word>\S*)$")
_REFERENCE = re.compile(r"\$\{\s*(?P<word>\w*)$")
_VALUE = re.compile(r"""`?(?P<key>[\w.]+)`?[ \t]*=[ \t]*(?:'''|\"""|"|')?(?P<word>[^"'\s]*)$""")
_LOADED = re.compile(r"\bload\s+(?P<format>\w*)(?P<path>\.\s*`(?P<word>[^`\n]*))?$", re.IGNORECASE)
_SOURCE = re.compile(r"\s*run\s+(?P<word>\w*)", re.IGNORECASE)
_RUN_AS = re.compile(r"\s*run\s+(?P<source>\w+)\s+as\s+(?P<word>\w*)", re.IGNORECASE)
_MODEL_NAME = re.compile(r"\s*(?:!\s*byzerllm\s+)?model\s+(?:remove|exists)\s+\"?(?P<word>\S*)", re.IGNORECASE)
_OPTIONS = re.compile(
    r"\s*(?:load\s+(?P<format>\w+)\.\s*`[^`]*`|run\s+\w+\s+as\s+TableRepartition\.\s*``)"
    r"\s+where\s(?:[\s\S]*[\s`])?`?(?P<word>\w*)$",
    re.IGNORECASE,
)
_WORD = re.compile(r"[\w.]*$")
_BEGINNING = re.compile(r"\s*(?P<word>!?[\w ]*)$")
_SETUP = re.compile(r"!\s*byzerllm\s+setup\s", re.IGNORECASE)
_STRING = re.compile(r"""'''[\s\S]*?'''|\"""[\s\S]*?\"""|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|--[^\n]*""")


@dataclass(frozen=True)
class Offer:
    """What may stand in place of the fragment before the cursor.

    Attributes:
        fragment: The end of the text that is being completed; it may be empty.
        words: What may stand there.
        kind: Of what kind they are, as an editor shows it.
    """

    fragment: str
    words: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class _Cell:
    """What a cell says besides the statement before the cursor.

    Attributes:
        name: What the cell is for; empty for a script.
        after: The rest of the statement.
        tables: Names of tables, also of those that the cell makes before.
    """

    name: str
    after: str
    tables: tuple[str, ...]


def complete(session: Session, before: str, after: str = "") -> Offer | None:
    """Return what may follow a cell's text; None where it is not a cell or a line of ours.

    Args:
        session: Knows tables, models and jobs.
        before: The cell's text up to the cursor, its first line included.
        after: The cell's text behind the cursor.
    """
    if match := _MODEL.search(before):
        return _offer(match["word"], _models(session), "model")
    if match := _LINE.search(before):
        return _of_line(session, match["name"], match["word"])
    match = _CELL.match(before)
    if match is None:
        return None
    if match["body"] is None:
        return _of_first_line(match["name"], match["rest"])
    return _of_body(session, match["name"], match["body"], after)


def _of_first_line(name: str, rest: str) -> Offer | None:
    """Offer what a cell is for, then its options."""
    if not rest:
        return _offer(name, CELLS, "command")
    word = rest.rpartition(" ")[2]
    if name not in SUBCOMMANDS or not word.startswith("-"):
        return None
    usage = importlib.import_module(f"{__package__}.magics.{name}").parser().format_help()
    return _offer(word, re.findall(r"(?<=[ ,])--?\w+", usage), "option")


def _of_line(session: Session, name: str | None, word: str) -> Offer | None:
    from .parameters.help import GROUPS

    names: dict[str, Callable[[], Iterable[str]]] = {
        **dict.fromkeys(_OF_JOBS, lambda: [job.name for job in session.jobs()]),
        "undeploy": lambda: _models(session),
        "params": lambda: GROUPS,
    }
    if name is None:
        return _offer(word, SUBCOMMANDS, "command")
    return _offer(word, names[name](), "name") if name in names else None


def _of_body(session: Session, name: str, body: str, after: str) -> Offer | None:
    if match := _REFERENCE.search(body):
        defined = re.findall(r"\bset\s+(\w+)\s*=", body)
        return _offer(match["word"], {**session.texts(), **dict.fromkeys(defined)}, "variable")
    begin = _beginning_of_statement(body)
    statement = body[begin:]
    tables = (*tables_made(body[:begin]), *session.table_names())
    cell = _Cell(name, after.partition(";")[0], tables)
    for offers in (_of_names, _of_beginning, _of_query, _of_load, _of_options, _of_value):
        if offer := offers(session, cell, statement):
            return offer
    match = _WORD.search(statement)
    assert match is not None, "it matches the empty word"
    setup = name == "setup" or _first(statement) == "!byzerllm"
    return _offer(match[0], _keys(statement, match[0], setup=setup), "key")


def _first(statement: str) -> str:
    """Return a statement's first word, in lower case; empty before there is one."""
    return statement.split(maxsplit=1)[0].lower() if statement.split() else ""


def _of_names(session: Session, cell: _Cell, statement: str) -> Offer | None:
    """Offer names where a statement takes one: the source of a `run`, what it is run as, a model."""
    if match := _SOURCE.fullmatch(statement):
        return _offer(match["word"], ["command", *cell.tables], "table")
    if match := _RUN_AS.fullmatch(statement):
        kinds = ["LLM.`` where"] if match["source"].lower() == "command" else ["TableRepartition.`` where"]
        return _offer(match["word"], kinds, "statement")
    if match := _MODEL_NAME.fullmatch(statement):
        return _offer(match["word"], _models(session), "model")
    return None


def _of_beginning(_session: Session, cell: _Cell, statement: str) -> Offer | None:
    """Offer what a statement of a script may begin with."""
    match = _BEGINNING.fullmatch(statement) if cell.name == "" else None
    if match is None or _is_within(_first(statement), match["word"]):
        return None
    return _offer(match["word"], [form.begins for form in FORMS], "statement")


def _of_options(_session: Session, _cell: _Cell, statement: str) -> Offer | None:
    """Offer options of a `load`'s format, or of a repartition."""
    match = _OPTIONS.match(statement)
    if match is None:
        return None
    from .parameters.repartition import RepartitionParameters
    from .tables.load import FORMATS
    from .tables.load_options import spellings

    if match["format"] is None:
        return _offer(match["word"], spellings(RepartitionParameters), "option")
    known = FORMATS.get(match["format"].lower())
    return _offer(match["word"], spellings(known.options), "option") if known else None


def _is_within(first: str, word: str) -> bool:
    """Whether a statement's first words are complete, so that what follows is no beginning any more."""
    return (first in ("select", "with", "load") and " " in word.lstrip()) or bool(_SETUP.match(word))


def _of_query(session: Session, cell: _Cell, statement: str) -> Offer | None:
    """Offer what may stand in a query: tables behind `from` and `join`, else columns, models, functions and tables."""
    if _first(statement) not in ("select", "with"):
        return None
    from .tables.llm_functions import FUNCTIONS

    match = _WORD.search(statement)
    assert match is not None, "it matches the empty word"
    functions = (*_models(session), *FUNCTIONS)
    words = words_of_query(
        session, statement[: match.start()], match[0], cell.after, tables=cell.tables, functions=functions
    )
    return _offer(match[0], words, "function")


def _of_load(_session: Session, _cell: _Cell, statement: str) -> Offer | None:
    """Offer formats and paths of a `load`."""
    match = _LOADED.search(statement)
    if match is None:
        return None
    from .tables.load import FORMATS

    if match["path"] is None:
        return _offer(match["format"], FORMATS, "format")
    return _offer(match["word"], _files(match["word"]), "path")


def _of_value(session: Session, cell: _Cell, statement: str) -> Offer | None:
    """Offer values of the key before the cursor."""
    match = _VALUE.search(statement)
    return None if match is None else _values_of(session, cell, match["key"], match["word"])


def _values_of(session: Session, cell: _Cell, key: str, word: str) -> Offer:
    name = key.rsplit(".", maxsplit=1)[-1]
    if name in _PATHS:
        made = [job.model for job in session.jobs() if job.state == "finished"] if name == "localModelDir" else []
        return _offer(word, [*_files(word), *(os.path.relpath(model) for model in made)], "path")
    if name in _TABLES:
        return _offer(word, cell.tables, "table")
    if name == "udfName":
        return _offer(word, _models(session), "model")
    if name == "pretrainedModelType":
        from byzerllm_adapters.registry import FAMILIES, METHODS

        heads = ("", *(f"{method}/" for method in METHODS))
        return _offer(word, [f"{head}{family}" for head in heads for family in FAMILIES], "type")
    from .parameters import GROUPS, keys_of

    known = [each for group in GROUPS for each in keys_of(group)]
    values = [value for each in known if key in (each.name, each.typed) for value in each.values]
    return _offer(word, values, "value")


def _keys(statement: str, word: str, *, setup: bool) -> list[str]:
    """Return the keys that may stand in a statement and do not yet; with their types where one was begun."""
    from byzerllm_adapters.registry import METHODS

    from .parameters import ACTIONS, keys_of
    from .parameters.setup import MODES

    if setup:
        return [*MODES, *(key.name for key in keys_of("setup"))]
    squeezed = re.sub(r"\s", "", statement)
    actions = "|".join(ACTIONS.keys() - {"finetune"})
    action = re.search(rf"action=[\"']?({actions})\b", squeezed)
    if action:
        groups: tuple[str, ...] = (action[1],)
    else:
        method = re.search(rf"pretrainedModelType=[\"']?({'|'.join(METHODS)})/", squeezed)
        groups = ("train", method[1]) if method else ("infer", "train", *METHODS)
    keys = [key for group in groups for key in keys_of(group)]
    names = [key.name for key in keys]
    if typed := re.match(r"\w+\.(int|float|bool|str|list|dict)\b\.?", word):
        names = [key.typed for key in keys]
        if typed[1] == "int":  # a float that counts something may be written as one
            names += [key.typed.replace(".float.", ".int.") for key in keys if key.unit]
    given = set(re.findall(r"([\w.]+)`?\s*=", statement))
    # of an open group only its beginning can be offered
    return [name.removesuffix("NAME") for name in dict.fromkeys(names) if name not in given]


def _beginning_of_statement(body: str) -> int:
    """Return where the statement that the text ends in begins: behind the last `;` outside strings and comments."""
    plain = _STRING.sub(lambda match: " " * len(match[0]), body)
    return plain.rfind(";") + 1


def _models(session: Session) -> list[str]:
    """Return one's own models; connecting would hold up who types."""
    from .cluster.connection import is_connected

    return session.own_models() if is_connected() else []


def _files(word: str) -> list[str]:
    """Return the paths that begin so; a folder ends with a slash."""
    folder, name = os.path.split(word)
    try:
        entries = list(os.scandir(os.path.expanduser(folder) or "."))
    except OSError:
        return []
    hidden = name.startswith(".")
    return sorted(
        os.path.join(folder, entry.name) + "/" * entry.is_dir()
        for entry in entries
        if entry.name.startswith(".") == hidden
    )


def _offer(fragment: str, words: Iterable[str], kind: str) -> Offer:
    lower = fragment.lower()
    return Offer(fragment, tuple(dict.fromkeys(word for word in words if word.lower().startswith(lower))), kind)
