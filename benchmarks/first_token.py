"""`first_token`: what a notebook and a deployment add to the time to the first token.

Compared, prompt by prompt in turn: a cell ``%llm_chat …`` in a real kernel, on a model deployed on the embedded
cluster, from the request to execute it until the message with the first piece of text is here, which a page would
draw; and the same adapter's ``stream_chat`` on the same model in this process, with as many threads. Every prompt
is a new conversation, and both sides take the likeliest tokens, hence generate the same ones. The figure is the
median of the differences; it holds the kernel's messages, IPython, finding the deployment, the way to the replica,
and the first piece's way back.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from jupyter_client import BlockingKernelClient, KernelManager
from measure import Figure, interleaved
from our_jobs import session
from tiny_model import tiny_model

SMOKE = {"prompts": 2}
MODEL = "bench_chat"
ANSWER_TOKENS = 8
SECONDS = 60


def measure(work: Path, prompts: int = 40) -> list[Figure]:
    import psutil
    import torch

    from byzerllm_adapters.causal_lm import init_model

    folder = str(tiny_model(work).model)
    torch.set_num_threads(psutil.cpu_count(logical=False) or 1)  # as a replica does
    local = init_model(folder)
    session(workers=1).run(action="infer", pretrainedModelType="llama", localModelDir=folder, udfName=MODEL)
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    try:
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=SECONDS)
        _until_first_piece(client, "%load_ext byzerllm_magics")
        sides = {
            "in_process": partial(_in_process, *local, _prompts()),
            "in_a_cell": partial(_in_a_cell, client, _prompts()),
        }
        interleaved(sides, 3)
        milliseconds = interleaved(sides, prompts)
    finally:
        manager.shutdown_kernel(now=True)
    added = [cell - local for cell, local in zip(milliseconds["in_a_cell"], milliseconds["in_process"], strict=True)]
    return [Figure("first_token", median(added), "ms", milliseconds, at_most=50)]


def _prompts() -> Iterator[str]:
    """Short questions, each another one."""
    for name in sorted(sys.stdlib_module_names):
        yield f"What is the module {name} for?"


def _in_process(model: Any, tokenizer: Any, prompts: Iterator[str]) -> float:
    """Return the milliseconds until the first text; take the rest of the answer, as a cell does."""
    prompt = next(prompts)
    begun = time.perf_counter()
    stream = model.stream_chat(tokenizer, prompt, [], temperature=0.0, max_new_tokens=ANSWER_TOKENS)
    next(text for text, _ in stream if text)
    first = time.perf_counter()
    for _ in stream:
        pass
    return (first - begun) * 1000


def _in_a_cell(client: BlockingKernelClient, prompts: Iterator[str]) -> float:
    options = f"-m {MODEL} --new --temperature 0 --max-tokens {ANSWER_TOKENS}"
    milliseconds = _until_first_piece(client, f"%llm_chat {options} {next(prompts)}")
    assert milliseconds is not None, "the cell showed no piece of an answer"
    return milliseconds


def _until_first_piece(client: BlockingKernelClient, code: str) -> float | None:
    """Run a cell to its end; return the milliseconds until the first piece of an answer reached this client."""
    begun, first = time.perf_counter(), None
    request = client.execute(code)
    while True:
        message = client.get_iopub_msg(timeout=SECONDS)
        if message["parent_header"].get("msg_id") != request:
            continue
        content = message["content"]
        assert message["msg_type"] != "error", content
        if first is None and message["msg_type"] == "comm_msg" and content["data"].get("content", {}).get("piece"):
            first = (time.perf_counter() - begun) * 1000
        if message["msg_type"] == "status" and content["execution_state"] == "idle":
            client.get_shell_msg(timeout=SECONDS)
            return first
