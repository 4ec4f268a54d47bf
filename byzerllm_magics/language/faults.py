"""What is wrong with a token, said in the words of a cell: (what, what to do)."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lark import Token

Fault = tuple[str, str]

FULL_WIDTH = dict(zip("，、；（）“”＂‘’＇＝：！。", ",,;()\"\"\"'''=:!.", strict=True))
"""Punctuation of an East Asian input method, and the key that was meant."""

ONE_STATEMENT: Fault = (
    "`%%byzerllm run` holds one statement, and here a second one begins",
    "put it in a cell of its own, or write all of them below a bare %%byzerllm",
)
NO_PARAMETERS: Fault = (
    "the cell holds no parameter",
    'write e.g. action="infer" and pretrainedModelType="llama" and localModelDir="…" and udfName="chat"',
)

KEYS_ALONE = "keys alone stand below %%byzerllm run; here write run command as LLM.`` where before them"

NO_NAME: Fault = ("a name is missing after `as`", "write as NAME, the table that holds the result")

_BEGINNINGS = {
    "_RUN": "run",
    "_SET": "set",
    "_LOAD": "load",
    "_SETUP": "!byzerllm setup",
    "MODEL_VERB": "model",
    "SQL": "select",
}
_FORMS = {
    "_RUN": 'run command as LLM.`` where key="value" and …;',
    "REPARTITION": 'run t as TableRepartition.`` where partitionNum="2" as NAME;',
    "_LOAD": 'load text.`file:///dir/*` where wholetext="true" as NAME;',
    "_SET": "set name = '''text''';",
    "MODEL_VERB": "!byzerllm model remove NAME;",
}
_SHOWN = {
    "_WHERE": "`where`",
    "_AS": "`as`",
    "_EQ": "`=`",
    "FORMAT": "text.`path`",
    "_LLM": "LLM.``",
    "_REPARTITION": "TableRepartition.``",
    "KEY": 'key="value"',
}
_RUNNABLE = {"llm": "LLM", "tablerepartition": "TableRepartition"}
_WORDS = ["run", "set", "load", "select", "with"]
_NAME = re.compile(r"[^\W\d]\w*|`[^`]*[^`\s][^`]*`")


def of_token(token: Token) -> Fault | None:
    """Return what is wrong with a token wherever it stands: full-width punctuation, a quote never closed."""
    if token.type == "UNCLOSED":
        return _unclosed(token)
    if token.isascii():
        return None
    wide = next((end for end in (token[0], token[-1]) if end in FULL_WIDTH), None)
    if wide is None or (token.type == "QUOTED" and token[0] not in FULL_WIDTH):
        return None
    return (
        f"{wide} is full-width punctuation",
        f"type {FULL_WIDTH[wide]} instead (full-width characters may stand inside quotes only)",
    )


def not_a_statement(piece: list[Token]) -> Fault | None:
    """Return what is wrong with a piece of a script that begins no statement."""
    first = piece[0]
    if first.type in _BEGINNINGS:
        return None
    if first.type == "BANG":
        known_ones = "!byzerllm setup …, !byzerllm model remove NAME and !byzerllm model exists NAME"
        return f"`{_short(' '.join(piece[:2]))}` is not a command", f"known are {known_ones}"
    if first.type == "KEY":
        return f"`{_short(first)}` is a key, and begins no statement", KEYS_ALONE
    near = difflib.get_close_matches(first.lower(), _WORDS, n=1)
    hint = f"did you mean {near[0]}? " if near and near[0] != first.lower() else ""
    do = f"{hint}a statement begins with load, select, run, set, !byzerllm setup or !byzerllm model"
    return of_token(first) or (f"`{_short(first)}` begins no statement", do)


def begins_another(piece: list[Token], index: int, expected: set[str], first: bool) -> bool:
    """Return whether a token that does not fit begins another statement, and is no stray word of this one.

    It does at the beginning of a line, or where this statement could end, if it is the first one that does not fit.
    """
    if piece[index].type not in _BEGINNINGS:
        return False
    begins_line = index == 0 or piece[index].line != piece[index - 1].end_line
    return begins_line or (first and not expected.isdisjoint(("KEY", "$END")))


def another(piece: list[Token], index: int, expected: set[str], start: str) -> Fault:
    """Return why the statement that begins at `index` cannot stand there."""
    token = piece[index]
    word = str(token).lower() if token.type == "SQL" else _BEGINNINGS[token.type]
    if start != "statement":
        return own_statement(word)
    return not_separated(word) if "$END" in expected else _misplaced(word, piece, expected)


def own_statement(word: str) -> Fault:
    """Return that a statement cannot stand in a cell of parameters."""
    return f"`{word}` is a statement of its own", "write it below a bare %%byzerllm, which takes all statements"


def not_separated(word: str) -> Fault:
    """Return that a `;` is missing between two statements."""
    return f"`{_short(word)}` begins a new statement", "put ; before it"


def unexpected(piece: list[Token], index: int, expected: set[str]) -> Fault:
    """Return why the token at `index` cannot stand there."""
    token = piece[index]
    if "_LLM" in expected:
        return _not_runnable(str(token))
    if "KEY" not in expected:
        return _misplaced(token, piece, expected)
    if token.type == "_AS":
        return "`as` names a table, and this statement has none", 'leave it out (outputTable="…" names a result)'
    return _after_value(piece, index) or _without_partner(piece, index)


def _misplaced(shown: str, piece: list[Token], expected: set[str]) -> Fault:
    return f"`{_short(shown)}` stands where {_list(expected)} is expected", _form(piece)


def _not_runnable(written: str) -> Fault:
    """Return why what follows `run … as` cannot be run: it is unknown, or not written as a known one."""
    name, dot, _ = written.partition(".")
    near = difflib.get_close_matches(name.strip().lower(), _RUNNABLE, n=1)
    meant = f"{_RUNNABLE[near[0]]}.``" if near else " or ".join(f"{known}.``" for known in _RUNNABLE.values())
    if dot and name.strip().lower() not in _RUNNABLE:
        hint = f"did you mean {meant}? " if near else ""
        return f"`run … as {_short(name.strip())}` is not known here", f"{hint}known are LLM and TableRepartition"
    return (
        f"`{_short(written)}` stands where {meant} is expected",
        f"write {meant}, with nothing between the backquotes",
    )


def _after_value(piece: list[Token], index: int) -> Fault | None:
    """Return what is wrong with a token that follows a value closely, as its rest would."""
    token, previous = piece[index], piece[index - 1]
    if previous.type == "QUOTED" and previous.end_pos == token.start_pos:
        return (
            f"`{_short(token)}` follows a closing quote directly",
            'is a quote missing earlier on this line? A quote inside a value is written \\"',
        )
    bare = index > 1 and previous.type == "WORD" and piece[index - 2].type == "_EQ"
    if bare and previous.line == token.line:
        do = f'quote a value with spaces: "{_short(previous)} {_short(token)}"'
        return f"`{_short(token)}` follows a value without quotes", do
    return None


def _without_partner(piece: list[Token], index: int) -> Fault:
    """Return what is wrong with a key, a value or an `=` that stands alone."""
    token = piece[index]
    shown = _short(token)
    following = piece[index + 1] if index + 1 < len(piece) else None
    if token.type == "_EQ":
        return "`=` has no key before it", 'write key="value"'
    if token.type != "WORD":
        return f"{shown} has no key", f"write key={shown}"
    if following and following.line == token.line and following.type in ("QUOTED", "UNCLOSED", "WORD"):
        return missing_equals(shown, following)
    return f"{shown} has no value", f'write {shown}="…"'


def ended_early(piece: list[Token], expected: set[str]) -> Fault:
    """Return that a statement ends before it is complete."""
    return f"the statement ends where {_list(expected)} is expected", _form(piece)


def not_a_name(written: str) -> Fault | None:
    """Return why this cannot name a table."""
    if _NAME.fullmatch(written):
        return None
    bare = written.strip("\"'" + "".join(FULL_WIDTH))
    if bare != written and _NAME.fullmatch(bare):
        return f"the name of a table takes no quotes: {_short(written)}", f"write {_short(bare)}"
    return f"`{_short(written)}` is not a name", "a table's name is one word; any other stands in backquotes"


def not_a_variable(written: str) -> Fault:
    """Return that `${…}` could not name this variable."""
    return f"`{_short(written)}` is not a name for a variable", "use letters, digits and _, a letter first"


def no_path(name: str) -> Fault:
    """Return that nothing stands between the backquotes of a `load`."""
    return f"{name}.`` has no path", f"write e.g. {name}.`file:///dir/*`"


def no_query(word: str) -> Fault:
    """Return that nothing follows `select`."""
    return f"`{word}` has no query", "write e.g. select value as text from t as NAME;"


def unclosed(quote: str, closer: str | None, hint: str) -> Fault:
    """Return that a quote or a comment is never closed; `closer` is a full-width one in its place."""
    if closer:
        return f"the closing {quote} is missing: {closer} is full-width punctuation", f"type {quote} instead"
    if quote == "/*":
        return "the closing */ of a comment is missing", "type */ where it ends"
    key = FULL_WIDTH.get(quote, quote)
    if key != quote:
        return f"{quote} is full-width punctuation", f"type {key} before and after the text"
    return f"the closing {quote} is missing", f"type {quote} after the text{hint}"


def missing_equals(word: str, value: str) -> Fault:
    """Return that `num_gpus 2` lacks its `=`."""
    return f"`=` is missing after {word}", f"write {word}={value if len(value) < 40 else '…'}"


def misplaced_mode(word: str, mode: str | None, after_settings: bool) -> Fault | None:
    """Return why a mode cannot stand here: there is one already, or settings that it would reset."""
    if mode is not None:
        return (
            f"{word} is a second mode, after {mode}",
            f"keep one of them, or write {word}=… if it is a setting",
        )
    if after_settings:
        do = f"write it before the settings, or {word}=… if it is a setting"
        return f"{word} has no value; as a mode it would reset the settings above", do
    return None


def no_value(key: str) -> Fault:
    """Return that nothing stands after `key=`."""
    return f"{key} has no value", f'write {key}="…" (a value with spaces, commas or = takes quotes)'


def no_setting(inside: str) -> Fault:
    """Return that a quoted setting is not of the form key=value."""
    return (
        f'"{_short(inside)}" is not a setting',
        'write e.g. "num_gpus=2" (a mode such as single takes no quotes)',
    )


def duplicate(key: str, first: int, second: int) -> Fault:
    """Return that a key stands twice, with both lines."""
    lines = f"on line {first} and on line {second}" if first != second else f"on line {first}"
    return f"{key} is given twice, {lines}", "keep one of them"


def _unclosed(token: Token) -> Fault:
    """Return that a value or a comment is never closed."""
    quote = next((quote for quote in ("'''", '"""', "/*") if token.startswith(quote)), token[0])
    if quote.isalnum() or quote == "_":  # a format, before the path that is never closed
        return "the closing ` is missing", "type ` after the path, on the same line"
    closer = next((mark for mark in token[1:] if FULL_WIDTH.get(mark) == quote), None)
    return unclosed(quote, closer, "" if len(quote) == 3 else " (only '''…''' may span lines)")


def _form(piece: list[Token]) -> str:
    """Return the whole form of the statement that a piece begins."""
    kinds = [token.type for token in piece[:4]]
    kind = "REPARTITION" if "_REPARTITION" in kinds else kinds[0]
    return f"the whole form is: {_FORMS.get(kind, '!byzerllm setup single;')}"


def _list(expected: set[str]) -> str:
    if "WORD" in expected:  # where a name may stand, so may keywords and a quoted one
        return "a name"
    if {"KEY", "_AS"} <= expected:
        return "`as NAME`"
    names = [shown for name, shown in _SHOWN.items() if name in expected]
    return " or ".join(names) if names else "the end of the statement"


def _short(text: str) -> str:
    line = text.split("\n", maxsplit=1)[0]
    return line if len(line) <= 30 and line == text else f"{line[:30]}…"
