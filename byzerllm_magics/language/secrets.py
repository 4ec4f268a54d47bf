"""A cell's text as it may be shown: the values of secrets starred out."""

from __future__ import annotations

import re

from byzerllm_adapters.secret_values import is_secret

_KEY = re.compile(r"[\w.]+")
_VALUE = re.compile(
    r"""`?(?:\s*[=＝]\s*|[ \t]+)  # the sign may have been forgotten
    (?P<value>'''[\s\S]*?(?:'''|\Z) | \"""[\s\S]*?(?:\"""|\Z) | "[^"\n]*"? | '[^'\n]*'? | [“”‘’][^\n]* | [^\s"',;]+)""",
    re.VERBOSE,
)


def without_secrets(text: str) -> str:
    """Return a cell with every character of a secret's value starred, broken as the cell may be; places stay.

    What counts as a secret is told by its key; see `secret_values.is_secret`.
    """
    for key in _KEY.finditer(text):
        value = _VALUE.match(text, key.end()) if is_secret(key[0]) else None
        if value is not None:
            stars = re.sub(r"[^\n]", "*", value["value"])
            text = text[: value.start("value")] + stars + text[value.end() :]
    return text
