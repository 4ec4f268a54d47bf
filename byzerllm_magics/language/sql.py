"""Where an SQL statement of a cell ends, which table it names, and which slips of the pen it holds.

SQL is not parsed here: telling its strings, comments, names and brackets apart is enough to find its `;`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from . import faults
from .errors import Problem
from .faults import FULL_WIDTH, Fault
from .places import Lines
from .secrets import without_secrets
from .statements import Note, Select

_BEGINNING = re.compile(r"(?:select|with)\b(?!\s*[=＝])", re.IGNORECASE)

# Possessive repetitions (*+) never give back what they took, so that no text makes the search slow.
_TOKEN = re.compile(
    r"""
    (?P<space> \s+ )
  | (?P<comment> --[^\n]* | /\*.*?\*/ )
  | (?P<word> \w+ )
  | (?P<string> '(?:[^'\\]|\\.|'')*+'  |  "(?:[^"\\]|\\.|"")*+" )
  | (?P<wide_string> [‘’＇](?:[^'‘’＇\\]|\\.)*+['‘’＇]  |  [“”＂](?:[^"“”＂\\]|\\.)*+["“”＂] )
  | (?P<name> `[^`\n]*` )
  | (?P<unclosed> /\* | ['‘’＇"“”＂`] )
  | (?P<mark> . )
    """,
    re.VERBOSE | re.DOTALL,
)

_STATEMENT = r"""(?:
    [!！]\s*byzerllm\b
  | model\s+(?:remove|exists)\b
  | set\s+[^\s=]+\s*=
  | run\s+\S+\s+as\b
  | load\s+\w+\s*\.\s*`
)"""
"""What begins another statement of the language, and no line of SQL."""

_QUERY = r"(?:select\b|with\s+\w+\s*(?:\([^()]*\)\s*)?as\s*\()"

_OTHER_STATEMENT = re.compile(_STATEMENT, re.VERBOSE | re.IGNORECASE)
_OTHER_QUERY = re.compile(_QUERY, re.IGNORECASE)
_SPECIAL_SPACES = re.compile(r"[^\x00-\x7f]+")
_WORD = re.compile(r"[!！]?\s*\w+")

_LAST_SEMICOLON = re.compile(
    rf";(?=[ \t\r]*\n(?:\s|--[^\n]*\n)*+(?:{_QUERY}|{_STATEMENT}))",
    re.VERBOSE | re.IGNORECASE,
)
"""A `;` that ends a statement even where a quote is missing: another statement begins on a line below it."""

_WIDE_END = {
    quote: re.compile(
        rf"([{''.join(wide for wide, key in FULL_WIDTH.items() if key == quote)}])\s*(?:[,;)，；）]|as\b)"
    )
    for quote in "'\""
}
"""A full-width quote in the place of the one that closes a string: prose may hold others."""

_SET_OPERATORS = {"union", "all", "distinct", "except", "intersect", "minus"}
_BRACKETS = {"(": ")", "[": "]"}

# Every full-width mark of the ASCII ones. A full-width backquote is left to the SQL parser: names need none.
_TWINS = FULL_WIDTH | {chr(wide): chr(wide - 0xFEE0) for wide in range(0xFF01, 0xFF40) if not chr(wide).isalnum()}


@dataclass(frozen=True)
class Reading:
    """What was read: the statement, or the problems because of which there is none. The text goes on at `end`."""

    select: Select | None
    problems: tuple[Problem, ...]
    end: int


def first_word(text: str, offset: int) -> str | None:
    """Return the word at this offset if SQL begins with it: `select` or `with`, unless it is a key of that name."""
    found = _BEGINNING.match(text, offset)
    return found[0] if found else None


def read_sql(lines: Lines, start: int) -> Reading:
    """Read the SQL statement that begins at `start`, including the `;` at its end."""
    return _SqlReader(lines, start).read()


class _Token(NamedTuple):
    kind: str
    text: str
    """As it is read, that is: repaired."""
    start: int
    end: int

    def is_word(self, word: str) -> bool:
        return self.kind == "word" and self.text.lower() == word


class _SqlReader:
    """Reads one SQL statement; white space and comments are no tokens."""

    def __init__(self, lines: Lines, start: int) -> None:
        self.lines, self.text, self.start = lines, lines.text, start
        self.tokens: list[_Token] = []
        self.brackets: list[_Token] = []  # those that are open
        self.queries = 0  # how often `select` stood outside brackets
        self.repairs: dict[int, str] = {}
        self.notes: list[Note] = []
        self.problems: list[Problem] = []

    def read(self) -> Reading:
        """Return the statement, or its problems."""
        end = self._read_tokens()
        for bracket in self.brackets:
            self._unclosed_bracket(bracket)
        select = None if self.problems else self._select()
        return Reading(select, tuple(self.problems), end)

    def _read_tokens(self) -> int:
        """Read up to the `;`, or to the line where another statement begins; return where the text goes on."""
        begins_line = False
        for match in _TOKEN.finditer(self.text, self.start):
            if match.lastgroup in ("space", "comment"):
                begins_line = begins_line or "\n" in match[0]
                self._repair_space(match)
                continue
            if begins_line and self._begins_another(match.start()):
                return self._not_separated(match.start())
            begins_line = False
            if match.lastgroup == "unclosed" and match[0] != "`":
                return self._unclosed(match.start())
            token = self._token(match)
            if token.text == ";":
                return token.end
            self._count(token)
            self.tokens.append(token)
        return len(self.text)

    def _token(self, match: re.Match[str]) -> _Token:
        """Return a token as it is read: marks and quotes of an East Asian input method become those of SQL."""
        kind, text = match.lastgroup or "", match[0]
        start, end = match.span()
        if kind == "mark" and (twin := _TWINS.get(text)):
            self._repair(start, end, twin, f"{text} is read as {twin}")
            text = twin
        elif kind == "wide_string":
            quote = FULL_WIDTH[text[0]]
            text = quote + text[1:-1] + quote
            self._repair(start, end, text, f"the quotes {match[0][0]} and {match[0][-1]} are read as {quote}")
        elif kind == "unclosed":
            self._problem(start, end, ("the closing ` is missing", "type ` after the name, on the same line"))
        return _Token(kind, text, start, end)

    def _count(self, token: _Token) -> None:
        """Keep account of brackets, and of what stands outside all of them."""
        if token.kind == "mark" and token.text in _BRACKETS:
            self.brackets.append(token)
        elif token.kind == "mark" and token.text in _BRACKETS.values():
            self._close_bracket(token)
        elif token.is_word("select") and not self.brackets:
            self.queries += 1

    def _close_bracket(self, token: _Token) -> None:
        """Close the bracket that this one belongs to; a comma before it is a slip of the pen."""
        last = self.tokens[-1]
        if last.text == "," and last.kind == "mark":
            self._repair(last.start, last.end, " ", f"the comma before {token.text} is left out")
        if all(_BRACKETS[bracket.text] != token.text for bracket in self.brackets):
            opening = next(opening for opening, closing in _BRACKETS.items() if closing == token.text)
            fault = f"`{token.text}` closes no bracket", f"is a `{opening}` missing before it?"
            self._problem(token.start, token.end, fault)
            return
        while _BRACKETS[(bracket := self.brackets.pop()).text] != token.text:
            self._unclosed_bracket(bracket)

    def _begins_another(self, offset: int) -> bool:
        """Return whether the line that begins here is another statement, so that a `;` is missing before it."""
        if _OTHER_STATEMENT.match(self.text, offset):
            return True
        if self.brackets or not self.queries or not _OTHER_QUERY.match(self.text, offset):
            return False
        return self.tokens[-1].text.lower() not in _SET_OPERATORS

    def _not_separated(self, offset: int) -> int:
        word = _WORD.match(self.text, offset)
        assert word is not None, "a statement begins with a word"
        self._problem(*word.span(), faults.not_separated(word[0]))
        return offset

    def _unclosed(self, offset: int) -> int:
        """Report a quote or a comment that nothing closes; return where the text goes on.

        Strings span lines, so a forgotten quote is noticed late: at the last quote of the cell. The first string that
        runs over the end of a statement, or over a full-width quote, is the one that should have ended before.
        """
        strings = [(token.start, token.end) for token in self.tokens if token.kind in ("string", "wide_string")]
        for start, end in [*strings, (offset, len(self.text))]:
            semicolon = _LAST_SEMICOLON.search(self.text, start, end)
            stop = semicolon.end() if semicolon else end
            quote = "/*" if self.text[start] == "/" else self.text[start]
            wide_end = quote in _WIDE_END and _WIDE_END[quote].search(self.text, start + 1, stop)
            if semicolon or wide_end or start == offset:
                break
        fault = faults.unclosed(quote, wide_end[1] if wide_end else None, f" (inside it, write \\{quote})")
        self._problem(start, start + len(quote), fault)
        self.brackets.clear()  # what is open is a consequence
        return stop if semicolon else len(self.text)

    def _unclosed_bracket(self, bracket: _Token) -> None:
        fault = f"`{bracket.text}` is never closed", f"is a `{_BRACKETS[bracket.text]}` missing after it?"
        self._problem(bracket.start, bracket.end, fault)

    def _select(self) -> Select | None:
        """Return the statement: the last `as NAME` is no part of the query, it names the table."""
        query, name = self.tokens, None
        if query[-1].is_word("as"):
            self._problem(query[-1].start, query[-1].end, faults.NO_NAME)
            return None
        if len(query) > 2 and query[-2].is_word("as") and query[-1].kind != "mark":
            *query, _, name = query
        if len(query) == 1:
            self._problem(query[0].start, query[0].end, faults.no_query(query[0].text))
        if name and (fault := faults.not_a_name(name.text)):
            shown = without_secrets(self.text)[name.start : name.end]
            self._problem(name.start, name.end, faults.not_a_name(shown) or fault)
        if self.problems:
            return None
        return Select(
            sql=self._repaired(query[-1].end),
            table=name.text.strip("`") if name else None,
            sql_span=self.lines.span(self.start, query[-1].end),
            table_span=self.lines.span(name.start, name.end) if name else None,
            span=self.lines.span(self.start, self.tokens[-1].end),
            notes=tuple(self.notes),
        )

    def _repair_space(self, match: re.Match[str]) -> None:
        """Make plain spaces of those that an input method types: an SQL parser may not know them."""
        if match.lastgroup == "space" and not match[0].isascii():
            for special in _SPECIAL_SPACES.finditer(self.text, *match.span()):
                note = f"U+{ord(special[0][0]):04X} is read as a space"
                self._repair(*special.span(), " " * len(special[0]), note)

    def _repair(self, start: int, end: int, instead: str, note: str) -> None:
        """Read something else instead of what was written there, of the same length, and say so."""
        self.repairs[start] = instead
        self.notes.append(Note(self.lines.span(start, end), note))

    def _repaired(self, end: int) -> str:
        """Return the statement's text up to `end` as it is read."""
        characters = list(self.text[self.start : end])
        for start, instead in self.repairs.items():
            if start < end:
                first = start - self.start
                characters[first : first + len(instead)] = instead
        return "".join(characters)

    def _problem(self, start: int, end: int, fault: Fault) -> None:
        self.problems.append((self.lines.span(start, end), *fault))
