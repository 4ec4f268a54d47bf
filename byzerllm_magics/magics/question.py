"""``%llm_chat … ?`` asks a model; IPython would take a line's last question mark as a call for its own help."""

from __future__ import annotations

from tokenize import DEDENT, INDENT, TokenInfo

from IPython.core.inputtransformer2 import EscapedCommand, HelpEnd


class Question(EscapedCommand):  # type: ignore[misc]
    """Makes ``%llm_chat TEXT`` a magic's line, whatever its text ends with; ``%llm_chat?`` still shows help."""

    priority = HelpEnd.priority - 1

    @classmethod
    def find(cls, tokens_by_line: list[list[TokenInfo]]) -> Question | None:
        """Find the first such line."""
        for line in tokens_by_line:
            tokens = [token for token in line if token.type not in (INDENT, DEDENT)]
            match [token.string for token in tokens[:3]]:
                case ["%", "llm_chat", after] if after != "?":
                    return cls(tokens[0].start)
        return None
