"""What training leaves behind loads with plain transformers and peft, and answers as the trained model did."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from byzerllm_adapters import causal_lm
from byzerllm_trainers.export import export_model
from byzerllm_trainers.job_folder import JobFolder
from tests.unit.trainers.helpers import examples, load, run, settings

pytestmark = pytest.mark.usefixtures("group")

ROWS = examples([40, 7, 23, 12])
IDS = torch.tensor([[5, 80, 200, 9, 33, 7]])


def logits(model: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=IDS).logits


def trained(model: Any, folder: JobFolder, stage: int) -> torch.Tensor:
    """Train a few steps, export, and return the trained model's own logits."""
    # below DeepSpeed's own threshold of 100,000 numbers stage 3 would partition no weight of a tiny model
    zero = {"stage": stage, "stage3_param_persistence_threshold": 0}
    chosen = settings(deepspeed={"zero_optimization": zero}, per_device_train_batch_size=4, learning_rate=1e-2)
    ran = run(model, ROWS, chosen, 3, folder)
    export_model(ran.engine, folder.model, 0)
    return logits(ran.engine)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_an_adapter_loads_in_plain_peft(tiny_model: Path, folder: JobFolder, stage: int) -> None:
    expected = trained(load(tiny_model, lora=True), folder, stage)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    untrained = logits(base)
    assert torch.allclose(logits(PeftModel.from_pretrained(base, folder.model)), expected, atol=1e-5)
    assert not torch.allclose(untrained, expected, atol=1e-2)
    assert (folder.model / "adapter_model.safetensors").stat().st_size < 100_000  # the base is not in it
    assert not (folder.model / "config.json").exists()


def test_an_adapter_is_served_as_it_was_trained(tiny_model: Path, folder: JobFolder) -> None:
    expected = trained(load(tiny_model, lora=True), folder, 0)
    assert torch.allclose(logits(causal_lm.load_model(str(folder.model), dtype="float32")), expected, atol=1e-5)


@pytest.mark.parametrize("stage", [0, 2, 3])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_whole_model_loads_in_plain_transformers(
    tiny_model: Path, folder: JobFolder, tmp_path: Path, tied: bool, stage: int
) -> None:
    model_dir = tiny_model
    if tied:
        model = load(tiny_model)
        model.config.tie_word_embeddings = True
        model.tie_weights()
        model.save_pretrained(model_dir := tmp_path / "tied")
    expected = trained(load(model_dir), folder, stage)
    loaded, info = AutoModelForCausalLM.from_pretrained(folder.model, dtype=torch.float32, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded.config.tie_word_embeddings == tied
    assert torch.allclose(logits(loaded), expected, atol=1e-5)
    assert not torch.allclose(logits(load(model_dir)), expected, atol=1e-2)


def test_a_result_of_before_is_replaced_whole(tiny_model: Path, folder: JobFolder) -> None:
    folder.model.mkdir()
    (folder.model / "left-over.bin").write_bytes(b"old")
    trained(load(tiny_model), folder, 0)
    assert {path.name for path in folder.model.iterdir()} >= {"config.json", "model.safetensors"}
    assert not (folder.model / "left-over.bin").exists()
    assert not list(folder.root.glob(".model*"))
