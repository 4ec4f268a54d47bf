"""`first_token`: what deployment adds to the time to the first token.

Compared, prompt by prompt in turn: `Session.chat`, as ``%llm_chat`` calls it, on a model deployed on the
embedded cluster, from the call until the first piece of text is here; and the same adapter's ``stream_chat`` on
the same model in this process, with as many threads. Every prompt is a new conversation, and both sides take
the likeliest tokens, hence generate the same ones. The figure is the median of the differences; it holds finding
the deployment, the way to the replica, and the first piece's way back.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from measure import Figure, interleaved
from our_jobs import session
from tiny_model import tiny_model

from byzerllm_magics import Session

SMOKE = {"prompts": 2}
MODEL = "bench_chat"
ANSWER_TOKENS = 8


def measure(work: Path, prompts: int = 40) -> list[Figure]:
    import psutil
    import torch

    from byzerllm_adapters.causal_lm import init_model

    folder = str(tiny_model(work).model)
    torch.set_num_threads(psutil.cpu_count(logical=False) or 1)  # as a replica does
    local = init_model(folder)
    ours = session(workers=1)
    ours.run(action="infer", pretrainedModelType="llama", localModelDir=folder, udfName=MODEL)
    sides = {"in_process": partial(_in_process, *local, _prompts()), "served": partial(_served, ours, _prompts())}
    interleaved(sides, 3)
    milliseconds = interleaved(sides, prompts)
    added = [served - local for served, local in zip(milliseconds["served"], milliseconds["in_process"], strict=True)]
    return [Figure("first_token", median(added), "ms", milliseconds, at_most=50)]


def _prompts() -> Iterator[str]:
    """Short questions, each another one."""
    for name in sorted(sys.stdlib_module_names):
        yield f"What is the module {name} for?"


def _in_process(model: Any, tokenizer: Any, prompts: Iterator[str]) -> float:
    prompt = next(prompts)
    begun = time.perf_counter()
    stream = model.stream_chat(tokenizer, prompt, [], temperature=0.0, max_new_tokens=ANSWER_TOKENS)
    return _until_first(begun, (text for text, _ in stream))


def _served(ours: Session, prompts: Iterator[str]) -> float:
    prompt = next(prompts)
    begun = time.perf_counter()
    return _until_first(begun, iter(ours.chat(prompt, model=MODEL, new=True, temperature=0, max_tokens=ANSWER_TOKENS)))


def _until_first(begun: float, pieces: Iterator[str]) -> float:
    """Return the milliseconds until the first text; take the rest of the answer, so that the model is free again."""
    next(piece for piece in pieces if piece)
    first = time.perf_counter()
    for _ in pieces:
        pass
    return (first - begun) * 1000
