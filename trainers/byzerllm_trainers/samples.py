"""What the model answers while it is trained: greedy answers to prompts of the user's, every so many steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .job_folder import Record


@dataclass(frozen=True)
class Sampler:
    """Answers prompts with the model as it is.

    Every rank calls it and computes the same, which partitioned weights need; nothing random happens.

    Attributes:
        prompts: What is asked, as token ids.
        texts: The same as the user wrote it.
        tokenizer: Reads the answers.
        every: Steps between two rounds.
        max_tokens: The most tokens of an answer.
    """

    prompts: Sequence[list[int]]
    texts: Sequence[str]
    tokenizer: Any
    every: int
    max_tokens: int

    def is_due(self, step: int, last: bool) -> bool:
        """Whether the model is asked after this step; it always is after the last."""
        return bool(self.prompts) and (last or step % self.every == 0)

    def answers(self, engine: Any, step: int, on_answer: Callable[[], None] = lambda: None) -> list[Record]:
        """Return ``{"step", "prompt", "answer"}`` for each prompt; ``on_answer`` is called after each."""
        import torch

        model = engine.module
        found: list[Record] = []
        engine.eval()
        with torch.no_grad():
            for ids, text in zip(self.prompts, self.texts, strict=True):
                asked = torch.tensor([ids], device=engine.device)
                answer = model.generate(
                    input_ids=asked,
                    attention_mask=torch.ones_like(asked),
                    max_new_tokens=self.max_tokens,
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    pad_token_id=self.tokenizer.eos_token_id,
                    synced_gpus=engine.zero_optimization_stage() == 3,
                )
                new = answer[0, len(ids) :]
                found.append(
                    {"step": step, "prompt": text, "answer": self.tokenizer.decode(new, skip_special_tokens=True)}
                )
                on_answer()
        engine.train()
        return found
