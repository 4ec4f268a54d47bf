"""transformers' Trainer with DeepSpeed, one rank, ZeRO-2, on windows that are in memory: what people pretrain with.

The same engine configuration, optimizer and operators as `bare_deepspeed`, logging every tenth step, no checkpoint.
usage: RANK=… WORLD_SIZE=… … trainer_deepspeed.py MODEL fp32|bf16 ROWS WIDTH WARM_UP STEPS
Rank 0 prints the tokens per second over all ranks.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from typing import Any

import deepspeed
import deepspeed.ops
import torch
from bare_deepspeed import engine_config
from deepspeed.ops.op_builder.all_ops import ALL_OPS
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from byzerllm_trainers.attention import attend_in_fp32


class Pace(TrainerCallback):  # type: ignore[misc]
    """Notes when the warm-up ended and when the last step did."""

    def __init__(self, warm_up: int) -> None:
        self._warm_up = warm_up
        self.first = self.last = 0.0

    def on_step_end(self, _args: object, state: Any, _control: object, **_more: object) -> None:  # noqa: D102
        self.last = time.perf_counter()
        if state.global_step == self._warm_up:
            self.first = self.last


def main(model_dir: str, precision: str, rows: int, width: int, warm_up: int, steps: int) -> None:
    torch.set_num_threads(1)
    deepspeed.ops.__compatible_ops__ = dict.fromkeys([*ALL_OPS, "deepspeed_not_implemented"], False)
    world, pace = int(os.environ["WORLD_SIZE"]), Pace(warm_up)
    with tempfile.TemporaryDirectory() as folder:
        arguments = _arguments(folder, precision, rows, warm_up + steps)  # before the model: it starts the ranks
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="sdpa")
        if precision == "bf16":
            attend_in_fp32(model)  # as ours does, because it is the faster
        ids = torch.randint(0, model.config.vocab_size, (world * rows * (warm_up + steps), width))
        windows = [{"input_ids": each, "labels": each} for each in ids]
        Trainer(model=model, args=arguments, train_dataset=windows, callbacks=[pace]).train()
    if os.environ["RANK"] == "0":
        print(steps * rows * width * world / (pace.last - pace.first))


def _arguments(folder: str, precision: str, rows: int, steps: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        deepspeed=engine_config(precision, rows),
        use_cpu=True,
        ddp_backend="gloo",
        per_device_train_batch_size=rows,
        max_steps=steps,
        learning_rate=3e-4,
        weight_decay=0.1,
        adam_beta2=0.95,
        bf16=precision == "bf16",
        optim="adamw_torch_fused",
        logging_steps=10,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7]))
