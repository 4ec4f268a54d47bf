"""The peer of pretraining: one rank of a bare DeepSpeed loop, ZeRO-2, over batches that are in memory already.

The same engine configuration as ours: torch's AdamW with weight decay on matrices only, clipping at 1, gloo, and
none of DeepSpeed's compiled operators, so that neither side needs a C++ compiler. No data to read, no metrics,
no looking at the loss, no checkpoint.
usage: RANK=… WORLD_SIZE=… … bare_deepspeed.py MODEL fp32|bf16 ROWS WIDTH WARM_UP STEPS
Rank 0 prints the tokens per second over all ranks.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import deepspeed
import deepspeed.ops
import torch
from deepspeed.ops.op_builder.all_ops import ALL_OPS
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from byzerllm_trainers.attention import attend_in_fp32


def main(model_dir: str, precision: str, rows: int, width: int, warm_up: int, steps: int) -> None:
    torch.set_num_threads(1)
    deepspeed.ops.__compatible_ops__ = dict.fromkeys([*ALL_OPS, "deepspeed_not_implemented"], False)
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False, verbose=False)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    engine = _engine(model_dir, precision, rows)
    torch.manual_seed(rank)
    tokens = torch.randint(0, engine.module.config.vocab_size, (warm_up + steps, rows, width + 1))
    batches = [(ids[:, :-1].contiguous(), ids[:, 1:].flatten()) for ids in tokens]
    begun = 0.0
    for number, (ids, targets) in enumerate(batches):
        if number == warm_up:
            begun = time.perf_counter()
        logits = engine(input_ids=ids, use_cache=False).logits
        engine.backward(cross_entropy(logits.flatten(0, 1).float(), targets))
        engine.step()
    if rank == 0:
        print(steps * rows * width * world / (time.perf_counter() - begun))
    torch.distributed.destroy_process_group()


def engine_config(precision: str, rows: int) -> dict[str, Any]:
    """What both peers ask of DeepSpeed."""
    return {
        "train_micro_batch_size_per_gpu": rows,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 1.0,
        "bf16": {"enabled": precision == "bf16"},
        "zero_optimization": {"stage": 2},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def _engine(model_dir: str, precision: str, rows: int) -> deepspeed.DeepSpeedEngine:
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="sdpa").train()
    if precision == "bf16":
        attend_in_fp32(model)  # as ours does, because it is the faster
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    config = {"steps_per_print": 10**9, **engine_config(precision, rows)}
    optimizer = torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
    return engine


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7]))
