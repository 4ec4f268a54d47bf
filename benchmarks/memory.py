"""`memory`: the largest relative error of `%byzerllm estimate` over what nine training runs really took at their peak.

Nine jobs of a Llama of 52 M parameters on the CPU: LoRA in fp32 on short rows, in bf16 on long ones with gradient
checkpointing, and over two accumulated batches; QLoRA and DoRA in fp32; all weights fine-tuned on packed rows in bf16,
and pretrained without ZeRO in fp32, with ZeRO-2 in bf16 and with ZeRO-3 in bf16 on two ranks. Each rank is a process of
its own (`memory_rank`) that loads, trains and checkpoints as a worker does. Measured is its highest resident size over
that before the model (``VmHWM`` of ``/proc/self/status``), the larger of two ranks'; the allocator maps every tensor
for itself, so that freed memory goes back at once and counts once.

The estimate is made from the same job folder, in this process.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from measure import Figure
from tiny_model import TinyModel, tiny_model

SMOKE = {"names": ["sft_fp32"], "layers": 2}
SIZES = {"vocab_size": 8192, "hidden_size": 576, "intermediate_size": 1536, "max_position_embeddings": 2048}
HEADS = {"num_attention_heads": 9, "num_key_value_heads": 3}
LONG, LAYERS = 400, 12
MIDDLING = {"per_device_train_batch_size": 4, "max_seq_length": 256}
RUNS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "sft_fp32": ("sft", 1, {"bf16": False, "per_device_train_batch_size": 16, "max_seq_length": 128}),
    "sft_bf16_checkpointed": (
        "sft",
        1,
        {"bf16": True, "gradient_checkpointing": True, "per_device_train_batch_size": 4, "max_seq_length": LONG},
    ),
    "sft_fp32_accumulated": (
        "sft",
        1,
        {"bf16": False, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "max_seq_length": 256},
    ),
    "sfft_zero0_fp32": ("sfft", 1, {"bf16": False, "per_device_train_batch_size": 4, "max_length": 128, "stage": 0}),
    "sfft_zero2_bf16": ("sfft", 2, {"bf16": True, "per_device_train_batch_size": 2, "max_length": 256, "stage": 2}),
    "sfft_zero3_bf16": ("sfft", 2, {"bf16": True, "per_device_train_batch_size": 2, "max_length": 256, "stage": 3}),
    "sft_qlora_fp32": ("sft", 1, {"bf16": False, "finetuning_type": "qlora", **MIDDLING}),
    "sft_dora_fp32": ("sft", 1, {"bf16": False, "finetuning_type": "dora", **MIDDLING}),
    "sft_full_packed_bf16": ("sft", 1, {"bf16": True, "finetuning_type": "full", "packing": True, **MIDDLING}),
}
STEPS = 2
"""In the second the optimizer's state is there, and ZeRO-3 gathers ahead."""

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def measure(work: Path, names: list[str] | None = None, layers: int = LAYERS) -> list[Figure]:
    """Run and estimate the ``names`` of `RUNS`, by default all."""
    tiny = tiny_model(work)
    model, long_rows = _model(work, tiny, layers), _long_rows(work, tiny)
    raw: dict[str, list[float]] = {}
    errors = []
    for name in names or RUNS:
        job = _job(name, work, model, tiny, long_rows)
        estimated = _estimated(job)
        peaks, process = _peaks(job)
        raw[f"{name}_estimated_mib"] = [estimated / 2**20]
        raw[f"{name}_measured_mib"] = [peak / 2**20 for peak in peaks]
        raw[f"{name}_process_mib"] = [size / 2**20 for size in process]
        errors.append(abs(estimated / max(peaks) - 1))
        print(f"{name}: {estimated / 2**20:.0f} MiB estimated, {max(peaks) / 2**20:.0f} measured", file=sys.stderr)
    return [Figure("memory_estimate_error", max(errors), "share", raw, at_most=0.15)]


def _model(work: Path, tiny: TinyModel, layers: int) -> Path:
    """Save a model of random weights large enough that it, and not the libraries, decides the memory."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = work / f"model-of-{layers}-layers"
    if not folder.exists():
        config = LlamaConfig(num_hidden_layers=layers, tie_word_embeddings=False, **SIZES, **HEADS)
        LlamaForCausalLM(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny.model).save_pretrained(folder)
    return folder


def _long_rows(work: Path, tiny: TinyModel) -> Path:
    """Write rows whose answers are longer than any limit here, and one that ends: without any, training is refused."""
    folder = work / "long-rows"
    folder.mkdir(exist_ok=True)
    text = next(iter(sorted(tiny.text.glob("*.txt")))).read_text(encoding="utf-8")
    row = {"instruction": "Continue this code.", "output": text[:8000]}
    short = {"instruction": "Is this code?", "output": "Yes."}
    lines = [json.dumps(each) + "\n" for each in (*[row] * 63, short)]
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def _job(name: str, work: Path, model: Path, tiny: TinyModel, long_rows: Path) -> Any:
    """Make a job's folder and tokenise its data."""
    from byzerllm_trainers import recipe
    from byzerllm_trainers.job_folder import JobFolder
    from byzerllm_trainers.job_request import JobRequest, read_request

    method, ranks, keys = RUNS[name]
    rows = tiny.rows if name == "sft_fp32" else long_rows
    parameters: dict[str, Any] = {
        "pretrainedModelType": f"{method}/llama",
        "localModelDir": str(model),
        "localDataDir": str(rows if method == "sft" else tiny.text),
        **{f"{method}.{key}": value for key, value in (keys | {"max_steps": STEPS}).items() if key != "stage"},
    }
    if "stage" in keys:
        parameters["deepspeedConfig"] = {"zero_optimization": {"stage": keys["stage"]}}
    folder = JobFolder(work / "memory-jobs" / name)
    folder.create(JobRequest(parameters, "bench", ranks, False, 1, 1).as_record())
    job = recipe.Job(folder, read_request(folder))
    recipe.find(method).prepare(job)
    return job


def _estimated(job: Any) -> int:
    """Return the peak that is estimated for a worker, without its process."""
    from byzerllm_trainers import recipe
    from byzerllm_trainers.data_sample import shape_of
    from byzerllm_trainers.memory_need import Estimator, stored_bytes

    request = job.request
    method = recipe.find(request.train.method)
    plan = method.plan(job)
    stored = stored_bytes(request.train.local_model_dir)
    estimator = Estimator(lambda: method.model(job), world=request.workers, gpu=False, stored=stored)
    return estimator.need(request.loop, shape_of(plan, range(STEPS), request.workers)).peak.total


def _peaks(job: Any) -> tuple[list[int], list[int]]:
    """Run a job's ranks; return each one's peak over its process before it had a model, and that."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = Path(__file__).with_name("memory_rank.py")
    environment = os.environ | ALLOCATOR | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(job.folder.root), str(rank), str(port)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(job.request.workers)
    ]
    try:
        printed = [rank.communicate()[0].splitlines()[-1].split() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    return [int(peak) for peak, _ in printed], [int(process) for _, process in printed]
