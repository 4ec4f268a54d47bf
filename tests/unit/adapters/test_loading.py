import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from byzerllm_adapters import loading
from byzerllm_adapters.causal_lm import load_model, load_tokenizer
from byzerllm_adapters.errors import ByzerError

IDS = torch.tensor([[20, 30, 40, 50]])


@pytest.fixture
def folder(model_dir, tmp_path):
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(model_dir, tmp_path / "model"))


@pytest.fixture
def adapter(model_dir, tmp_path):
    """The folder of a LoRA adapter whose weights do something."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_model(model_dir), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(tmp_path / "lora")
    return tmp_path / "lora"


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def test_a_folder_loads_in_evaluation_mode_with_its_weights(model_dir, make_model):
    model = load_model(model_dir)
    assert not model.training
    assert torch.equal(logits(model), logits(make_model(512)))
    assert model.config._attn_implementation == "sdpa"


def test_a_missing_tensor_stops_and_is_named(folder):
    change_weights(folder, lambda w: w.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ByzerError, match=r"missing: model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(folder)


def test_a_tensor_of_another_shape_stops_and_is_named(folder):
    change_weights(folder, lambda w: w.update({"model.norm.weight": torch.ones(32)}))
    with pytest.raises(ByzerError, match=r"another shape: model\.norm\.weight \[32\] for \[64\]"):
        load_model(folder)


def test_a_tensor_without_a_place_in_the_model_stops_and_is_named(folder):
    change_weights(folder, lambda w: w.update({"model.layers.2.mlp.up_proj.weight": torch.ones(64, 64)}))
    with pytest.raises(ByzerError, match=r"folder's weights is unexpected: model\.layers\.2\.mlp\.up_proj\.weight"):
        load_model(folder)


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_so_it_is_with_many_and_in_four_bits(folder, quantization):
    change_weights(folder, lambda w: [w.pop(name) for name in list(w) if "layers.1.mlp" in name])
    with pytest.raises(ByzerError, match="3 of the model's weights are missing") as caught:
        load_model(folder, quantization=quantization)
    assert len(caught.value.render()) <= 5


def test_what_a_family_is_known_to_ignore_is_no_error(folder):
    """Old Llama checkpoints have the rotary embedding's frequencies, which follow from the configuration."""
    old = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(16) for i in range(2)}
    change_weights(folder, lambda w: w.update(old))
    assert load_model(folder)


def test_a_tied_head_that_is_in_the_file_nevertheless_is_no_error(tmp_path, make_model):
    model = make_model(512, tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    change_weights(tmp_path, lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"].clone()}))
    assert torch.equal(logits(load_model(tmp_path)), logits(model))


def test_a_model_that_was_saved_in_four_bits_loads(folder, tmp_path):
    load_model(folder, quantization="nf4", device="cpu").save_pretrained(tmp_path / "four")
    assert torch.isfinite(logits(load_model(tmp_path / "four", device="cpu"))).all()


def test_an_adapters_tensor_without_a_place_stops_and_is_named(adapter):
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if "q_proj.lora_B" in name)
    save_file(weights | {name.replace("layers.0", "layers.7"): weights[name].clone()}, file, metadata={"format": "pt"})
    with pytest.raises(ByzerError, match=r"unexpected: .*layers\.7"):
        load_model(adapter)


def test_tied_weights_are_not_missing(tmp_path, make_model):
    model = make_model(512, tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert torch.equal(logits(load_model(tmp_path)), logits(model))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (shutil.rmtree, "no model folder"),
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "not JSON"),
        (lambda f: (f / "config.json").write_text('{"model_type": "nope"}'), "does not load"),
        (lambda f: (f / "model.safetensors").unlink(), "does not load"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "does not load"),
    ],
)
def test_a_damaged_folder_is_an_error_of_few_lines(folder, damage, reason):
    damage(folder)
    with pytest.raises(ByzerError, match=reason) as caught:
        load_model(folder)
    assert len(caught.value.render()) <= 5


def test_a_pickle_that_would_run_code_is_refused(folder):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (folder / "owned",))

    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ByzerError, match="does not load"):
        load_model(folder)
    assert not (folder / "owned").exists()


def test_code_in_a_folder_is_not_run_and_the_error_says_how_to_allow_it(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('the code ran')")
    with pytest.raises(ByzerError, match='add trust_remote_code="true"'):
        load_model(folder)


def test_dtype_is_what_was_asked_for_and_float32_on_a_cpu_by_default(folder, monkeypatch):
    assert load_model(folder, dtype="bfloat16", device="cpu").dtype == torch.bfloat16
    load_model(folder, dtype="bfloat16", device="cpu").save_pretrained(folder)
    assert load_model(folder, device="cpu").dtype == torch.float32  # too small for bfloat16 to be faster
    monkeypatch.setattr(loading, "LARGE", 0)
    for fast, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(loading, "fast_bf16", lambda device, fast=fast: fast)
        assert load_model(folder, device="cpu").dtype == dtype
    with pytest.raises(ByzerError, match="unknown dtype 'bf16'"):
        load_model(folder, dtype="bf16")


def test_an_adapter_folder_is_served_as_base_and_adapter(model_dir, adapter):
    expected = logits(PeftModel.from_pretrained(load_model(model_dir), adapter).eval())
    model = load_model(adapter)
    assert not any("lora" in name for name, _ in model.named_modules())
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(expected, logits(load_model(model_dir)), atol=1e-2)
    assert load_tokenizer(adapter).get_vocab() == load_tokenizer(model_dir).get_vocab()


def test_a_relative_base_is_found_from_the_working_folder(model_dir, adapter, monkeypatch):
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": model_dir.name}))
    monkeypatch.chdir(model_dir.parent)
    assert load_model(adapter)
    monkeypatch.chdir(adapter)
    with pytest.raises(ByzerError, match="base model of this adapter is not at"):
        load_model(adapter)


def test_a_missing_adapter_tensor_stops_and_is_named(adapter):
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if "q_proj.lora_B" in name)
    save_file({key: value for key, value in weights.items() if key != name}, file, metadata={"format": "pt"})
    with pytest.raises(ByzerError, match=r"missing: .*q_proj\.lora_B"):
        load_model(adapter)


def test_a_quantised_base_keeps_its_adapter_beside_it(adapter):
    model = load_model(adapter, quantization="nf4", device="cpu")
    assert any("lora" in name for name, _ in model.named_modules())
    assert torch.isfinite(logits(model)).all()
    with pytest.raises(ByzerError, match="unknown quantization '5'"):
        load_model(adapter, quantization="5")


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path, make_model):
    make_model(512).save_pretrained(tmp_path)
    with pytest.raises(ByzerError, match="tokenizer does not load"):
        load_tokenizer(tmp_path)
