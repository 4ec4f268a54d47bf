"""Token ids become text while they arrive, without half characters."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HALF = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer decodes bytes to that are no character, or not one yet."""


class Decoder:
    """Decodes an answer incrementally: only the tokens since the last complete character are decoded again.

    Args:
        lead: White space that the template writes before an answer; not shown.
        gap: White space that it writes after one; not shown at the end.

    Special tokens are left out, and so are bytes that never become a character.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, lead: str = "", gap: str = "") -> None:
        self.tokenizer, self.lead, self.gap = tokenizer, lead, gap
        self.text = ""
        self.context: list[int] = []  # the tokens that were turned into text last: they decide on a space in between
        self.pending: list[int] = []

    def add(self, token: int) -> str:
        """Take one more token; return the whole text so far."""
        self.pending.append(token)
        before, after = self._decode(self.context), self._decode(self.context + self.pending)
        if len(after) > len(before) and not after.endswith(HALF):
            self.text += after[len(before) :].replace(HALF, "")
            self.context, self.pending = self.pending, []
        if self.lead.startswith(self.text):  # maybe the rest of the lead comes with the next token
            return ""
        return self.text.removeprefix(self.lead).removesuffix(self.gap)

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
