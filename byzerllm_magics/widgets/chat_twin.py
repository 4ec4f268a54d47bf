"""The static twin of a chat: Markdown that shows what a model wrote and can do nothing else.

Some viewers (nbconvert's pages) render Markdown with the HTML in it, so model output may hold none. The rule
that makes this hold whatever the viewer's Markdown dialect: outside fenced code, the only `<` are our own
`<code>` tags; and a fence is written anew, at the start of a line after a blank one and always closed, where
every dialect sees a fence. Pictures are not loaded, for their address can carry the conversation away.
"""

from __future__ import annotations

import re
from typing import Final

_OPENING: Final = re.compile(r" {0,3}(?P<fence>`{3,}(?=[^`]*$)|~{3,})\s*(?P<language>[\w+#.-]*)")
_CODE_SPAN: Final = re.compile(r"(?<![\\`])(?P<ticks>`+)(?!`)(?P<code>.+?)(?<!`)(?P=ticks)(?!`)")
_MARKUP: Final = re.compile(r"[^\w\s]|_")


def chat_bundle(user: str, text: str, stats: str, state: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return one exchange as `text/markdown` and `text/plain`, and no metadata.

    Args:
        user: The prompt, shown as a quotation.
        text: The model's answer, Markdown that is not trusted.
        stats: The footer; may be empty.
        state: The view's last state; what is not "done" is said.

    """
    footer = " · ".join(part for part in ("" if state == "done" else state, stats) if part)
    question = "\n".join(f"> {line}".rstrip() for line in inert_markdown(user).splitlines())
    markdown = [question, inert_markdown(text), f"*{_entities(footer)}*" if footer else ""]
    plain = ["\n".join(f"> {line}".rstrip() for line in user.splitlines()), text, footer]
    return {
        "text/markdown": "\n\n".join(part for part in markdown if part),
        "text/plain": "\n\n".join(part for part in plain if part),
    }, {}


def inert_markdown(text: str) -> str:
    """Return Markdown that renders like `text`, its HTML shown as text and its pictures not loaded."""
    result: list[str] = []
    code: list[str] = []
    opening: re.Match[str] | None = None
    for line in text.splitlines():
        if opening is None:
            opening = _OPENING.match(line)
            if opening is None:
                result.append(_inert_line(line))
        elif re.fullmatch(rf" {{0,3}}{opening['fence'][0]}{{{len(opening['fence'])},}}\s*", line):
            result += _fenced(code, opening["language"])
            code, opening = [], None
        else:
            code.append(line)
    if opening is not None:  # the answer stopped within its code
        result += _fenced(code, opening["language"])
    return "\n".join(result).strip("\n")


def _fenced(code: list[str], language: str) -> list[str]:
    """Return the lines of a fence that its content cannot close."""
    longest = max((len(run) for line in code for run in re.findall(r"`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return ["", fence + language, *code, fence, ""]


def _inert_line(line: str) -> str:
    pieces, end = [], 0
    for span in _CODE_SPAN.finditer(line):
        pieces.append(_inert_prose(line[end : span.start()]))
        pieces.append(f"<code>{_entities(span['code'].strip())}</code>" if "<" in span["code"] else span[0])
        end = span.end()
    return "".join([*pieces, _inert_prose(line[end:])])


def _inert_prose(text: str) -> str:
    return text.replace("<", "&lt;").replace("![", "\\!\\[")


def _entities(text: str) -> str:
    """Return text in which neither HTML nor Markdown sees anything but letters."""
    return _MARKUP.sub(lambda sign: f"&#{ord(sign[0])};", text)
