"""A checkpoint of any ZeRO stage becomes a folder that holds the live model's weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import recipe
from byzerllm_trainers.actions.convert import convert
from byzerllm_trainers.checkpoint import committed
from tests.tiny import instructions
from tests.unit.trainers.helpers import Ran, examples, run, settings

pytestmark = [pytest.mark.usefixtures("group"), pytest.mark.slow]

ROWS = examples([40, 7, 23, 12])


def made(steps: Iterator[str | dict[str, Any]]) -> dict[str, Any]:
    *_, record = steps
    assert isinstance(record, dict)
    return record


@pytest.fixture
def make_trained(make_job: Any) -> Any:
    """Trains a job of a method for three steps in this process; its last checkpoint is the third."""

    def trained(method: str, stage: int, **keys: Any) -> tuple[recipe.Job, Ran, Path]:
        job = make_job(method, pa.Table.from_pandas(instructions(4)))
        zero: dict[str, Any] = {"stage": stage}
        if keys.pop("offload", False):
            zero |= {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
        chosen = settings(
            method,
            deepspeed={"zero_optimization": zero},
            per_device_train_batch_size=4,
            learning_rate=1e-2,
            **keys,
        )
        torch.manual_seed(5)
        ran = run(recipe.find(method).model(job), ROWS, chosen, 3, job.folder)
        [checkpoint] = committed(job.folder)
        return job, ran, checkpoint

    return trained


def live_weights(engine: Any) -> dict[str, torch.Tensor]:
    """The trained weights that the engine holds, gathered under ZeRO-3."""
    import deepspeed

    found = {}
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            if engine.zero_optimization_stage() < 3:
                found[name] = parameter.detach().clone()
                continue
            with deepspeed.zero.GatheredParameters([parameter]):
                found[name] = parameter.detach().clone()
    return found


def assert_equal(found: Any, expected: dict[str, torch.Tensor]) -> None:
    assert expected
    there = dict(found.named_parameters())
    for name, tensor in expected.items():
        assert there[name].dtype == tensor.dtype, name
        assert torch.equal(there[name].cpu(), tensor.cpu()), name


STAGES = [(0, {}), (1, {}), (2, {}), (3, {}), (3, {"offload": True}), (0, {"bf16": True}), (2, {"bf16": True})]


@pytest.mark.parametrize(("stage", "keys"), STAGES, ids=str)
def test_a_whole_model_loads_with_nothing_missing_and_the_live_weights(
    make_trained: Any, tmp_path: Path, tiny_model: Path, stage: int, keys: dict[str, Any]
) -> None:
    _, ran, checkpoint = make_trained("sfft", stage, **keys)
    facts = made(convert(checkpoint, tmp_path / "whole"))
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype="auto", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected = live_weights(ran.engine)
    assert_equal(loaded, expected)
    assert facts["parameters"] == sum(p.numel() for p in loaded.parameters())
    assert (facts["step"], facts["stage"]) == (3, stage)
    before = AutoModelForCausalLM.from_pretrained(tiny_model, dtype="auto")
    assert not torch.equal(before.lm_head.weight, expected["lm_head.weight"]), "it has learnt something"
    assert list((tmp_path / "whole").glob("*.safetensors"))
    assert "Assistant" in AutoTokenizer.from_pretrained(tmp_path / "whole").chat_template


@pytest.mark.parametrize(("stage", "keys"), STAGES, ids=str)
def test_an_adapter_loads_in_plain_peft_with_the_live_weights(
    make_trained: Any, tmp_path: Path, tiny_model: Path, stage: int, keys: dict[str, Any]
) -> None:
    _, ran, checkpoint = make_trained("sft", stage, **keys)
    facts = made(convert(checkpoint, tmp_path / "adapter"))
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=facts["dtype"])  # peft takes the base's
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter", autocast_adapter_dtype=False)
    assert_equal(loaded, live_weights(ran.engine))
    assert facts["parameters"] < sum(p.numel() for p in base.parameters())
    assert not (tmp_path / "adapter" / "model.safetensors").exists()


@pytest.mark.parametrize("stage", [0, 2])
def test_the_master_weights_of_a_bf16_run_are_there_for_who_asks(make_trained: Any, tmp_path: Path, stage: int) -> None:
    _, ran, checkpoint = make_trained("sfft", stage, bf16=True)
    facts = made(convert(checkpoint, tmp_path / "masters", dtype="float32"))
    masters = AutoModelForCausalLM.from_pretrained(tmp_path / "masters", dtype="auto")
    assert facts["dtype"] == "float32"
    live = live_weights(ran.engine)
    rounded = {name: p.to(torch.bfloat16) for name, p in masters.named_parameters()}
    assert all(torch.equal(rounded[name], live[name]) for name in live)
    assert any(not torch.equal(p, rounded[name].float()) for name, p in masters.named_parameters())


def test_a_tied_head_stays_tied(make_trained: Any, tiny_model: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path / "tied")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "tied")
    job, _, _ = make_trained("sfft", 0)
    request = job.folder.request()
    request["parameters"]["localModelDir"] = str(tmp_path / "tied")
    from byzerllm_trainers.job_folder import JobFolder
    from byzerllm_trainers.job_request import read_request

    folder = JobFolder(tmp_path / "tied-job")
    folder.create(request)
    tied = recipe.Job(folder, read_request(folder))
    chosen = settings("sfft", deepspeed={"zero_optimization": {"stage": 2}}, learning_rate=1e-2)
    ran = run(recipe.find("sfft").model(tied), ROWS, chosen, 2, folder)
    made(convert(committed(folder)[-1], tmp_path / "converted"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "converted", dtype="auto")
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert_equal(loaded, live_weights(ran.engine))


def test_a_checkpoint_without_its_job_is_an_error(make_trained: Any, tmp_path: Path) -> None:
    _, _, checkpoint = make_trained("sft", 0)
    moved = tmp_path / "elsewhere" / "step-3"
    moved.parent.mkdir()
    checkpoint.rename(moved)
    with pytest.raises(ByzerError, match="is not in its job's folder"):
        made(convert(moved, tmp_path / "out"))


def test_a_base_of_another_shape_is_refused_with_the_weights(make_trained: Any, tmp_path: Path) -> None:
    from tests.tiny import make_model

    _, _, checkpoint = make_trained("sfft", 2)
    other = make_model(tmp_path / "other", hidden=64)
    with pytest.raises(ByzerError, match=r"weights are not in the checkpoint, or of another shape: model\.") as caught:
        made(convert(checkpoint, tmp_path / "out", base=other))
    assert "modelNameOrPath" in caught.value.do
    assert not (tmp_path / "out").exists()
