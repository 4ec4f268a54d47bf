"""Training from scratch, and rows for new tokens."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer

from byzerllm_adapters.baichuan import BaiChuanConfig, BaiChuanForCausalLM
from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import recipe
from byzerllm_trainers.export import export_model
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.pretrain import GET_MODEL_FILE
from tests.unit.trainers.helpers import examples, load, run, settings

pytestmark = pytest.mark.usefixtures("group")

ROWS = examples([40, 7, 23, 12])
TEXT = pa.table({"text": ["The red stone.", "The blue house."]})
PARTITIONED = {"stage": 3, "stage3_param_persistence_threshold": 0}
STD = 0.05
"""Not transformers' default, so that the tests see the configuration's."""


@pytest.fixture
def bare(tiny_model: Path, tmp_path: Path) -> Path:
    """A folder with a configuration and a tokenizer, and no weights."""
    shutil.copytree(tiny_model, folder := tmp_path / "bare")
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"initializer_range": STD}))
    return folder


def job_on(make_job: Any, folder: Path, method: str = "sfft", family: str = "llama", **keys: Any) -> recipe.Job:
    job: recipe.Job = make_job(method, TEXT, **keys)
    job.request.parameters.update(localModelDir=str(folder), pretrainedModelType=f"{method}/{family}")
    return job


def deviations(model: Any) -> dict[str, float]:
    """The standard deviation of each matrix."""
    return {name: float(weight.std()) for name, weight in model.named_parameters() if weight.ndim >= 2}


def partitioned_before_the_first_step(model: Any, folder: JobFolder) -> dict[str, float]:
    """What the weights are as the engine of ZeRO-3 holds them: seen through a step that changes nothing."""
    chosen = settings("sfft", deepspeed={"zero_optimization": PARTITIONED}, learning_rate=1e-12, weight_decay=0)
    ran = run(model, ROWS, chosen, 1, folder)
    assert all(hasattr(weight, "ds_id") for weight in ran.engine.module.parameters()), "not partitioned"
    export_model(ran.engine, folder.model, 0)
    return deviations(load(folder.model))


def test_new_weights_keep_the_configurations_deviation_under_zero_3(
    make_job: Any, bare: Path, folder: JobFolder
) -> None:
    """Models built inside `deepspeed.zero.Init` had embeddings with a deviation of 1."""
    model = recipe.find("sfft").model(job_on(make_job, bare, from_scratch=True))
    drawn = deviations(model)
    assert drawn == {name: pytest.approx(STD, rel=0.1) for name in drawn}
    assert partitioned_before_the_first_step(model, folder) == pytest.approx(drawn, rel=1e-4)


def test_so_do_those_of_a_model_that_a_function_builds(make_job: Any, folder: JobFolder) -> None:
    """`get_model` with `BaiChuanConfig`, as the documents have it."""
    from ray import cloudpickle

    def get_model() -> Any:
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        return BaiChuanForCausalLM(BaiChuanConfig(vocab_size=384, initializer_range=STD, **sizes))

    job = make_job("sfft", TEXT)
    (job.folder.root / GET_MODEL_FILE).write_bytes(cloudpickle.dumps(get_model))
    model = recipe.find("sfft").model(job)
    assert type(model).__name__ == "BaiChuanForCausalLM"
    drawn = deviations(model)
    pad = "model.embed_tokens.weight"  # its row of the padding token is zero
    assert {n: d for n, d in drawn.items() if n != pad} == {n: pytest.approx(STD, rel=0.1) for n in drawn if n != pad}
    chosen = settings("sfft", deepspeed={"zero_optimization": PARTITIONED}, learning_rate=1e-2)
    losses = run(model, ROWS, chosen, 6, folder).losses
    assert losses[-1] < losses[0]


def test_a_function_that_builds_something_else_is_an_error(make_job: Any) -> None:
    from ray import cloudpickle

    job = make_job("sfft", TEXT)
    (job.folder.root / GET_MODEL_FILE).write_bytes(cloudpickle.dumps(lambda: torch.nn.Linear(2, 2)))
    with pytest.raises(ByzerError, match="get_model returned a Linear"):
        recipe.find("sfft").model(job)


CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2": {"num_key_value_heads": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "gpt_neox": {},
    "baichuan": {},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_any_configuration_that_transformers_knows_begins_with_new_weights(
    make_job: Any, bare: Path, folder: JobFolder, kind: str
) -> None:
    from transformers import AutoConfig

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        kind, vocab_size=384, pad_token_id=None, **(sizes if kind != "gpt2" else {}), **CONFIGS[kind]
    )
    config.save_pretrained(bare)
    family = kind if kind == "baichuan" else "auto"
    model = recipe.find("sfft").model(job_on(make_job, bare, family=family, from_scratch=True))
    assert model.config.model_type == kind
    losses = run(model, ROWS, settings("sfft", learning_rate=1e-2, per_device_train_batch_size=4), 6, folder).losses
    assert losses[-1] < losses[0]
    assert losses[0] == pytest.approx(5.95, abs=0.3), "the logarithm of the vocabulary's size"


def test_new_weights_follow_from_the_seed_and_the_job_says_that_they_are_new(make_job: Any, bare: Path) -> None:
    job = job_on(make_job, bare, from_scratch=True)
    first, again, other = (torch.manual_seed(seed) and recipe.find("sfft").model(job) for seed in (1, 1, 2))
    assert torch.equal(first.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    assert "new weights" in recipe.find("sfft").about_model(job)["message"]
    assert "message" not in recipe.find("sfft").about_model(job_on(make_job, bare))


def test_without_the_wish_missing_weights_are_an_error(make_job: Any, bare: Path) -> None:
    with pytest.raises(ByzerError, match="does not load"):
        recipe.find("sfft").model(job_on(make_job, bare))


# -- new tokens ----------------------------------------------------------------------------------------------


@pytest.fixture
def larger(tiny_model: Path, tmp_path: Path) -> Path:
    """The model with a tokenizer that has three tokens more than it has embeddings."""
    shutil.copytree(tiny_model, folder := tmp_path / "larger")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    spare = [f"<spare {i}>" for i in range(384 - len(tokenizer))]  # the model has rows for these
    tokenizer.add_tokens([*spare, "<red>", "<blue>", "<green>"])
    tokenizer.save_pretrained(folder)
    return folder


NEW = pa.table({"text": ["The <red> stone.", "The <blue> house."]})
OLD_ANSWERS = pa.table({"instruction": ["The stone?"], "output": ["The house."]})
NEW_ANSWERS = pa.table({"instruction": ["The stone?"], "output": ["The <red> stone."]})


def prepared(make_job: Any, folder: Path, method: str, table: pa.Table, **keys: Any) -> recipe.Job:
    job = make_job(method, table, **keys)
    job.request.parameters["localModelDir"] = str(folder)
    recipe.find(method).prepare(job)
    return job


@pytest.mark.parametrize("method", ["sft", "sfft"])
def test_a_token_without_an_embedding_stops_the_job_and_is_named(make_job: Any, larger: Path, method: str) -> None:
    job = prepared(make_job, larger, method, NEW if method == "sfft" else NEW_ANSWERS)
    with pytest.raises(ByzerError, match=r"token '<(red|blue)>' .* embeddings for 384 tokens") as caught:
        recipe.find(method).model(job)
    assert 'resize_vocab="true"' in caught.value.do
    assert len(caught.value.render()) <= 5


def test_a_larger_tokenizer_whose_new_tokens_never_occur_is_no_error(make_job: Any, larger: Path) -> None:
    """Llama 2 with a padding token of its own is such a one."""
    model = recipe.find("sft").model(prepared(make_job, larger, "sft", OLD_ANSWERS))
    assert model.get_input_embeddings().num_embeddings == 384


@pytest.mark.parametrize("method", ["sft", "sfft"])
def test_resizing_gives_new_tokens_the_mean_and_leaves_the_others(
    make_job: Any, larger: Path, tiny_model: Path, folder: JobFolder, method: str
) -> None:
    keys: dict[str, Any] = {"resize_vocab": True} | ({"finetuning_type": "full"} if method == "sft" else {})
    job = prepared(make_job, larger, method, NEW if method == "sfft" else NEW_ANSWERS, **keys)
    model = recipe.find(method).model(job)
    before = load(tiny_model)
    for new, old in (
        (model.get_input_embeddings().weight, before.get_input_embeddings().weight),
        (model.lm_head.weight, before.lm_head.weight),
    ):
        assert new.shape == (387, 32)
        assert torch.equal(new[:384], old)
        assert torch.allclose(new[384:], old.mean(0).expand(3, -1), atol=1e-3)
    ran = run(model, ROWS, settings(method, **keys), 2, folder)
    export_model(ran.engine, folder.model, 0)
    assert load(folder.model).config.vocab_size == 387


def test_a_smaller_tokenizer_takes_no_rows_away(make_job: Any, tiny_model: Path) -> None:
    """Many models have more rows than tokens, for speed."""
    model = load(tiny_model)
    model.resize_token_embeddings(400)
    model.save_pretrained(tiny_model.parent / "padded")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tiny_model.parent / "padded")
    job = prepared(make_job, tiny_model.parent / "padded", "sfft", TEXT, resize_vocab=True)
    assert recipe.find("sfft").model(job).config.vocab_size == 400
