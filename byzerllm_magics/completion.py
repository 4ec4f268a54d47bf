"""What may be written next in a cell or a line of ours: statements, keys, values, names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .language.forms import FORMS
from .magics import SUBCOMMANDS

if TYPE_CHECKING:
    from .session import Session

CELLS = ("setup", "run", "estimate")
_OF_JOBS = ("attach", "wait", "stop", "logs", "estimate")
_PATHS = ("localModelDir", "localDataDir", "localPathPrefix", "tokenizer_path", "resume_from_checkpoint")
_TABLES = ("inputTable", "evalTable")

_CELL = re.compile(r"\s*%%byzerllm\b[ \t]*(?P<name>\w*)(?P<rest>[^\n]*)(?P<body>\n[\s\S]*)?$")
_LINE = re.compile(r"(?:^|\n)[ \t]*%byzerllm[ \t]+(?:(?P<name>\w+)[ \t]+)?(?P<word>\S*)$")
_MODEL = re.compile(r"(?:^|\n)[ \t]*%%?llm_chat\b[^\n]*?(?:-m|--model)[ \t=]+(?P<word>\S*)$")
_REFERENCE = re.compile(r"\$\{\s*(?P<word>\w*)$")
_VALUE = re.compile(r"""`?(?P<key>[\w.]+)`?[ \t]*=[ \t]*(?:'''|\"""|"|')?(?P<word>[^"'\s]*)$""")
_LOADED = re.compile(r"\bload\s+(?P<format>\w*)(?P<path>\.\s*`(?P<word>[^`\n]*))?$", re.IGNORECASE)
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


def complete(session: Session, before: str) -> Offer | None:
    """Return what may follow a cell's text; None where it is not a cell or a line of ours.

    Args:
        session: Knows tables, models and jobs.
        before: The cell's text up to the cursor, its first line included.
    """
    if match := _MODEL.search(before):
        return _offer(match["word"], _models(session), "model")
    if match := _LINE.search(before):
        return _of_line(session, match["name"], match["word"])
    match = _CELL.match(before)
    if match is None:
        return None
    if match["body"] is None:
        return None if match["rest"] else _offer(match["name"], CELLS, "command")
    return _of_body(session, match["name"], match["body"])


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


def _of_body(session: Session, cell: str, body: str) -> Offer | None:
    if match := _REFERENCE.search(body):
        defined = re.findall(r"\bset\s+(\w+)\s*=", body)
        return _offer(match["word"], {**session.texts(), **dict.fromkeys(defined)}, "variable")
    statement = body[_beginning_of_statement(body) :]
    first = statement.split(maxsplit=1)[0].lower() if statement.split() else ""
    if cell == "" and (match := _BEGINNING.fullmatch(statement)) and not _is_within(first, match["word"]):
        return _offer(match["word"], [form.begins for form in FORMS], "statement")
    if first in ("select", "with"):
        return _of_query(session, statement)
    if match := _LOADED.search(statement):
        return _of_load(match)
    if match := _VALUE.search(statement):
        return _of_value(session, match["key"], match["word"])
    match = _WORD.search(statement)
    assert match is not None, "it matches the empty word"
    setup = cell == "setup" or first == "!byzerllm"
    return _offer(match[0], _keys(statement, match[0], setup=setup), "key")


def _is_within(first: str, word: str) -> bool:
    """Whether a statement's first words are complete, so that what follows is no beginning any more."""
    return (first in ("select", "with", "load") and " " in word.lstrip()) or bool(_SETUP.match(word))


def _of_query(session: Session, statement: str) -> Offer:
    from .tables.llm_functions import FUNCTIONS

    match = _WORD.search(statement)
    assert match is not None, "it matches the empty word"
    before = statement[: match.start()].rstrip().lower()
    tables = session.table_names()
    if before.endswith((" from", "\nfrom", " join", "\njoin")):
        return _offer(match[0], tables, "table")
    return _offer(match[0], [*_models(session), *FUNCTIONS, *tables], "function")


def _of_load(match: re.Match[str]) -> Offer:
    from .tables.load import FORMATS

    if match["path"] is None:
        return _offer(match["format"], FORMATS, "format")
    return _offer(match["word"], _files(match["word"]), "path")


def _of_value(session: Session, key: str, word: str) -> Offer | None:
    name = key.rsplit(".", maxsplit=1)[-1]
    if name in _PATHS:
        made = [job.model for job in session.jobs() if job.state == "finished"] if name == "localModelDir" else []
        return _offer(word, [*_files(word), *(os.path.relpath(model) for model in made)], "path")
    if name in _TABLES:
        return _offer(word, session.table_names(), "table")
    if name == "udfName":
        return _offer(word, _models(session), "model")
    if name == "pretrainedModelType":
        from byzerllm_adapters.registry import FAMILIES

        return _offer(word, [f"{method}{family}" for method in ("", "sft/", "sfft/") for family in FAMILIES], "type")
    from .parameters import keys_of

    known = [each for group in ("setup", "infer", "train", "sft", "sfft") for each in keys_of(group)]
    values = [value for each in known if key in (each.name, each.typed) for value in each.values]
    return _offer(word, values, "value") if values else None


def _keys(statement: str, word: str, *, setup: bool) -> list[str]:
    """Return the keys that may stand in a statement and do not yet; with their types where one was begun."""
    from .parameters import keys_of
    from .parameters.setup import MODES

    if setup:
        return [*MODES, *(key.name for key in keys_of("setup"))]
    squeezed = re.sub(r"\s", "", statement)
    if 'action="infer"' in squeezed or "action=infer" in squeezed:
        groups: tuple[str, ...] = ("infer",)
    else:
        method = re.search(r"pretrainedModelType=[\"']?(sft|sfft)/", squeezed)
        groups = ("train", method[1]) if method else ("infer", "train", "sft", "sfft")
    typed = word.count(".") == 2 or re.fullmatch(r"\w+\.(int|float|bool|str|list|dict)\.?", word)
    names = [key.typed if typed else key.name for group in groups for key in keys_of(group)]
    given = set(re.findall(r"([\w.]+)`?\s*=", statement))
    return [name for name in dict.fromkeys(names) if name not in given]


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
