"""Preference tuning: what is tokenised, and the real loop over a real DeepSpeed engine, one process."""

import json
import math
import shutil
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import recipe
from byzerllm_trainers.corpus import table_rows
from byzerllm_trainers.job_folder import JobFolder, Record
from byzerllm_trainers.own_partitions import OwnPartitions
from byzerllm_trainers.preferences import METRICS, reference
from byzerllm_trainers.shards import open_shards
from tests.tiny import make_model, preferences
from tests.unit.trainers.helpers import Seen, settings

pytestmark = pytest.mark.slow

DPO = recipe.find("dpo")
ALL = {"per_device_train_batch_size": 16, "learning_rate": 1e-2, "lr_scheduler_type": "constant"}


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough for bitsandbytes."""
    return make_model(tmp_path_factory.mktemp("models") / "wide", hidden=64)


def table(count: int = 16) -> pa.Table:
    return pa.Table.from_pandas(preferences(count))


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_a_pair_is_two_examples_with_the_loss_on_what_answers_the_prompt(make_job: Any) -> None:
    begin = [user("A colour?"), assistant("Red."), user("Another?")]
    job = make_job(
        "dpo",
        pa.table({"chosen": [[*begin, assistant("Blue.")]], "rejected": [[*begin, assistant("Red, as I said.")]]}),
    )
    counts = DPO.prepare(job)
    tokenizer, shards = DPO.tokenizer(job), open_shards(job.folder.shards)
    sides = [shards.example(side) for side in (0, 1)]
    assert [tokenizer.decode(ids[mask]) for ids, mask in sides] == [" Blue.</s>", " Red, as I said.</s>"]
    for ids, mask in sides:
        assert tokenizer.decode(ids[~mask]).startswith("<s>User: A colour?\nAssistant: Red.</s>\nUser: Another?\n")
    supervised = sum(int(mask.sum()) for _, mask in sides)
    assert counts == {
        "format": "preferences",
        "pairs": 1,
        "pairs_cut_off": 0,
        "tokens": len(shards.tokens),
        "supervised_tokens": supervised,
    }


def test_tools_of_a_pair_are_written_by_the_template_or_refused(
    make_job: Any, tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tools = [{"type": "function", "function": {"name": "weather"}}]
    rows = pa.table({"prompt": ["q"], "chosen": ["a"], "rejected": ["b"], "tools": [tools]})
    folder = Path(shutil.copytree(tiny_model, tmp_path / "with-a-template"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    tokenizer.chat_template = "{{ bos_token }}" + turns
    tokenizer.save_pretrained(folder)
    with pytest.raises(ByzerError, match="the chat template leaves out the column tools"):
        DPO.prepare(make_job("dpo", rows, model_dir=folder))
    tokenizer.chat_template = "{{ bos_token }}{{ tools | tojson if tools }}" + turns
    tokenizer.save_pretrained(folder)
    job = make_job("dpo", rows, model_dir=folder)
    DPO.prepare(job)
    shards = open_shards(job.folder.shards)
    for side, answer in enumerate("ab"):
        ids, mask = shards.example(side)
        assert '"name": "weather"' in tokenizer.decode(ids[~mask])
        assert tokenizer.decode(ids[mask]) == f"{answer}</s>"


def test_a_pair_that_the_limit_leaves_without_a_difference_is_counted_not_trained(make_job: Any) -> None:
    same = "The house is old and large, and so is the road. " * 4
    rows = {
        "prompt": ["Short?", "Long? " * 40, "Short?", "Short?"],
        "chosen": ["Yes.", "Yes.", same + "Yes.", same],
        "rejected": ["No.", "No.", same + "No.", "No."],
    }
    job = make_job("dpo", pa.table(rows), max_seq_length=32, per_device_train_batch_size=8)
    counts = DPO.prepare(job)
    assert (counts["pairs"], counts["pairs_cut_off"]) == (2, 2)
    step = DPO.plan(job).step(0, 0)
    assert (step.targets, len(step.batches[0].input_ids)) == (2, 4)


@pytest.mark.parametrize(
    ("rows", "what", "where"),
    [
        ({"prompt": ["a", "a"], "chosen": ["b", "b"], "rejected": ["c", "b"]}, "are the same", "row 1"),
        ({"prompt": ["a", "a"], "chosen": ["b", None], "rejected": ["c", "c"]}, "chosen is missing", "row 1"),
        ({"instruction": ["a"], "output": ["b"]}, "preferences need a column chosen", ""),
        (
            {"prompt": [[assistant("b")]], "chosen": ["b"], "rejected": ["c"]},
            "the conversation starts with an answer",
            "row 0",
        ),
    ],
)
def test_a_row_that_does_not_fit_is_named(make_job: Any, rows: dict[str, list[Any]], what: str, where: str) -> None:
    with pytest.raises(ByzerError, match=what) as caught:
        DPO.prepare(make_job("dpo", pa.table(rows)))
    assert (caught.value.where or "").startswith(where)
    if "starts with" not in what:  # only a chat template finds that
        with pytest.raises(ByzerError, match=what):
            DPO.check(table_rows(pa.table(rows)), DPO.format_of(rows), drop=False)


def test_pairs_are_held_out_whole_and_keep_their_partition(make_job: Any) -> None:
    from byzerllm_trainers.corpus import keep_partitions

    job = make_job("dpo", table(20), workers=2, eval_ratio=0.25)
    keep_partitions(job.folder, [12, 8])
    counts = DPO.prepare(job)
    assert (counts["pairs"], counts["held_out"], counts["partitions"]) == (15, 5, 2)
    bounds = open_shards(job.folder.shards).partitions
    assert bounds is not None
    assert [bound % 2 for bound in bounds] == [0, 0, 0]
    assert bounds[-1] == 30
    assert isinstance(DPO.plan(job), OwnPartitions)
    held_out = DPO.held_out(job)
    assert held_out is not None
    assert sum(held_out.counts(step)[0] for step in range(held_out.steps_per_epoch)) == 5


@pytest.mark.parametrize("eval_ratio", [0.0, 0.3])
def test_a_bad_pair_is_dropped_whole_and_the_partitions_keep_theirs(make_job: Any, eval_ratio: float) -> None:
    from byzerllm_trainers.corpus import keep_partitions

    bad = {0, 5, 6, 7, 11}
    rows = {
        "prompt": ["q"] * 12,
        "chosen": [f"good {number}." for number in range(12)],
        "rejected": [None if number in bad else f"bad {number}." for number in range(12)],
    }
    job = make_job("dpo", pa.table(rows), workers=2, on_bad_row="drop", eval_ratio=eval_ratio)
    keep_partitions(job.folder, [3, 2, 3, 0, 4])  # all pairs of the third are bad
    counts = DPO.prepare(job)
    tokenizer, shards = DPO.tokenizer(job), open_shards(job.folder.shards)
    answers = [tokenizer.decode(ids[mask]) for ids, mask in map(shards.example, range(len(shards)))]
    left = [int(answer.split()[1].partition(".")[0]) for answer in answers[::2]]
    assert answers == [f" {side} {number}.</s>" for number in left for side in ("good", "bad")]
    assert (counts["pairs"], counts["rows_dropped"]) == (len(left), 5)
    assert counts["first_dropped"].startswith("row 0 (format preferences): rejected is missing")
    assert set(left) <= set(range(12)) - bad
    assert len(left) == (7 if not eval_ratio else 5)
    ends = [sum(number < end for number in left) for end in (0, 3, 5, 8, 8, 12)]
    assert shards.partitions == [2 * end for end in ends]


def test_pairs_come_from_files_of_any_kind(make_job: Any, tmp_path: Path) -> None:
    (data := tmp_path / "data").mkdir()
    preferences(4).to_csv(data / "a.csv", index=False)
    preferences(4).to_json(data / "b.jsonl", orient="records", lines=True)
    (data / "c.json").write_text(json.dumps([{"prompt": "q", "chosen": "a"}, *preferences(2).to_dict("records")]))
    job = make_job("dpo", data, on_bad_row="drop")
    counts = DPO.prepare(job)
    assert (counts["format"], counts["pairs"], counts["rows_dropped"]) == ("preferences", 10, 1)
    assert counts["first_dropped"].startswith(f"{data / 'c.json'}, row 0 (format preferences): rejected is missing")
    with pytest.raises(ByzerError, match="rejected is missing"):
        DPO.prepare(make_job("dpo", data))


@pytest.mark.parametrize(
    "keys", [{}, {"finetuning_type": "dora"}, {"finetuning_type": "qlora"}, {"modules_to_save": "lm_head"}], ids=str
)
def test_the_reference_is_the_base_of_every_adapter(make_job: Any, wide_model: Path, keys: dict[str, str]) -> None:
    job = make_job("dpo", table(), model_dir=wide_model, bf16=False, **keys)
    model, ids = DPO.model(job).train(), torch.tensor([[5, 80, 200, 9, 33, 7]])
    with torch.no_grad():
        before = model.eval()(ids).logits
        for parameter in model.train().parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
        with reference(model):
            assert torch.equal(model(ids).logits, before)
        assert not torch.allclose(model(ids).logits, before)


@dataclass
class Trained:
    """A run's model before and after, and its records."""

    model: Any
    before: dict[str, torch.Tensor]
    records: list[Record]

    def series(self, name: str) -> list[float]:
        return [record[name] for record in self.records]


