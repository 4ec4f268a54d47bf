"""``%llm_chat`` and ``%%llm_chat``: talk to a deployed model; the answer streams."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

from .dispatch import variable

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ..cluster.chat import Exchange
    from ..session import Session

OPTION = re.compile(r"""\s*(-{1,2}[A-Za-z][\w-]*)(?:=|(?=\s|$))""")
VALUE = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|(\S+))""")
FLAGS = {"-h": "help", "--help": "help", "--new": "new"}
VALUES = {
    "-m": "model",
    "--model": "model",
    "-o": "output",
    "--output": "output",
    "--system": "system",
    "--temperature": "temperature",
    "--max-tokens": "max_tokens",
}
HELP = """%llm_chat [-m MODEL] [--new] [--system TEXT] [--temperature T] [--max-tokens N] [-o NAME] text
%%llm_chat does the same with the cell's body as the text.

  -m, --model MODEL   a deployed model; by default the last one that you deployed
  --new               forget the conversation so far
  --system TEXT       a system message (in quotes when it has spaces); begins a new conversation
  --temperature T     0 takes the likeliest token always
  --max-tokens N      the most tokens of the answer
  -o, --output NAME   bind the answer (text, with .metadata) to this variable

The text is taken literally; "--" ends the options. Interrupting keeps the partial answer."""


def call(session: Session, shell: InteractiveShell, line: str, cell: str | None) -> None:
    """Ask, stream the answer into the cell, keep the conversation."""
    options, text = split_options(line)
    if options.help:
        print(HELP)
        return
    text = "\n".join(part for part in (text, cell or "") if part.strip()).strip()
    if not text:
        raise ByzerError("%llm_chat needs a text", do="e.g. %llm_chat -m chat What is the capital of France?")
    variable(options.output)
    exchange = session.chat(
        text,
        model=options.model,
        new=options.new,
        system=options.system,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
    )
    show = _stream_view if getattr(shell, "kernel", None) is not None else _stream_text
    try:
        show(exchange, text)
    finally:
        if options.output:
            shell.user_ns[options.output] = exchange.answer


def split_options(line: str) -> tuple[argparse.Namespace, str]:
    """Split leading options from the text, which is taken as it stands.

    Raises:
        ByzerError: an unknown option, a missing or wrong value.
    """
    options: dict[str, Any] = {"help": False, "new": False}
    options |= dict.fromkeys(set(VALUES.values()))
    while match := OPTION.match(line):
        name = match.group(1)
        if name in FLAGS:
            options[FLAGS[name]] = True
            line = line[match.end() :]
            continue
        if name not in VALUES:
            raise ByzerError(f"%llm_chat has no option {name}", do='"%llm_chat --help" lists them; "--" ends options')
        value = VALUE.match(line, match.end())
        if value is None:
            raise ByzerError(f"%llm_chat: {name} needs a value", do='"%llm_chat --help" shows the form')
        options[VALUES[name]] = _typed(name, next(group for group in value.groups() if group is not None))
        line = line[value.end() :]
    return argparse.Namespace(**options), re.sub(r"^\s*--(?=\s|$)", "", line).strip()


def _typed(name: str, value: str) -> str | float | int:
    convert: Callable[[str], str | float | int] = {"--temperature": float, "--max-tokens": int}.get(name, str)
    try:
        converted = convert(value)
    except ValueError:
        raise ByzerError(f"%llm_chat: {name} takes a number, not {value!r}") from None
    if name == "--max-tokens" and converted < 1:  # type: ignore[operator]  # an int, as converted above
        raise ByzerError(f"%llm_chat: --max-tokens is {value}", do="it has to be at least 1")
    return converted


def _stream_view(exchange: Exchange, text: str) -> None:
    """Stream into a live view, which its static twin replaces at the end."""
    from ..widgets.chat import ChatView
    from ..widgets.chat_twin import chat_bundle
    from ..widgets.live_output import LiveOutput

    view, output = ChatView(user=text), LiveOutput()
    output.show(view, chat_bundle(text, "", "", "waiting"))
    state, stats = "failed", ""
    try:
        for piece in exchange:
            view.append(piece)
        state, stats = "done", exchange.summary()
    except KeyboardInterrupt:
        state, stats = "stopped", exchange.summary()
    except ByzerError as error:
        stats = error.what
        raise
    finally:
        view.finish(stats, state)
        output.settle(chat_bundle(text, str(exchange.answer), stats, state))


def _stream_text(exchange: Exchange, _text: str) -> None:
    """Print pieces as they arrive: a terminal."""
    stopped = ""
    try:
        for piece in exchange:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        stopped = "stopped · "
    print(f"\n[{stopped}{exchange.summary()}]")
