"""What only one of the methods has."""

from typing import Any

from byzerllm_trainers import recipe
from byzerllm_trainers.engine import interface_of
from tests.unit.trainers.arguments.bench import Bench, case


@case("max_seq_length", "max_length")
def _(bench: Bench) -> None:
    for method, name in (("sft", "max_seq_length"), ("sfft", "max_length")):
        job = bench.job(method, 40, **{name: 48})
        recipe.find(method).prepare(job)
        plan = recipe.find(method).plan(job)
        widths = [plan.step(i, 0).batches[0].input_ids.shape[1] for i in range(plan.steps_per_epoch)]
        assert max(widths) == (47 if method == "sft" else 48)


@case("lora_rank", "lora_alpha", "lora_dropout")
def _(bench: Bench) -> None:
    for method in ("sft", "dpo"):
        job = bench.job(method, lora_rank=8, lora_alpha=24, lora_dropout=0.25)
        model: Any = recipe.find(method).model(job)
        layer = model.get_base_model().model.layers[0].self_attn.q_proj
        assert layer.lora_A["default"].weight.shape[0] == 8
        assert layer.scaling["default"] == 3.0
        assert layer.lora_dropout["default"].p == 0.25


@case("tokenizer_path")
def _(bench: Bench) -> None:
    other = bench.root / "tokenizer"
    other.mkdir()
    for file in bench.model_dir.glob("tokenizer*"):
        (other / file.name).write_bytes(file.read_bytes())
    job = bench.job("sfft", tokenizer_path=str(other))
    assert recipe.find("sfft").tokenizer(job).name_or_path == str(other)


@case("setup_nccl_socket_ifname_by_ip")
def _(bench: Bench) -> None:
    """The worker then joins over this interface (see `engine.join_group`)."""
    assert bench.job("sfft", setup_nccl_socket_ifname_by_ip=True).request.train.sfft.setup_nccl_socket_ifname_by_ip
    assert interface_of("127.0.0.1")


@case("packing")
def _(bench: Bench) -> None:
    job = bench.job(rows=40, packing=True, max_seq_length=128)
    recipe.find("sft").prepare(job)
    plan = recipe.find("sft").plan(job)
    plain = bench.job(rows=40, max_seq_length=128)
    recipe.find("sft").prepare(plain)
    assert plan.steps_per_epoch < recipe.find("sft").plan(plain).steps_per_epoch
    assert plan.step(0, 0).batches[0].position_ids is not None
    assert recipe.find("sft").model(job).training