@pytest.fixture
def tune(group: None, make_job: Any, tmp_path: Path) -> Any:
    """Prepares rows and trains on them by the recipe."""
    from byzerllm_trainers.engine import Rank
    from byzerllm_trainers.loop import train

    numbers = count()

    def run(steps: int, stage: int = 0, **keys: Any) -> Trained:
        keys = {**ALL, **keys}
        job = make_job("dpo", table(), **keys, bf16=False)
        DPO.prepare(job)
        torch.manual_seed(1)
        model = DPO.model(job)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        records: list[Record] = []
        folder = JobFolder(tmp_path / f"tuned-{next(numbers)}")
        folder.create({})
        train(
            model,
            DPO.plan(job),
            settings("dpo", deepspeed={"zero_optimization": {"stage": stage}}, **keys),
            steps,
            folder=folder,
            rank=Rank(0, 1),
            observer=Seen(records, [], [], [], lambda: False),
            objective=DPO.objective(job),
            held_out=DPO.held_out(job),
        )
        return Trained(model, before, records)

    return run


def test_the_chosen_answers_are_learned_and_only_the_adapter_changes(tune: Any) -> None:
    ran = tune(20, beta=0.5)
    first, last = ran.records[0], ran.records[-1]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5), "a new adapter is the reference"
    assert [first[name] for name in METRICS] == pytest.approx([0] * 4, abs=1e-5)
    assert last["loss"] < 0.5 * first["loss"]
    assert last["rewards/margins"] > 1
    assert last["rewards/margins"] == pytest.approx(last["rewards/chosen"] - last["rewards/rejected"], abs=1e-5)
    assert last["rewards/accuracies"] == 1
    for name, parameter in ran.model.named_parameters():
        assert torch.equal(parameter, ran.before[name]) == (not parameter.requires_grad), name
        assert parameter.requires_grad == ("lora_" in name)


