"""Evaluation, and the best checkpoint."""

from typing import Any

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import recipe
from byzerllm_trainers.checkpoint import committed
from byzerllm_trainers.engine import Rank
from byzerllm_trainers.evaluation import evaluate
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.loss import NextToken
from byzerllm_trainers.packing import GroupedRows, Layout
from byzerllm_trainers.shards import open_shards
from tests.unit.trainers.arguments.bench import OTHERS, ROWS, Bench, case
from tests.unit.trainers.helpers import Ran, settings


@case("eval_ratio")
def _(bench: Bench) -> None:
    for method in ("sft", "sfft"):
        found = recipe.find(method)
        job = bench.job(method, 20, eval_ratio=0.25)
        counts, whole = found.prepare(job), found.prepare(bench.job(method, 20))
        assert counts["held_out"] == 5
        examples_of = "examples" if method == "sft" else "documents"
        assert counts[examples_of] == whole[examples_of] - 5
        evaluated = found.held_out(job)
        assert evaluated is not None
        tokens = sum(evaluated.step(index, 0).tokens for index in range(evaluated.steps_per_epoch))
        assert whole["tokens"] - counts["tokens"] - tokens in (0, 1), (
            "none is lost; the first of a stream has no target"
        )
    with pytest.raises(ByzerError, match=r"nothing can be held out of 1 row "):
        recipe.find("sft").prepare(bench.job(rows=1, eval_ratio=0.5))


@case("eval_strategy", "eval_steps")
def _(bench: Bench) -> None:
    def evaluated(**keys: Any) -> list[int]:
        small = {"per_device_train_batch_size": 4, "eval_table": "t", "held_out": OTHERS}  # two steps an epoch
        return [record["step"] for record in bench.run(5, **small, **keys).records if "eval_loss" in record]

    assert evaluated(eval_strategy="no") == []
    assert evaluated(eval_strategy="steps", eval_steps=3) == evaluated(eval_steps=3) == [3, 5]
    assert evaluated(eval_strategy="steps", logging_steps=2) == [2, 4, 5]
    assert evaluated(eval_strategy="epoch") == evaluated(evaluation_strategy="epoch") == evaluated() == [2, 4, 5]
    with pytest.raises(ByzerError, match=r"sft\.eval_steps: there is no data to evaluate on"):
        settings(eval_steps=3)


@case("per_device_eval_batch_size")
def _(bench: Bench) -> None:
    job = bench.job(rows=20, eval_ratio=0.5, per_device_eval_batch_size=3)
    recipe.find("sft").prepare(job)
    evaluated = recipe.find("sft").held_out(job)
    assert evaluated is not None
    assert [len(evaluated.step(i, 0).batches[0].input_ids) for i in range(evaluated.steps_per_epoch)].count(3) == 3
    losses = [
        bench.run(1, eval_table="t", held_out=OTHERS, per_device_eval_batch_size=size).records[0]["eval_loss"]
        for size in (1, 4)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5), "only memory and time depend on it"


def overfitted(bench: Bench, folder: JobFolder, **keys: Any) -> Ran:
    """Twelve steps on a few random rows: what is held out suffers."""
    keys = {"learning_rate": 3e-2, "eval_steps": 2, **keys}
    return bench.run(12, folder=folder, rows=ROWS[:2], eval_table="t", held_out=OTHERS, **keys)


@case("load_best_model_at_end", "metric_for_best_model")
def _(bench: Bench) -> None:
    for metric, best in (("eval_loss", min), ("loss", min), ("eval_accuracy", max), ("accuracy", max)):
        folder = bench.folder()
        keys = {"metric_for_best_model": metric, "save_total_limit": 1}
        ran = overfitted(bench, folder, load_best_model_at_end=True, **keys)
        name = "eval_" + metric.removeprefix("eval_")
        scores = {record["step"]: record[name] for record in ran.records if name in record}
        assert ran.saved == list(scores) == [2, 4, 6, 8, 10, 12]
        assert ran.outcome.model_step == next(step for step, score in scores.items() if score == best(scores.values()))
        assert {path.name for path in committed(folder)} == {f"step-{ran.outcome.model_step}", "step-12"}
        layout = Layout(rows=4, accumulation=1, world=1, seed=0)
        again = evaluate(ran.engine, GroupedRows(open_shards(folder.held_out), layout), Rank(0, 1), NextToken())
        assert again[name] == pytest.approx(best(scores.values()), rel=1e-5), "the best weights are back"
    last = overfitted(bench, bench.folder())
    assert last.outcome.model_step == 12
    assert last.saved == [12]


@case("early_stopping_patience")
def _(bench: Bench) -> None:
    folder = bench.folder()
    whole = overfitted(bench, bench.folder())
    losses = [record["eval_loss"] for record in whole.records if "eval_loss" in record]
    best = losses.index(min(losses))
    assert best < len(losses) - 2, "it does get worse"
    ran = overfitted(bench, folder, early_stopping_patience=2)
    assert ran.outcome.steps == 2 * (best + 1 + 2)
    assert (ran.outcome.state, ran.saved[-1]) == ("finished", ran.outcome.steps)
    assert ran.outcome.message == "eval_loss did not get better in 2 evaluations"
    with pytest.raises(ByzerError, match="there is no data to evaluate on"):
        assert bench.job(early_stopping_patience=2).request.train
