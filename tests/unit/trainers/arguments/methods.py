"""What only one of the methods has."""

from typing import Any

import torch

from byzerllm_trainers import recipe
from byzerllm_trainers.engine import interface_of
from tests.unit.trainers.arguments.bench import Bench, case
from tests.unit.trainers.helpers import load


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
        for names in (("lora_rank", "lora_alpha", "lora_dropout"), ("r", "alpha", "dropout")):
            job = bench.job(method, **dict(zip(names, (8, 24, 0.25), strict=True)))
            model: Any = recipe.find(method).model(job)
            layer = model.get_base_model().model.layers[0].self_attn.q_proj
            assert layer.lora_A["default"].weight.shape[0] == 8
            assert layer.scaling["default"] == 3.0
            assert layer.lora_dropout["default"].p == 0.25


@case("finetuning_type")
def _(bench: Bench) -> None:
    """What each trains is in `test_finetuning`."""

    def trained(kind: str, method: str = "sft") -> set[str]:
        model = recipe.find(method).model(bench.job(method, finetuning_type=kind))
        return {name for name, weight in model.named_parameters() if weight.requires_grad}

    assert all(".lora_" in name for name in trained("lora") | trained("qlora"))
    assert any("lora_magnitude_vector" in name for name in trained("dora"))
    assert "model.embed_tokens.weight" in trained("full")
    assert all(trained(kind, "dpo") == trained(kind) for kind in ("lora", "dora", "qlora"))


@case("target_modules", "modules_to_save")
def _(bench: Bench) -> None:
    for method in ("sft", "dpo"):
        job = bench.job(method, target_modules="q_proj,v_proj", modules_to_save="lm_head")
        model: Any = recipe.find(method).model(job)
        trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
        assert {name.split(".")[-4] for name in trained if "lora" in name} == {"q_proj", "v_proj"}
        assert [name for name in trained if "lora" not in name] == [
            "base_model.model.lm_head.modules_to_save.default.weight"
        ]


@case("resize_vocab", "from_scratch")
def _(bench: Bench) -> None:
    """See `test_new_weights` for what the rows and the weights are."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bench.model_dir)
    tokenizer.add_tokens([f"<new {i}>" for i in range(385 - len(tokenizer))])
    tokenizer.save_pretrained(other := bench.root / "larger")
    for keys, rows in (({"resize_vocab": True}, 385), ({}, 384), ({"from_scratch": True, "resize_vocab": True}, 385)):
        job = bench.job("sfft", tokenizer_path=str(other), **keys)
        recipe.find("sfft").prepare(job)
        model: Any = recipe.find("sfft").model(job)
        assert model.get_input_embeddings().num_embeddings == model.config.vocab_size == rows
    stored: Any = load(bench.model_dir)
    drawn: Any = recipe.find("sfft").model(bench.job("sfft", from_scratch=True))
    assert not torch.equal(drawn.lm_head.weight, stored.lm_head.weight)


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


@case("ddp_timeout")
def _(bench: Bench) -> None:
    """The watchdog then ends a gang whose worker stands still for so long (tests/cluster/test_kills.py)."""
    assert bench.job("sfft", ddp_timeout=7).request.loop.stall_seconds == 7


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
