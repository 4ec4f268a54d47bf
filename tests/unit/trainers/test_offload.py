"""ZeRO that keeps optimizer state and parameters in the CPU's memory computes what it does without."""

from pathlib import Path
from typing import Any

import pytest
import torch

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers.job_folder import JobFolder
from tests.unit.trainers.helpers import Ran, examples, load, run, settings

pytestmark = [pytest.mark.usefixtures("group"), pytest.mark.slow]

ROWS = examples([40, 7, 23, 12, 3, 31, 18, 9])
CPU = {"device": "cpu"}
PARTITIONED = {"stage": 3, "stage3_param_persistence_threshold": 0}
CASES = [
    ({"stage": 1}, {"offload_optimizer": CPU}),
    ({"stage": 2}, {"offload_optimizer": CPU}),
    (PARTITIONED, {"offload_optimizer": CPU}),
    (PARTITIONED, {"offload_optimizer": CPU, "offload_param": CPU}),
]


def trained(model_dir: Path, root: Path, zero: dict[str, Any], method: str, stop_at: int = 0, **keys: Any) -> Ran:
    folder = JobFolder(root)
    if not folder.exists():
        folder.create({})
    keys = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 1e-2, **keys}
    lora = method == "sft" and keys.get("finetuning_type") != "full"
    chosen = settings(method, deepspeed={"zero_optimization": zero}, **keys)
    return run(load(model_dir, lora=lora), ROWS, chosen, 8, folder, should_stop=lambda step: step == stop_at)


@pytest.mark.parametrize(
    ("method", "keys"),
    [("sfft", {}), ("sft", {"finetuning_type": "full"}), ("sft", {})],
    ids=["sfft", "sft-full", "sft-lora"],
)
@pytest.mark.parametrize(("zero", "offload"), CASES, ids=["1", "2", "3", "3-with-parameters"])
def test_offloading_changes_no_loss(
    tiny_model: Path, tmp_path: Path, method: str, keys: dict[str, Any], zero: dict[str, Any], offload: dict[str, Any]
) -> None:
    kept = trained(tiny_model, tmp_path / "kept", zero, method, **keys)
    away = trained(tiny_model, tmp_path / "away", zero | offload, method, **keys)
    assert away.engine.zero_cpu_offload(), "nothing was offloaded"
    assert away.losses == pytest.approx(kept.losses, rel=1e-5)
    assert [r["grad_norm"] for r in away.records] == pytest.approx([r["grad_norm"] for r in kept.records], rel=1e-3)
    assert away.losses[-1] < (0.9 if method == "sfft" or keys else 0.99) * away.losses[0]


@pytest.mark.parametrize(("zero", "offload"), CASES[1:], ids=["2", "3", "3-with-parameters"])
def test_an_offloaded_run_resumes(
    tiny_model: Path, tmp_path: Path, zero: dict[str, Any], offload: dict[str, Any]
) -> None:
    whole = trained(tiny_model, tmp_path / "whole", zero | offload, "sfft")
    first = trained(tiny_model, tmp_path / "broken", zero | offload, "sfft", stop_at=3)
    second = trained(tiny_model, tmp_path / "broken", zero | offload, "sfft")
    assert first.losses + second.losses == whole.losses


@pytest.mark.parametrize(
    ("zero", "what", "do"),
    [
        ({"stage": 2, "offload_param": CPU}, '"offload_param" is without effect at ZeRO stage 2', '"stage": 3'),
        ({"stage": 0, "offload_optimizer": CPU}, '"offload_optimizer" is without effect at ZeRO stage 0', '"stage": 2'),
    ],
)
def test_an_offload_that_the_stage_would_pass_over_is_refused(zero: dict[str, Any], what: str, do: str) -> None:
    with pytest.raises(ByzerError) as caught:
        settings(deepspeed={"zero_optimization": zero})
    assert what in caught.value.what
    assert do in caught.value.do


def test_what_is_not_offloaded_is_no_offload() -> None:
    assert settings(deepspeed={"zero_optimization": {"stage": 0, "offload_param": {"device": "none"}}}).zero_stage == 0


def test_optimizers_that_compute_on_the_gpu_are_not_offloaded() -> None:
    with pytest.raises(ByzerError, match=r"optim=paged_adamw_8bit computes on the GPU"):
        settings(deepspeed={"zero_optimization": {"stage": 2, "offload_optimizer": CPU}}, optim="paged_adamw_8bit")


# -- what only a GPU computes ---------------------------------------------------------------------------------

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: fp16 and 8-bit optimizers")


@needs_gpu
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_losses_in_fp16_are_close_to_those_in_fp32(tiny_model: Path, tmp_path: Path, stage: int) -> None:
    half = trained(tiny_model, tmp_path / "fp16", {"stage": stage}, "sfft", fp16=True, learning_rate=1e-3)
    single = trained(tiny_model, tmp_path / "fp32", {"stage": stage}, "sfft", learning_rate=1e-3)
    assert half.losses[-1] == pytest.approx(single.losses[-1], rel=1e-2)


@needs_gpu
@pytest.mark.parametrize("optim", ["adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit"])
def test_bitsandbytes_optimizers_are_close_to_adamw(tiny_model: Path, tmp_path: Path, optim: str) -> None:
    other = trained(tiny_model, tmp_path / optim, {"stage": 0}, "sfft", optim=optim, learning_rate=1e-3)
    adamw = trained(tiny_model, tmp_path / "adamw", {"stage": 0}, "sfft", learning_rate=1e-3)
    assert other.losses[-1] == pytest.approx(adamw.losses[-1], rel=1e-2)


@needs_gpu
def test_a_model_on_a_gpu_is_offloaded_to_the_cpu(tiny_model: Path, tmp_path: Path) -> None:
    zero = PARTITIONED | {"offload_optimizer": CPU, "offload_param": CPU}
    away = trained(tiny_model, tmp_path / "away", zero, "sfft")
    assert away.losses == pytest.approx(trained(tiny_model, tmp_path / "kept", PARTITIONED, "sfft").losses, rel=1e-4)
