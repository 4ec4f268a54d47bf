"""The practical limit of fine-tuning here: a bare PyTorch loop on full rows of random ids, with full logits.

No data to read, nothing padded, no clipping, no metrics, no checkpoint; the same model and LoRA as ours.
usage: bare_loop.py MODEL float32|bfloat16 THREADS STEPS [ROWS]   prints {"8x64": tokens per second, "8x512": …}

With a folder of rows also "grouped": batches of 50 rows of their lengths, similar ones together, padded with an
attention mask, as a careful user writes it; padding does not count.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

SHAPES = ((8, 64), (8, 512))
WARM_UP = 2
GROUP = 50


def main(model_dir: str, dtype: str, threads: int, steps: int, rows_dir: str | None = None) -> None:
    torch.set_num_threads(threads)
    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, dtype), attn_implementation="sdpa")
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    # without peft's fp32 copies of the LoRA weights, which cost a bf16 loop a conversion at every use
    model = get_peft_model(base, lora, autocast_adapter_dtype=False).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
    speeds = {}
    for rows, width in SHAPES:
        ids = torch.randint(0, base.config.vocab_size, (rows, width))

        def step(ids: torch.Tensor = ids) -> None:
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        for _ in range(WARM_UP):
            step()
        count = steps * max(width for _, width in SHAPES) // width  # as many tokens of either shape
        begun = time.perf_counter()
        for _ in range(count):
            step()
        speeds[f"{rows}x{width}"] = count * rows * width / (time.perf_counter() - begun)
    if rows_dir is not None:
        speeds["grouped"] = _grouped(model, optimizer, _batches(Path(model_dir), Path(rows_dir)), steps)
    print(json.dumps(speeds))


def _grouped(model: Any, optimizer: torch.optim.Optimizer, batches: list[tuple[Any, Any]], steps: int) -> float:
    """Tokens per second over padded batches; the loss is on the whole conversation."""
    tokens, begun = 0, 0.0
    for number in range(WARM_UP + steps):
        if number == WARM_UP:
            tokens, begun = 0, time.perf_counter()
        ids, mask = batches[number % len(batches)]
        labels = ids.masked_fill(mask == 0, -100)
        model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        tokens += int(mask.sum())
    return tokens / (time.perf_counter() - begun)


def _batches(model_dir: Path, rows_dir: Path) -> list[tuple[Any, Any]]:
    """Return ids and attention masks of batches of rows of similar length, in random order."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    rows = [json.loads(line) for line in (rows_dir / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [f"<|user|>{r['instruction']}\n{r['input']}</s><|assistant|>{r['output']}</s>" for r in rows]
    ids = sorted(tokenizer(texts, truncation=True, max_length=512)["input_ids"], key=len)
    batches = []
    for part in (ids[i : i + GROUP] for i in range(0, len(ids), GROUP)):
        width = max(map(len, part))
        padded = torch.tensor([row + [0] * (width - len(row)) for row in part])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in part])
        batches.append((padded, mask))
    random.Random(0).shuffle(batches)
    return batches


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
