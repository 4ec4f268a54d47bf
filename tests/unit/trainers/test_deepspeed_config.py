"""A deepspeedConfig is checked as a whole before anything starts."""

import json
from typing import Any

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.parameters import read
from byzerllm_trainers.deepspeed_config import REFUSED, check_batch_size
from byzerllm_trainers.loop_settings import LoopSettings, loop_settings
from byzerllm_trainers.train_parameters import TrainParameters

OFFLOAD = {"device": "cpu", "pin_memory": True}


def settings(config: dict[str, Any], method: str = "sfft", **keys: object) -> LoopSettings:
    raw: dict[str, Any] = {"pretrainedModelType": f"{method}/llama", "localModelDir": "m"}
    raw |= {f"{method}.{key}": value for key, value in keys.items()}
    return loop_settings(read(TrainParameters, raw | {"deepspeedConfig": json.dumps(config)}))


def error(config: dict[str, Any], **keys: object) -> ByzerError:
    with pytest.raises(ByzerError) as caught:
        settings(config, **keys)
    assert len(caught.value.render()) <= 5
    return caught.value


@pytest.mark.parametrize(
    ("config", "key", "near"),
    [
        ({"gradient_cliping": 1.0}, "gradient_cliping", "gradient_clipping"),
        ({"zero_optimization": {"stge": 2}}, "zero_optimization.stge", "stage"),
        ({"zero_optimization": {"overlap_com": True}}, "zero_optimization.overlap_com", "overlap_comm"),
        (
            {"zero_optimization": {"stage3_max_live_params": 1}},
            "zero_optimization.stage3_max_live_params",
            "stage3_max_live_parameters",
        ),
        (
            {"zero_optimization": {"stage": 3, "offload_param": {"devise": "cpu"}}},
            "zero_optimization.offload_param.devise",
            "device",
        ),
        (
            {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu", "pin_memry": True}}},
            "zero_optimization.offload_optimizer.pin_memry",
            "pin_memory",
        ),
        ({"bf16": {"enable": True}}, "bf16.enable", "enabled"),
        ({"fp16": {"enabled": False, "initial_scale": 8}}, "fp16.initial_scale", "initial_scale_power"),
        ({"tensorboard": {"enabled": True, "jobname": "x"}}, "tensorboard.jobname", "job_name"),
        ({"optimizer": {"type": "AdamW", "parms": {}}}, "optimizer.parms", "params"),
        ({"optimizer": {"params": {"weight_decy": 0.1}}}, "optimizer.params.weight_decy", "weight_decay"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_unknown_key_at_any_depth_is_named_with_the_nearest(config: dict[str, Any], key: str, near: str) -> None:
    found = error(config)
    assert f'DeepSpeed knows no key "{key}"' in found.what
    assert f'did you mean "{near}"?' in found.do


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"zero_optimization": {"stage": 2, "overlap_comm": "maybe"}}, "zero_optimization.overlap_comm"),
        ({"zero_optimization": {"stage": 2, "reduce_bucket_size": -1}}, "zero_optimization.reduce_bucket_size"),
        (
            {"zero_optimization": {"stage": 3, "offload_param": {"device": "gpu"}}},
            "zero_optimization.offload_param.device",
        ),
        ({"tensorboard": {"enabled": "perhaps"}}, "tensorboard.enabled"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_that_is_not_possible_is_named_with_its_place(config: dict[str, Any], place: str) -> None:
    assert f'"{place}" is' in error(config).what


@pytest.mark.parametrize("part", ["offload_optimizer", "offload_param"])
def test_offloading_to_anything_but_main_memory_is_refused(part: str) -> None:
    found = error({"zero_optimization": {"stage": 3, part: {"device": "nvme", "nvme_path": "/disk"}}})
    assert found.what == f"deepspeedConfig: \"{part}\" to 'nvme' is not offered"


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"gradient_clipping": "abc"}, "gradient_clipping"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps"),
        ({"optimizer": {"type": "AdamW", "params": {"lr": "high"}}}, "optimizer.params.lr"),
        ({"bf16": {"enabled": "perhaps"}}, "bf16"),
    ],
)
def test_a_value_that_is_ours_too_is_named_as_it_was_written(config: dict[str, Any], name: str) -> None:
    what = error(config).what
    assert what.startswith("deepspeedConfig: ")
    assert name in what
    assert "max_grad_norm" not in what


