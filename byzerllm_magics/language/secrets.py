"""A cell's text as it may be shown: the values of secrets starred out, however broken the cell is."""

from __future__ import annotations

import difflib
import re
from functools import lru_cache

from byzerllm_adapters.secret_values import is_secret

_QUOTES = "\"'“”＂‘’＇"
_PAIRS = {quote: wide for wide in ("“”＂", "‘’＇") for quote in wide}
_QUOTED = r"""
    '''[\s\S]*?(?:'''|\Z) | \"""[\s\S]*?(?:\"""|\Z)
  | "(?:\\.|[^"\\\n])*+"? | '(?:\\.|[^'\\\n])*+'?
  | [“”＂][^"“”＂\n]*+["“”＂]? | [‘’＇][^'‘’＇\n]*+['‘’＇]?"""

_TOKEN = re.compile(
    rf"""(?P<quoted>{_QUOTED})
  | (?P<word>[^\s"'`“”＂‘’＇,，、;；=＝:：()（）\[\]{{}}]+)
  | (?P<sign>[=＝:：])
  | (?P<semicolon>[;；])
  | (?P<newline>\n)""",
    re.VERBOSE,
)

_WHOLE = re.compile(
    rf"""`?\s*[=＝]\s*(?P<value>(?>{_QUOTED} | [^\s"'`“”＂‘’＇,，、;；=＝()（）\[\]{{}}]++))
    (?= \s*[;；]?\s*\Z | (?:\s*[;；] | \s*\n)\s*`?[\w!！] | (?:\s*[,，] | \s*\band\b)+\s*`?[\w.]+`?\s*[=＝]
      | \s+as\s+`?\w+`?\s*(?:[;；]|\Z) )""",
    re.VERBOSE | re.IGNORECASE,
)
"""A sign and one value, behind which something else begins: nothing more belongs to it."""

_SIGN = re.compile(r"[=＝:：]")
_ASSIGNED = re.compile(r"[`\"']?\s*[=＝:：]")
_NEXT = re.compile(r"\s*[`\w!！-]")
"""How a line begins that goes on with another key or statement, and not with the rest of a value."""

_GAP = re.compile(r"[` \t]*")
"""What may stand between a key and the value whose sign was forgotten."""

_NO_VALUE = {"and", "as", "where"}
_NOT_DIRECTLY = _NO_VALUE | {"from", "or", "is", "in", "not", "like", "between", "on", "asc", "desc", "then", "end"}
"""Words of SQL that may follow a column that is named like a secret."""

_USUAL = ("api_key", "apikey", "access_key", "secret_key", "hub_token", "auth_token", "password")


@lru_cache(maxsize=4)
def without_secrets(text: str) -> str:
    """Return a cell with every character of a secret's value starred; places stay.

    What counts as a secret is told by its key, a mistyped one included; see `secret_values.is_secret`. Where what
    follows the key cannot be read as one value, every quoted text and every word behind a sign is taken for a part
    of it, up to the end of the statement or the line.
    """
    pieces: list[str] = []
    shown = 0  # up to where `pieces` goes
    behind = False  # behind a secret's key, whose value cannot be told
    signed = found = False  # whether a sign, a part of the value came since
    key_end = place = 0
    while token := _TOKEN.search(text, place):
        kind, written, place = token.lastgroup, token[0], token.end()
        start, stars = token.start(), ""
        if kind == "semicolon":
            unsaid = not found and not re.search(r"\w", text[key_end:start])  # it stands where the sign should
            behind = behind and (unsaid or not _NEXT.match(text, place))
        elif kind == "newline":
            behind = behind and ((signed and not found) or not _NEXT.match(text, place))
        elif kind == "sign":
            signed = True
        elif behind and (kind == "quoted" or _is_part(token, signed, key_end)):
            stars = _stars(written)
            signed = found = True
        elif kind == "quoted":
            stars = _inside_starred(written)
            if stars != written or _ends_with_a_key(written):  # a quote that is missing may have swallowed the key
                behind, key_end = True, place
                signed = found = stars != written
        elif is_secret(written) or (_ASSIGNED.match(text, place) and _is_nearly_secret(written)):
            if whole := _WHOLE.match(text, place):
                start, place = whole.span("value")
                stars, behind = _stars(whole["value"]), False
            else:
                behind, signed, found, key_end = True, False, False, place
        if stars:
            pieces += [text[shown:start], stars]
            shown = place
    return "".join([*pieces, text[shown:]])


def _is_part(token: re.Match[str], signed: bool, key_end: int) -> bool:
    """Return whether a word belongs to a secret's value: it stands behind a sign, or directly behind the key."""
    word = token[0].lower()
    if signed:
        return word not in _NO_VALUE
    return word not in _NOT_DIRECTLY and _GAP.fullmatch(token.string, key_end, token.start()) is not None


def _inside_starred(quoted: str) -> str:
    """Return a quoted text in which a secret may stand, as in a setting or a JSON text.

    One whose quotes are no pair is none: what stands behind a secret's key in it may all be the value.
    """
    paired = len(quoted) > 1 and quoted[-1] in _PAIRS.get(quoted[0], quoted[0])
    for name in re.finditer(r"[\w.]+", quoted):
        begins = name.start() <= 3 and not quoted[: name.start()].strip(_QUOTES)
        if is_secret(name[0]) and (begins or not paired or _SIGN.search(quoted, name.end())):
            rest = quoted[name.end() :]
            return quoted[: name.end()] + (_stars(rest) if rest.strip(_QUOTES) else rest)
    return quoted


def _ends_with_a_key(quoted: str) -> bool:
    """Return whether a quoted text is a secret's key, or a quote that is missing made it end with one."""
    last = re.search(r"[\w.]+\Z", quoted[-100:].rstrip(f"{_QUOTES} \t=＝:："))
    return last is not None and is_secret(last[0])


def _is_nearly_secret(name: str) -> bool:
    """Return whether a key is a mistyped one of a secret."""
    return bool(difflib.get_close_matches(name.lower().rpartition(".")[2], _USUAL, n=1, cutoff=0.85))


def _stars(text: str) -> str:
    return re.sub(r"[^\n]", "*", text)
