"""What each method trains on: the tokens, the steps, the model and its trainable weights."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.registry import METHODS
from byzerllm_trainers import recipe
from byzerllm_trainers.shards import open_shards
from byzerllm_trainers.train_parameters import methods
from tests.tiny import instructions


def test_a_way_to_train_has_a_name_a_declaration_and_a_recipe() -> None:
    assert tuple(methods()) == METHODS
    for name, keys in methods().items():
        assert recipe.find(name)
        assert keys.title
        assert keys.hint
        assert keys.refused
        assert isinstance(keys.one_node, bool)


def table(**columns: list[Any]) -> pa.Table:
    return pa.table(columns)


def test_fine_tuning_learns_the_answers_and_their_end_and_nothing_else(make_job: Any) -> None:
    job = make_job("sft", table(instruction=["Name a colour."], output=["The red stone."]))
    counts = recipe.find("sft").prepare(job)
    tokenizer = recipe.find("sft").tokenizer(job)
    ids, mask = open_shards(job.folder.data / "shards").example(0)
    assert tokenizer.decode(ids[mask]) == " The red stone.</s>"
    assert "Name a colour." in tokenizer.decode(ids[~mask])
    assert counts == {
        "format": "alpaca",
        "examples": 1,
        "examples_cut_off": 0,
        "tokens": len(ids),
        "supervised_tokens": int(mask.sum()),
    }


def test_an_answer_that_the_limit_cuts_off_whole_is_counted_not_trained(make_job: Any) -> None:
    rows = table(instruction=["Short?", "Long? " * 40], output=["Yes.", "No."])
    job = make_job("sft", rows, max_seq_length=32)
    counts = recipe.find("sft").prepare(job)
    assert (counts["examples"], counts["examples_cut_off"]) == (1, 1)
    assert open_shards(job.folder.data / "shards").lengths.max() == 32


def test_rows_without_anything_to_learn_are_refused(make_job: Any) -> None:
    job = make_job("sft", table(instruction=["Long? " * 40], output=["No."]), max_seq_length=16)
    with pytest.raises(ByzerError, match="no example has a token to learn"):
        recipe.find("sft").prepare(job)


def test_answers_that_are_all_cut_off_before_their_end_are_refused(make_job: Any) -> None:
    rows = table(instruction=["a", "b"], output=["Yes. " * 40, "No. " * 40])
    with pytest.raises(ByzerError, match="no answer is learned to its end token: max_seq_length=24"):
        recipe.find("sft").prepare(make_job("sft", rows, max_seq_length=24))
    both = table(instruction=["a", "b"], output=["Yes. " * 40, "No."])
    assert recipe.find("sft").prepare(make_job("sft", both, max_seq_length=24))["examples"] == 2


def test_the_names_of_who_talks_are_saved_with_the_result(make_job: Any, tmp_path: Path) -> None:
    from byzerllm_adapters import causal_lm
    from byzerllm_adapters.conversations import encode_prompt

    job = make_job("sft", table(instruction=["q"], output=["a"]), user_role="Human", assistant_role="Bot")
    recipe.find("sft").prepare(job)
    recipe.find("sft").tokenizer(job).save_pretrained(tmp_path / "model")
    served = causal_lm.load_tokenizer(str(tmp_path / "model"))
    prompt = encode_prompt(served, [{"role": "user", "content": "q"}], roles={"user_role": "Someone"})
    ids, mask = open_shards(job.folder.shards).example(0)
    assert served.decode(prompt) == "<s>Human: q\nBot:"
    assert prompt == ids[: len(prompt)].tolist() == ids[: mask.argmax()].tolist()


def test_tools_of_a_table_are_written_by_the_template_without_arrows_nulls(make_job: Any, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    def asks(name: str, **arguments: Any) -> dict[str, Any]:
        call = {"type": "function", "function": {"name": name, "arguments": arguments}}
        turns = [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "1"},
            {"role": "assistant", "content": "a"},
        ]
        return {"messages": turns, "tools": [{"type": "function", "function": {"name": name, "parameters": arguments}}]}

    job = make_job("sft", pa.Table.from_pylist([asks("add", a=1), asks("look", where="here")]), max_seq_length=4096)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    trl = find_spec("trl")
    assert trl is not None
    tokenizer.chat_template = (Path(str(trl.origin)).parent / "chat_templates" / "qwen2_5.jinja").read_text()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.save_pretrained(job.folder.root / "own")
    job.request.parameters["localModelDir"] = str(job.folder.root / "own")
    recipe.find("sft").prepare(job)
    shards = open_shards(job.folder.shards)
    for row, written in enumerate(
        ('{"name": "add", "arguments": {"a": 1}}', '{"name": "look", "arguments": {"where": ')
    ):
        ids, mask = shards.example(row)
        assert written in tokenizer.decode(ids[mask])
        assert "tool_response" in tokenizer.decode(ids[~mask])
        assert "null" not in tokenizer.decode(ids)


def test_names_without_a_place_in_the_models_own_template_are_refused(make_job: Any, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    job = make_job("sft", table(instruction=["q"], output=["a"]), user_role="Human")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
    own = job.folder.root / "own"
    tokenizer.save_pretrained(own)
    job.request.parameters["localModelDir"] = str(own)
    with pytest.raises(ByzerError, match="user_role is without effect"):
        recipe.find("sft").prepare(job)


def test_pretraining_learns_every_token_and_the_end_of_each_document(make_job: Any) -> None:
    job = make_job("sfft", table(text=["The red stone.", "这是 house"]))
    counts = recipe.find("sfft").prepare(job)
    shards = open_shards(job.folder.data / "shards")
    tokenizer = recipe.find("sfft").tokenizer(job)
    assert tokenizer.decode(shards.tokens) == "The red stone.</s>这是 house</s>"
    assert counts == {"format": "text", "documents": 2, "tokens": len(shards.tokens)}
    assert shards.mask.all()


@pytest.mark.parametrize(
    ("rows", "what", "where"),
    [
        (table(content=["a"]), 'needs a column "text"; this table has: content', ""),
        (table(text=["a", None]), "text is missing", "row 1"),
    ],
)
def test_pretraining_names_the_row_that_has_no_text(make_job: Any, rows: pa.Table, what: str, where: str) -> None:
    with pytest.raises(ByzerError, match=what) as caught:
        recipe.find("sfft").prepare(make_job("sfft", rows))
    assert where in caught.value.where


@pytest.mark.parametrize(
    ("method", "keys", "expected"),
    [
        ("sft", {"per_device_train_batch_size": 4}, 4),  # 16 rows
        ("sft", {"per_device_train_batch_size": 4, "num_train_epochs": 2.5}, 10),
        ("sft", {"per_device_train_batch_size": 5}, 4),
        ("sft", {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}, 4),
        ("sft", {"num_train_epochs": 2, "max_steps": 3}, 3),
        ("sfft", {"epoches": 3, "steps_per_epoch": 2}, 6),
    ],
)
def test_the_number_of_steps(make_job: Any, method: str, keys: dict[str, Any], expected: int) -> None:
    rows = instructions(16) if method == "sft" else instructions(16).rename(columns={"output": "text"})
    job = make_job(method, pa.Table.from_pandas(rows), **keys)
    found = recipe.find(method)
    found.prepare(job)
    assert recipe.total_steps(found, job, found.plan(job)) == expected


def test_more_workers_make_fewer_steps(make_job: Any) -> None:
    job = make_job("sft", pa.Table.from_pandas(instructions(16)), workers=2, per_device_train_batch_size=4)
    found = recipe.find("sft")
    found.prepare(job)
    assert found.plan(job).steps_per_epoch == 2


def test_fine_tuning_trains_lora_on_every_linear_layer_but_the_head(make_job: Any) -> None:
    job = make_job("sft", table(instruction=["a"], output=["b"]), lora_rank=8, lora_alpha=24, lora_dropout=0.25)
    model = recipe.find("sft").model(job)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name in trained}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (8, 24, 0.25)


def test_pretraining_trains_every_weight_in_fp32(make_job: Any) -> None:
    import torch

    model = recipe.find("sfft").model(make_job("sfft", table(text=["a"])))
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())


def test_the_tokenizer_may_be_elsewhere_or_named_by_a_file(make_job: Any, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for file in tiny_model.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    for path in (folder, folder / "tokenizer.json"):
        job = make_job("sfft", table(text=["a"]), tokenizer_path=str(path))
        assert recipe.find("sfft").tokenizer(job).name_or_path == str(folder)
