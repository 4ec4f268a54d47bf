"""The practical limit of fine-tuning here: a bare PyTorch loop on full rows of random ids, with full logits.

No data to read, nothing padded, no clipping, no metrics, no checkpoint; the same model and LoRA as ours.
usage: bare_loop.py MODEL float32|bfloat16 THREADS STEPS   prints {"8x64": tokens per second, "8x512": …}
"""

from __future__ import annotations

import json
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

SHAPES = ((8, 64), (8, 512))
WARM_UP = 2


def main(model_dir: str, dtype: str, threads: int, steps: int) -> None:
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
    print(json.dumps(speeds))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