@pytest.mark.parametrize("stage", [2, 3])
def test_zero_stages_change_no_loss(tune: Any, stage: int) -> None:
    alone, partitioned = tune(4), tune(4, stage=stage)
    assert partitioned.series("loss") == pytest.approx(alone.series("loss"), rel=1e-4)
    assert partitioned.series("rewards/margins") == pytest.approx(alone.series("rewards/margins"), rel=1e-3, abs=1e-5)
    assert alone.series("loss")[-1] < 0.69, "it learns, or this shows nothing"


def test_accumulated_gradients_are_those_of_the_large_batch(tune: Any) -> None:
    whole = tune(4)
    parts = tune(4, per_device_train_batch_size=2, gradient_accumulation_steps=8)
    for name in ("loss", "grad_norm", *METRICS):
        assert parts.series(name) == pytest.approx(whole.series(name), rel=1e-3, abs=1e-5), name


def test_gradient_checkpointing_changes_no_loss(tune: Any) -> None:
    assert tune(3, gradient_checkpointing=True).series("loss") == pytest.approx(tune(3).series("loss"), rel=1e-5)


def test_held_out_pairs_are_evaluated(tune: Any) -> None:
    ran = tune(12, eval_ratio=0.25, eval_steps=6, per_device_train_batch_size=12)
    evaluated = [record for record in ran.records if "eval_loss" in record]
    assert [record["step"] for record in evaluated] == [6, 12]
    assert evaluated[-1]["eval_loss"] < math.log(2)
    assert evaluated[-1]["eval_accuracy"] == 1