@pytest.mark.parametrize("name", ["zero_optimization", "bf16", "fp16", "tensorboard", "optimizer"])
def test_a_section_that_is_no_object_is_an_error(name: str) -> None:
    assert f'"{name}" is 7' in error({name: 7}).what


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_what_the_loop_decides_is_refused_with_what_to_write_instead(key: str) -> None:
    found = error({key: {"enabled": True}})
    assert f'"{key}" is not used here' in found.what
    assert found.do == REFUSED[key]
    settings({key: {"enabled": False}})  # says that it is not wanted


def test_the_schedule_and_the_optimizer_are_refused_by_name() -> None:
    assert "lr_scheduler_type" in error({"scheduler": {"type": "WarmupLR", "params": {}}}).do
    assert "write optim" in error({"optimizer": {"type": "OneBitAdam"}}).do
    assert error({"optimizer": {"type": "Adamm"}}).do == 'did you mean "Adam"?'
    assert error({"optimizer": {"type": "AdanW"}}).do == 'did you mean "AdamW"?'
    assert "adam_w_mode" in error({"optimizer": {"type": "Adam", "params": {"adam_w_mode": False}}}).what
    assert "zero_force_ds_cpu_optimizer" in error({"zero_force_ds_cpu_optimizer": True}).what


@pytest.mark.parametrize(
    ("config", "fits"),
    [
        ({}, True),
        ({"train_batch_size": "auto"}, True),
        ({"train_batch_size": 24}, True),
        ({"train_batch_size": 16}, False),
        ({"train_batch_size": "24"}, False),
    ],
    ids=str,
)
def test_a_train_batch_size_that_contradicts_the_other_numbers_is_refused(config: dict[str, Any], fits: bool) -> None:
    numbers = {"rows": 4, "accumulation": 3, "workers": 2}
    if fits:
        check_batch_size(config, **numbers)
        return
    with pytest.raises(ByzerError, match=r"4 rows × 3 accumulation steps × 2 workers are 24") as caught:
        check_batch_size(config, **numbers)
    assert "train_micro_batch_size_per_gpu" in caught.value.do


def test_a_train_batch_size_does_not_reach_deepspeed() -> None:
    assert "train_batch_size" not in settings({"train_batch_size": 24}).deepspeed


ORIGINAL = {
    "gradient_accumulation_steps": 1,
    "train_micro_batch_size_per_gpu": 1,
    "prescale_gradients": False,
    "zero_allow_untested_optimizer": True,
    "optimizer": {
        "type": "AdamW",
        "params": {"lr": 1e-8, "eps": 1.0e-8, "betas": [0.9, 0.95], "weight_decay": 0.1},
    },
    "tensorboard": {"enabled": True},
    "zero_optimization": {
        "stage": 3,
        "offload_param": OFFLOAD,
        "offload_optimizer": OFFLOAD,
        "overlap_comm": True,
        "stage3_max_live_parameters": 1e9,
        "stage3_max_reuse_distance": 1e9,
        "stage3_prefetch_bucket_size": 5e8,
        "stage3_param_persistence_threshold": 1e6,
        "sub_group_size": 1e12,
        "reduce_bucket_size": "auto",
        "stage3_gather_16bit_weights_on_model_save": True,
    },
    "steps_per_print": 16,
    "gradient_clipping": 1.0,
    "wall_clock_breakdown": True,
    "bf16": {"enabled": True},
}
"""As Byzer-LLM's documents and DeepSpeed's tutorials have it."""


def test_a_usual_configuration_is_taken_as_it_is() -> None:
    found = settings(ORIGINAL)
    assert (found.zero_stage, found.rows, found.bf16, found.learning_rate) == (3, 1, True, 1e-8)
    assert found.deepspeed["zero_optimization"]["offload_param"] == OFFLOAD


def test_options_of_bf16_reach_deepspeed() -> None:
    assert settings({"bf16": {"enabled": True, "immediate_grad_update": True}}).deepspeed["bf16"] == {
        "immediate_grad_update": True
    }
    assert "bf16" not in settings({"bf16": {"enabled": True}}).deepspeed


def test_no_section_that_deepspeed_has_a_model_of_is_imported_for_a_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing DeepSpeed takes seconds, which a kernel need not wait for."""
    from byzerllm_trainers import deepspeed_sections

    def refuse() -> None:
        raise AssertionError("imported")

    monkeypatch.setattr(deepspeed_sections, "_models", refuse)
    assert settings({"gradient_clipping": 0.5, "optimizer": {"params": {"lr": 1e-5}}}).clip == 0.5
