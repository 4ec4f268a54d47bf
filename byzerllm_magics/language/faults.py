"""What is wrong with a token, said in the words of a cell: (what, what to do)."""

from __future__ import annotations

import difflib
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

_LATER = ("load", "select", "TableRepartition")
_BEGINNINGS = {"_RUN": "run", "_SET": "set", "_SETUP": "!byzerllm setup", "MODEL_VERB": "model"}
_SHOWN = {
    "_AS": "`as`",
    "_WHERE": "`where`",
    "_EQ": "`=`",
    "FORMAT": "LLM.``",
    "KEY": 'key="value"',
}


def of_token(token: Token) -> Fault | None:
    """Return what is wrong with a token wherever it stands: full-width punctuation, a quote never closed."""
    if token.type == "UNCLOSED":
        return _unclosed(token)
    wide = next((end for end in (token[0], token[-1]) if end in FULL_WIDTH), None)
    if wide is None or (token.type == "QUOTED" and token[0] not in FULL_WIDTH):
        return None
    return (
        f"{wide} is full-width punctuation",
        f"type {FULL_WIDTH[wide]} instead (full-width characters may stand inside quotes only)",
    )


def not_a_statement(piece: list[Token]) -> Fault | None:
    """Return what is wrong with a piece of a script that begins no statement of this version."""
    first = piece[0]
    if first.type == "_RUN":
        tables = [token.split(".")[0].strip() for token in piece if token.type == "FORMAT"]
        name = tables[0] if tables and tables[0].lower() != "llm" else "LLM"
        known = name == "LLM"
    else:
        name = str(first)
        known = first.type in _BEGINNINGS
    if known:
        return None
    later = next((word for word in _LATER if word.lower() == name.lower()), None)
    if later:
        return f"`{later}` is a statement of the language that is not spoken here yet", _instead(later)
    if first.type == "BANG":
        known_ones = "!byzerllm setup …, !byzerllm model remove NAME and !byzerllm model exists NAME"
        return f"`{_short(' '.join(piece[:2]))}` is not a command", f"known are {known_ones}"
    if first.type == "_RUN":
        return f"`run … as {name}` is not known here", "write: run command as LLM.`` where …"
    near = difflib.get_close_matches(name.lower(), ["run", "set", "load", "select"], n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    do = f"{hint}a statement begins with run, set, !byzerllm setup or !byzerllm model"
    return of_token(first) or (f"`{_short(name)}` begins no statement", do)


def unexpected(piece: list[Token], index: int, expected: set[str], start: str) -> Fault:
    """Return why the token at `index` cannot stand there."""
    token = piece[index]
    in_clause = "KEY" in expected
    word = _BEGINNINGS.get(token.type)
    if word and in_clause and start != "statement":
        return (
            f"`{word}` is a statement of its own",
            "write it in a cell of its own, or all below %%byzerllm",
        )
    if word and in_clause:
        return f"`{word}` begins a new statement", "put ; before it"
    if not in_clause:
        do = _statement_form(expected)
        return f"`{_short(token)}` stands where {_list(expected)} is expected", do
    return _after_value(piece, index) or _without_partner(piece, index)


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


def ended_early(expected: set[str]) -> Fault:
    """Return that a statement ends before it is complete."""
    return f"the statement ends where {_list(expected)} is expected", _statement_form(expected)


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
    quote = next((q for q in ("'''", '"""') if token.startswith(q)), token[0])
    key = FULL_WIDTH.get(quote, quote)
    if quote != key:
        return f"{quote} is full-width punctuation", f"type {key} before and after the value"
    closer = next((c for c in token[1:] if FULL_WIDTH.get(c) == quote), None)
    if closer:
        return f"the closing {quote} is missing: {closer} is full-width punctuation", f"type {quote} instead"
    if len(quote) == 3:
        return f"the closing {quote} is missing", f"type {quote} after the value"
    return f"the closing {quote} is missing", f"type {quote} after the value (only '''…''' may span lines)"


def _instead(later: str) -> str:
    return {
        "load": "read the files with pandas: a DataFrame variable is a table",
        "select": "build the table with pandas: a DataFrame variable is a table",
        "TableRepartition": "leave it out: a training job splits its own data",
    }[later]


def _statement_form(expected: set[str]) -> str:
    if expected & {"_AS", "_WHERE", "FORMAT"}:
        return 'the whole form is: run command as LLM.`` where key="value" and …;'
    if "KEY" in expected:
        return "write e.g. set name = '''text''';"
    return "write e.g. !byzerllm model remove NAME;"


def _list(expected: set[str]) -> str:
    if "WORD" in expected:  # where a name may stand, so may keywords and a quoted one
        return "a name"
    names = [shown for name, shown in _SHOWN.items() if name in expected]
    return " or ".join(names) if names else "the end of the statement"


def _short(text: str) -> str:
    line = text.split("\n", maxsplit=1)[0]
    return line if len(line) <= 30 and line == text else f"{line[:30]}…"
