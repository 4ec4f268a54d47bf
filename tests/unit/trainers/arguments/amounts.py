"""How much is computed at a time, and how long."""

import pytest
import torch

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import recipe
from byzerllm_trainers.model_options import check_compiler
from byzerllm_trainers.packing import GroupedRows, Layout
from tests.tiny import make_model
from tests.unit.trainers.arguments.bench import Bench, case
from tests.unit.trainers.helpers import Ran, examples, settings, shards_of


@case("max_steps")
def _(bench: Bench) -> None:
    assert [bench.steps_of(max_steps=3), bench.steps_of(max_steps="-1"), bench.steps_of(max_steps="none")] == [3, 2, 2]


@case("per_device_train_batch_size", "gradient_accumulation_steps")
def _(bench: Bench) -> None:
    whole = bench.run()
    parts = bench.run(per_device_train_batch_size=2, gradient_accumulation_steps=4)
    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)
    assert bench.steps_of(per_device_train_batch_size=2) == 4 * bench.steps_of(per_device_train_batch_size=8)
    few = {"per_device_train_batch_size": 2}
    assert bench.steps_of(gradient_accumulation_steps=4, **few) == bench.steps_of(per_device_train_batch_size=8)


@case("seed", "data_seed")
def _(bench: Bench) -> None:
    keys = {"per_device_train_batch_size": 2, "lora": True, "dropout": 0.3, "group_by_length": False}

    def seen(**seeds: int) -> tuple[list[int], str]:
        ran = bench.run(4, **keys, **seeds)
        return [record["tokens"] for record in ran.records], ran.digest()

    first, other_seed, other_order = seen(seed=1), seen(seed=2, data_seed=1), seen(seed=1, data_seed=2)
    assert first == seen(seed=1)
    assert other_seed[0] == first[0], "the same order of the data"
    assert other_seed[1] != first[1], "other dropout"
    assert other_order[0] != first[0]
    assert seen(seed=2)[0] != first[0], "without data_seed, seed decides the order too"


@case("bf16")
def _(bench: Bench) -> None:
    for wish, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        ran = bench.run(1, bf16=wish)
        assert {p.dtype for p in ran.engine.module.parameters()} == {dtype}


@case("fp16")
def _(bench: Bench) -> None:
    with pytest.raises(ByzerError, match="fp16 needs a GPU") as caught:
        bench.run(fp16=True)
    assert 'bf16="true"' in caught.value.do
    with pytest.raises(ByzerError, match="fp16 and bf16 are both asked for"):
        settings(fp16=True, bf16=True)


@case("gradient_checkpointing")
def _(bench: Bench) -> None:
    plain, saving = bench.run(lora=True), bench.run(lora=True, gradient_checkpointing=True)
    assert saving.losses == pytest.approx(plain.losses, rel=1e-5)

    def recomputes(ran: Ran) -> bool:
        return any(getattr(module, "gradient_checkpointing", False) for module in ran.engine.module.modules())

    assert (recomputes(plain), recomputes(saving)) == (False, True)


@case("torch_compile")
def _(bench: Bench) -> None:
    from torch._dynamo.utils import counters

    bench.model_dir = make_model(bench.root / "one-layer", hidden=16, layers=1)
    plain = bench.run(1, lora=True)
    counters.clear()
    compiled = bench.run(1, lora=True, torch_compile=True)
    assert counters["stats"]["unique_graphs"] > 0
    assert compiled.records[0]["grad_norm"] == pytest.approx(plain.records[0]["grad_norm"], rel=1e-3)
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-4)
    bench.monkeypatch.setenv("PATH", "")
    with pytest.raises(ByzerError, match=r"torch_compile needs a C\+\+ compiler"):
        check_compiler()
    with pytest.raises(ByzerError, match="ZeRO stage 3 do not go together"):
        settings(deepspeed={"zero_optimization": {"stage": 3}}, torch_compile=True)


@case("group_by_length")
def _(bench: Bench) -> None:
    shards = shards_of(bench.root, examples([5, 50] * 40))

    def spread(grouped: bool) -> float:
        plan = GroupedRows(shards, Layout(rows=8, accumulation=1, world=1, seed=1), grouped=grouped)
        steps = [plan.step(index, 0) for index in range(plan.steps_per_epoch)]
        padded = sum(batch.input_ids.size for step in steps for batch in step.batches)
        assert sum(step.tokens for step in steps) == sum(shards.lengths), "each row once, either way"
        return padded / sum(shards.lengths)

    assert spread(True) < 1.1
    assert spread(False) > 1.4
    job = bench.job(group_by_length=False)
    recipe.find("sft").prepare(job)
    plain = recipe.find("sft").plan(job).step(0, 0).batches[0].input_ids
    assert plain.shape[0] == 8


@case("num_train_epochs", "epoches")
def _(bench: Bench) -> None:
    for method in ("sft", "dpo"):
        assert [bench.steps_of(method, num_train_epochs=n) for n in (1, 2.5)] == [2, 5]
    once = bench.steps_of("sfft", epoches=1, max_length=16)
    assert [bench.steps_of("sfft", **{name: 3}, max_length=16) for name in ("epoches", "num_train_epochs")] == [
        3 * once
    ] * 2


@case("steps_per_epoch")
def _(bench: Bench) -> None:
    assert bench.steps_of("sfft", epoches=2, steps_per_epoch=3) == 6
