"""Registering the magics with IPython: thin functions that import their work when called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.core.magic import no_var_expand

from ..session import Session
from . import completer
from .question import Question

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def register(shell: InteractiveShell) -> None:
    """Register ``byzerllm`` and ``llm_chat`` as line and cell magics around one new session."""
    unregister(shell)
    session = Session(namespace=lambda: shell.user_ns)

    # IPython would evaluate {…} and $name in the line as Python; a prompt is literal
    @no_var_expand  # type: ignore[untyped-decorator]
    def byzerllm(line: str, cell: str | None = None) -> Any:
        from .dispatch import byzerllm, guarded

        return guarded(session, lambda: byzerllm(session, shell, line, cell))

    @no_var_expand  # type: ignore[untyped-decorator]
    def llm_chat(line: str, cell: str | None = None) -> None:
        from . import llm_chat
        from .dispatch import guarded

        return guarded(session, lambda: llm_chat.call(session, shell, line, cell))

    byzerllm.__doc__ = 'Deploy, fine-tune and pretrain language models. "%byzerllm" alone prints what there is.'
    llm_chat.__doc__ = 'Talk to a deployed model. "%llm_chat --help" lists the options.'
    for kind in ("line", "cell"):
        shell.register_magic_function(byzerllm, magic_kind=kind, magic_name="byzerllm")
        shell.register_magic_function(llm_chat, magic_kind=kind, magic_name="llm_chat")
    shell.input_transformer_manager.token_transformers.append(Question)
    completer.register(shell, session)


def unregister(shell: InteractiveShell) -> None:
    """Remove what `register` added, if it did."""
    for kind in ("line", "cell"):
        for name in ("byzerllm", "llm_chat"):
            shell.magics_manager.magics[kind].pop(name, None)
    completer.unregister(shell)
    transformers = shell.input_transformer_manager.token_transformers
    transformers[:] = [each for each in transformers if each is not Question]
