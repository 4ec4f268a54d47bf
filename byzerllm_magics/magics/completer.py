"""Completion in a notebook's cells of ours: IPython asks, `completion` answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext, SimpleMatcherResult
    from IPython.core.interactiveshell import InteractiveShell

    from ..session import Session

IDENTIFIER = "byzerllm"


def register(shell: InteractiveShell, session: Session) -> None:
    """Let the shell ask this session; what IPython itself would offer inside our cells is kept away."""
    from IPython.core.completer import context_matcher

    unregister(shell)
    if shell.Completer is not None:
        shell.Completer.custom_matchers.append(context_matcher(identifier=IDENTIFIER)(_matcher(session)))


def unregister(shell: InteractiveShell) -> None:
    """Remove what `register` added, if it did."""
    if shell.Completer is not None:
        matchers = shell.Completer.custom_matchers
        matchers[:] = [each for each in matchers if getattr(each, "matcher_identifier", "") != IDENTIFIER]


def _matcher(session: Session) -> Callable[[CompletionContext], SimpleMatcherResult]:
    def match(context: CompletionContext) -> Any:
        from IPython.core.completer import SimpleCompletion

        from ..completion import complete

        offset = _offset(context)
        before, after = context.full_text[:offset], context.full_text[offset:]
        if "byzerllm" not in before and "llm_chat" not in before:
            return {"completions": [], "suppress": False}
        try:
            offer = complete(session, before, after)
        except ByzerError:  # a cluster that does not answer is no reason to disturb who types
            offer = None
        if offer is None:
            return {"completions": [], "suppress": False}
        return {
            "completions": [SimpleCompletion(text=word, type=offer.kind) for word in offer.words],
            "matched_fragment": offer.fragment,
            "suppress": True,
        }

    return match


def _offset(context: CompletionContext) -> int:
    """Return where the cursor is in the whole text; IPython gives its line and column."""
    lines = context.full_text.split("\n")
    return sum(len(line) + 1 for line in lines[: context.cursor_line]) + int(context.cursor_position)
