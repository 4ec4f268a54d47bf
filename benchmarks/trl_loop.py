"""TRL's SFTTrainer with peft's LoRA on the same model and rows: the peer that people use.

usage: trl_loop.py MODEL ROWS padded|packed|tuned float32|bfloat16 THREADS STEPS   prints {"real": tokens per second}

``padded`` is as users run it, 8 rows padded to the longest; ``packed`` its packing into 512 tokens, 8 rows; ``tuned``
50 rows, which hold about as many tokens as [8, 512], grouped by length. Padding does not count.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

WARM_UP = 2
MODES: dict[str, dict[str, Any]] = {
    "padded": {"per_device_train_batch_size": 8},
    "packed": {"per_device_train_batch_size": 8, "packing": True},
    "tuned": {"per_device_train_batch_size": 50, "train_sampling_strategy": "group_by_length"},
}


class Pace(TrainerCallback):  # type: ignore[misc]
    """Notes when the warm-up ended and when the last step did."""

    def on_step_end(self, _args: object, state: Any, _control: object, **_more: object) -> None:  # noqa: D102
        now = (time.perf_counter(), float(state.num_input_tokens_seen))
        if state.global_step == WARM_UP:
            self.first = now
        self.last = now


def main(model_dir: str, rows_dir: str, mode: str, dtype: str, threads: int, steps: int) -> None:
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, dtype), attn_implementation="sdpa")
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            max_length=512,
            max_steps=steps + WARM_UP,
            learning_rate=2e-4,
            logging_steps=10,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,  # the weights are, where that is asked for: faster than autocast
            gradient_checkpointing=False,
            include_num_input_tokens_seen="non_padding",
            disable_tqdm=True,
            **MODES[mode],
        )
        pace = Pace()
        SFTTrainer(
            model=model,
            args=config,
            train_dataset=_rows(Path(rows_dir)),
            processing_class=AutoTokenizer.from_pretrained(model_dir),
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
            callbacks=[pace],
        ).train()
    print(json.dumps({"real": (pace.last[1] - pace.first[1]) / (pace.last[0] - pace.first[0])}))


def _rows(folder: Path) -> Dataset:
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    return Dataset.from_list(
        [
            {
                "messages": [
                    {"role": "user", "content": f"{row['instruction']}\n{row['input']}"},
                    {"role": "assistant", "content": row["output"]},
                ]
            }
            for row in lines
        ]
    )


if __name__ == "__main__":
    main(*sys.argv[1:5], int(sys.argv[5]), int(sys.argv[6]))
