import json
from typing import Any

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.parameters import read
from byzerllm_trainers.loop_settings import LoopSettings, loop_settings
from byzerllm_trainers.train_parameters import TrainParameters


def settings(deepspeed: dict[str, Any] | None = None, method: str = "sft", **keys: object) -> LoopSettings:
    raw: dict[str, Any] = {"pretrainedModelType": f"{method}/llama", "localModelDir": "m"}
    raw |= {f"{method}.{key}": value for key, value in keys.items()}
    if deepspeed is not None:
        raw["deepspeedConfig"] = json.dumps(deepspeed)
    return loop_settings(read(TrainParameters, raw))


EVERYTHING = {
    "train_micro_batch_size_per_gpu": 3,
    "gradient_accumulation_steps": 5,
    "gradient_clipping": 0.5,
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-5, "betas": [0.8, 0.9], "eps": 1e-6, "weight_decay": 0.2}},
    "zero_optimization": {"stage": 3, "overlap_comm": True},
    "wall_clock_breakdown": False,
}


def test_what_nobody_says_comes_from_the_defaults() -> None:
    found = settings()
    assert (found.rows, found.accumulation, found.clip, found.bf16) == (8, 1, 1.0, None)
    assert found.learning_rate == 2e-4
    assert found.deepspeed == {"zero_optimization": {"stage": 0}}


def test_full_training_partitions_its_optimizer_and_has_its_own_defaults() -> None:
    found = settings(method="sfft")
    assert (found.zero_stage, found.learning_rate, found.betas) == (2, 3e-4, (0.9, 0.95))


def test_deepspeeds_own_configuration_is_taken() -> None:
    found = settings(EVERYTHING)
    assert (found.rows, found.accumulation, found.clip, found.bf16) == (3, 5, 0.5, True)
    assert (found.learning_rate, found.betas, found.epsilon, found.weight_decay) == (1e-5, (0.8, 0.9), 1e-6, 0.2)
    assert found.zero_stage == 3
    assert found.deepspeed == {
        "zero_optimization": {"stage": 3, "overlap_comm": True},
        "wall_clock_breakdown": False,
    }


def test_a_stage_is_added_to_a_zero_section_without_one() -> None:
    found = settings({"zero_optimization": {"overlap_comm": True}}, method="sfft")
    assert found.deepspeed["zero_optimization"] == {"stage": 2, "overlap_comm": True}


def test_keys_that_agree_with_deepspeeds_are_no_contradiction() -> None:
    found = settings(EVERYTHING, per_device_train_batch_size=3, learning_rate=1e-5, bf16=True, adam_beta1=0.8)
    assert (found.rows, found.learning_rate) == (3, 1e-5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("per_device_train_batch_size", 8),  # the default, but written
        ("gradient_accumulation_steps", 2),
        ("learning_rate", 2e-5),
        ("adam_beta2", 0.95),
        ("adam_epsilon", 1e-8),
        ("weight_decay", 0.0),
        ("max_grad_norm", 1.0),
        ("bf16", False),
    ],
)
def test_two_places_that_disagree_are_refused(key: str, value: object) -> None:
    with pytest.raises(ByzerError, match=rf"sft\.{key} is .*, but deepspeedConfig says"):
        settings(EVERYTHING, **{key: value})


def test_auto_means_our_defaults_wherever_it_stands() -> None:
    found = settings(
        {
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "gradient_clipping": "auto",
            "train_batch_size": "auto",
            "bf16": {"enabled": "auto"},
            "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "weight_decay": "auto"}},
            "zero_optimization": {"stage": 3, "reduce_bucket_size": "auto"},
        },
        learning_rate=5e-5,
    )
    assert (found.rows, found.accumulation, found.clip, found.bf16) == (8, 1, 1.0, None)
    assert (found.learning_rate, found.betas) == (5e-5, (0.9, 0.999))
    assert found.deepspeed == {"zero_optimization": {"stage": 3}}


@pytest.mark.parametrize(
    ("key", "near"),
    [("zero_optimisation", "zero_optimization"), ("gradient_cliping", "gradient_clipping"), ("bf17", "bf16")],
)
def test_an_unknown_key_is_named_with_the_nearest_one(key: str, near: str) -> None:
    with pytest.raises(ByzerError, match=f'knows no key "{key}"') as caught:
        settings({key: {}})
    assert f'did you mean "{near}"?' in caught.value.do


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"fp16": {"enabled": True}, "bf16": {"enabled": True}}, "fp16 and bf16 are both asked for"),
        ({"optimizer": {"type": "Lamb"}}, 'optimizer "Lamb" is not offered'),
        ({"optimizer": {"params": {"betas": [0.9]}}}, '"betas" is'),
        ({"scheduler": {"type": "WarmupLR"}}, '"scheduler" is not used here'),
        ({"zero_optimization": {"stage": 4}}, "no ZeRO stage 4"),
        ({"zero_optimization": 2}, '"zero_optimization" is 2'),
        ({"bf16": True}, '"bf16" is True'),
        ({"train_micro_batch_size_per_gpu": 0}, 'deepspeedConfig: train_micro_batch_size_per_gpu="0" is out of range'),
        ({"gradient_accumulation_steps": "many"}, 'gradient_accumulation_steps="many" is not a whole number'),
        ({"optimizer": {"params": {"lr": -1.0}}}, "deepspeedConfig: optimizer.params.lr"),
    ],
)
def test_what_could_not_train_is_refused_before_anything_starts(config: dict[str, Any], what: str) -> None:
    with pytest.raises(ByzerError) as caught:
        settings(config)
    assert what in str(caught.value)
    assert len(caught.value.render()) <= 5


def test_fp16_keeps_its_options_for_loss_scaling() -> None:
    found = settings({"fp16": {"enabled": True, "initial_scale_power": 8}})
    assert (found.fp16, found.bf16, found.deepspeed["fp16"]) == (True, False, {"initial_scale_power": 8})
    assert (found.zero_stage, settings(fp16=True, method="sfft").zero_stage) == (1, 2)
    with pytest.raises(ByzerError, match="fp16 does not train right at ZeRO stage 0"):
        settings({"zero_optimization": {"stage": 0}}, fp16=True)


def test_fp16_that_is_switched_off_is_no_wish_for_it() -> None:
    assert "fp16" not in settings({"fp16": {"enabled": False}}).deepspeed


@pytest.mark.parametrize(("schedule", "middle"), [("cosine", 0.5), ("linear", 0.5), ("constant", 1.0)])
def test_the_learning_rate_rises_to_its_peak_and_then_follows_its_schedule(schedule: str, middle: float) -> None:
    found = settings(lr_scheduler_type=schedule, warmup_steps=4, learning_rate=1.0)
    rates = [found.learning_rate_at(step, 24) for step in range(25)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[14] == pytest.approx(middle)
    assert rates[24] == pytest.approx(1.0 if schedule == "constant" else 0.0)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert min(rates[:24]) > 0


def test_warmup_steps_win_over_the_ratio_and_zero_of_them_start_at_the_peak() -> None:
    assert settings(warmup_steps=0, learning_rate=1.0).learning_rate_at(0, 10) == 1.0
    by_ratio = settings(warmup_ratio=0.25, learning_rate=1.0)
    assert [by_ratio.learning_rate_at(step, 10) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_a_run_of_one_step_learns() -> None:
    assert settings(learning_rate=1.0).learning_rate_at(0, 1) > 0.4
