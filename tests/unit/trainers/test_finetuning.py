"""LoRA, DoRA, QLoRA and all weights: what each changes, how it resumes, and that its result is what was trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from byzerllm_adapters import causal_lm
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.loading import load_model
from byzerllm_trainers import recipe
from byzerllm_trainers.export import export_model
from byzerllm_trainers.finetuning import check_modules
from byzerllm_trainers.job_folder import JobFolder
from tests.tiny import instructions, make_model
from tests.unit.trainers.helpers import Ran, examples, run, settings

pytestmark = [pytest.mark.usefixtures("group"), pytest.mark.slow]

ROWS = examples([40, 7, 23, 12])
IDS = torch.tensor([[5, 80, 200, 9, 33, 7]])
ADAPTERS = ["lora", "dora", "qlora"]
METHODS = [*ADAPTERS, "full"]
PARTITIONED = {"stage": 3, "stage3_param_persistence_threshold": 0}
"""Below DeepSpeed's own threshold of 100,000 numbers every weight of a tiny model would stay whole."""


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough for bitsandbytes: its blocks are of 64 numbers, and it packs none that is wider than a row."""
    return make_model(tmp_path_factory.mktemp("models") / "wide", hidden=64)


@pytest.fixture
def model_of(make_job: Any) -> Callable[..., Any]:
    """The model that a cell with these keys trains; the same at every call."""

    def make(kind: str, **keys: Any) -> Any:
        job = make_job(
            "sft", pa.table({"instruction": ["a"], "output": ["b"]}), finetuning_type=kind, bf16=False, **keys
        )
        torch.manual_seed(3)
        return recipe.find("sft").model(job)

    return make


@pytest.fixture
def new_folder(tmp_path: Path) -> Callable[[str], JobFolder]:
    def make(name: str) -> JobFolder:
        folder = JobFolder(tmp_path / name)
        folder.create({})
        return folder

    return make


def trained(
    model: Any, folder: JobFolder, total: int = 6, *, stop_at: int = 0, zero: dict[str, Any] | None = None, **keys: Any
) -> Ran:
    held_out = keys.pop("held_out", None)
    keys = {"per_device_train_batch_size": 2, "learning_rate": 2e-2, "save_total_limit": 9, **keys}
    chosen = settings(deepspeed={"zero_optimization": zero or {"stage": 0}}, **keys)
    return run(model, ROWS, chosen, total, folder, should_stop=lambda step: step == stop_at, held_out=held_out)


def logits(model: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("kind", METHODS)
def test_the_loss_falls_and_the_right_weights_change(
    model_of: Callable[..., Any], folder: JobFolder, kind: str
) -> None:
    model = model_of(kind)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = trained(model, folder, 12).losses
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert sum(losses[-2:]) < sum(losses[:2])
    if kind == "full":
        assert changed == set(before)
    else:
        marks = ("lora_A", "lora_B", *(("lora_magnitude_vector",) if kind == "dora" else ()))
        assert changed == {name for name in before if any(mark in name for mark in marks)}
        assert len(changed) == 2 * 7 * len(marks), "two layers of seven linear ones"


def test_a_qlora_base_is_nf4_doubly_quantised_and_the_head_is_not(model_of: Callable[..., Any]) -> None:
    from bitsandbytes.nn import Linear4bit

    base = model_of("qlora").get_base_model()
    four_bit = {name for name, module in base.named_modules() if isinstance(module, Linear4bit)}
    assert len(four_bit) == 2 * 7
    weight = base.model.layers[0].self_attn.q_proj.weight
    assert (weight.quant_type, weight.compress_statistics, weight.dtype) == ("nf4", True, torch.uint8)
    assert base.lm_head.weight.dtype == base.model.norm.weight.dtype == torch.float32


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_evaluating_a_four_bit_model_on_the_way_changes_nothing(
    model_of: Callable[..., Any], new_folder: Callable[[str], JobFolder], bf16: bool
) -> None:
    """bitsandbytes would repack its weights for computing without gradients, and the next step could not read them."""
    plain = trained(model_of("qlora"), new_folder("plain"), bf16=bf16)
    looking = trained(model_of("qlora"), new_folder("looking"), bf16=bf16, held_out=ROWS, eval_steps=1, eval_ratio=0.5)
    assert all("eval_loss" in record for record in looking.records)
    assert looking.losses == plain.losses


@pytest.mark.parametrize(
    ("kind", "zero"),
    [(kind, {"stage": stage}) for kind in METHODS for stage in (0, 2)]
    + [(kind, PARTITIONED) for kind in METHODS if kind != "qlora"],  # which is refused
    ids=lambda value: str(value["stage"]) if isinstance(value, dict) else value,
)
def test_a_result_loads_in_plain_peft_or_transformers_as_it_was_trained(
    model_of: Callable[..., Any], folder: JobFolder, tiny_model: Path, kind: str, zero: dict[str, Any]
) -> None:
    ran = trained(model_of(kind), folder, zero=zero)
    export_model(ran.engine, folder.model, 0)
    expected = logits(ran.engine)
    untrained = logits(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32))
    if kind == "full":
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder.model, dtype=torch.float32)
    else:
        base = load_model(tiny_model, dtype="float32", quantization="nf4" if kind == "qlora" else None)
        loaded = PeftModel.from_pretrained(base, folder.model)
        assert loaded.peft_config["default"].base_model_name_or_path == str(tiny_model), "also with a base in 4 bits"
        assert all("lora" in name for name in load_file(folder.model / "adapter_model.safetensors"))
    exact = 5e-2 if kind == "qlora" else 1e-5  # without gradients bitsandbytes computes 4 bits otherwise, in bf16
    assert torch.allclose(logits(loaded), expected, atol=exact)
    assert not torch.allclose(untrained, expected, atol=1e-2)


def test_a_qlora_adapter_is_served_on_the_base_as_it_is_in_its_folder(
    model_of: Callable[..., Any], folder: JobFolder
) -> None:
    ran = trained(model_of("qlora"), folder)
    export_model(ran.engine, folder.model, 0)
    served = causal_lm.load_model(str(folder.model), dtype="float32")
    assert served.dtype == torch.float32
    assert torch.allclose(logits(served), logits(ran.engine), atol=0.1), "but for what four bits lose"


@pytest.mark.parametrize("kind", METHODS)
def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(
    model_of: Callable[..., Any], new_folder: Callable[[str], JobFolder], kind: str
) -> None:
    """With dropout on, as adapters have it by default."""
    whole = trained(model_of(kind), new_folder("whole"))
    broken = new_folder("broken")
    first = trained(model_of(kind), broken, stop_at=3)
    second = trained(model_of(kind), broken)
    assert first.losses + second.losses == whole.losses
    assert second.digest() == whole.digest() != first.digest()


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_checkpoint_of_an_adapter_is_as_small_as_the_adapter(
    model_of: Callable[..., Any], folder: JobFolder, kind: str
) -> None:
    trained(model_of(kind), folder)
    saved = torch.load(folder.checkpoints / "step-6" / "state" / "mp_rank_00_model_states.pt", weights_only=False)
    assert not [name for name in saved["module"] if name.endswith("embed_tokens.weight")]
    assert [name for name in saved["module"] if "lora_A" in name]


# -- where the adapter is --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "layers"),
    [
        ("q_proj", ["q_proj"]),
        ("q_proj, v_proj", ["q_proj", "v_proj"]),
        ('["mlp.up_proj"]', ["up_proj"]),
        (["lm_head"], ["lm_head"]),
        ("all-linear", ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]),
    ],
    ids=str,
)
def test_target_modules_get_the_adapter(model_of: Callable[..., Any], written: Any, layers: list[str]) -> None:
    names = {
        name.split(".lora_A")[0]
        for name, _ in model_of("lora", target_modules=written).named_parameters()
        if "lora_A" in name
    }
    assert sorted({name.rpartition(".")[2] for name in names}) == layers


@pytest.mark.parametrize("zero", [{"stage": 0}, PARTITIONED], ids=["0", "3"])
def test_modules_to_save_are_trained_whole_and_exported(
    model_of: Callable[..., Any], folder: JobFolder, tiny_model: Path, zero: dict[str, Any]
) -> None:
    model = model_of("lora", modules_to_save="lm_head,embed_tokens")
    ran = trained(model, folder, zero=zero)
    export_model(ran.engine, folder.model, 0)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    head = base.lm_head.weight.clone()
    loaded = PeftModel.from_pretrained(base, folder.model)
    assert not torch.equal(loaded.get_base_model().lm_head.modules_to_save["default"].weight, head)
    assert torch.allclose(logits(loaded), logits(ran.engine), atol=1e-5)
    assert torch.allclose(
        logits(causal_lm.load_model(str(folder.model), dtype="float32")), logits(ran.engine), atol=1e-5
    )


@pytest.mark.parametrize(
    ("keys", "what", "do"),
    [
        ({"target_modules": "q_pro"}, 'sft.target_modules: the model has no layer "q_pro"', "did you mean q_proj"),
        ({"target_modules": "W_pack"}, '"W_pack"', "name some of those"),
        ({"target_modules": "self_attn"}, '"self_attn" that LoRA changes', ""),
        ({"target_modules": "q_proj,vproj"}, '"vproj"', "v_proj"),
        ({"modules_to_save": "head"}, 'sft.modules_to_save: the model has no layer "head"', "lm_head"),
    ],
    ids=str,
)
def test_a_layer_that_is_not_there_is_named_with_the_nearest(
    model_of: Callable[..., Any], keys: dict[str, Any], what: str, do: str
) -> None:
    with pytest.raises(ByzerError) as caught:
        model_of("lora", **keys)
    assert what in caught.value.what
    assert do in caught.value.do
    assert "q_proj" in caught.value.where
    assert len(caught.value.render()) <= 5


def test_layers_are_checked_without_weights(tiny_model: Path) -> None:
    from transformers import AutoConfig

    from byzerllm_trainers.optimization_parameters import SftParameters

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny_model))
    check_modules(model, SftParameters(target_modules=["q_proj"], modules_to_save=["lm_head"]))
    with pytest.raises(ByzerError, match='no layer "query"'):
        check_modules(model, SftParameters(target_modules=["query"]))


# -- what does not go together -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"finetuning_type": "full", "lora_rank": 8}, 'lora_rank is without effect with finetuning_type="full"'),
        ({"finetuning_type": "full", "r": 8}, 'lora_rank is without effect with finetuning_type="full"'),
        ({"finetuning_type": "full", "target_modules": "q_proj"}, "target_modules is without effect"),
        ({"finetuning_type": "lora", "resize_vocab": True}, 'resize_vocab does not go with finetuning_type="lora"'),
        ({"finetuning_type": "bitfit"}, "lora, dora, qlora, full"),
        ({"target_modules": "[]"}, "target_modules"),
        ({"use_dora": True}, "is not used here"),
        ({"load_in_4bit": True}, "is not used here"),
    ],
    ids=str,
)
def test_contradictions_are_errors_by_name(keys: dict[str, Any], what: str) -> None:
    with pytest.raises(ByzerError) as caught:
        settings(**keys)
    assert what in str(caught.value)
    assert len(caught.value.render()) <= 5


def test_four_bits_and_stage_3_do_not_go_together() -> None:
    with pytest.raises(ByzerError, match=r"qlora.*stage 3 do not go together") as caught:
        settings(deepspeed={"zero_optimization": {"stage": 3}}, finetuning_type="qlora")
    assert '"stage": 2' in caught.value.do
    assert settings(deepspeed={"zero_optimization": {"stage": 2}}, finetuning_type="qlora").zero_stage == 2


def test_all_weights_have_their_own_defaults() -> None:
    """Their optimizer's state is partitioned, and the learning rate is a tenth."""
    adapter, whole = settings(), settings(finetuning_type="full")
    assert (adapter.zero_stage, adapter.learning_rate) == (0, 2e-4)
    assert (whole.zero_stage, whole.learning_rate) == (2, 2e-5)
    assert settings(finetuning_type="full", learning_rate=1e-3).learning_rate == 1e-3
    by_json = {"optimizer": {"params": {"lr": 3e-4}}}
    assert settings(deepspeed=by_json, finetuning_type="full").learning_rate == 3e-4


def test_a_job_says_what_it_is_trained_in(make_job: Any) -> None:
    table = pa.Table.from_pandas(instructions(4))
    about = {
        kind: recipe.find("sft").about_model(make_job("sft", table, finetuning_type=kind, bf16=bf16))["precision"]
        for kind, bf16 in (("qlora", True), ("lora", True), ("full", False))
    }
    assert about == {"qlora": "nf4, computed in bf16", "lora": "bf16", "full": "fp32"}
