"""What is written meanwhile."""

from dataclasses import replace
from typing import Any

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import recipe
from byzerllm_trainers.checkpoint import committed
from byzerllm_trainers.report import Report
from byzerllm_trainers.submit import _kept
from tests.unit.trainers.arguments.bench import Bench, case
from tests.unit.trainers.helpers import settings


def reported(bench: Bench, **keys: Any) -> tuple[list[str], list[tuple[int, float]]]:
    """What a run of seven steps prints, and the losses that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = bench.folder()
    bench.capsys.readouterr()
    with Report(settings(**keys), folder, 7) as report:
        for step in range(1, 8):
            report.add({"step": step, "loss": float(step), "learning_rate": 0.1, "tokens": 9})
    shown = EventAccumulator(str(folder.tensorboard)).Reload() if list(folder.tensorboard.rglob("events*")) else None
    losses = [(event.step, event.value) for event in shown.Scalars("loss")] if shown else []
    return bench.capsys.readouterr().out.splitlines(), losses


@case("logging_steps")
def _(bench: Bench) -> None:
    lines, losses = reported(bench, logging_steps=3)
    assert [line.split(":")[0] for line in lines] == ["step 3/7", "step 6/7", "step 7/7"]
    assert losses == [(3, 2.0), (6, 5.0), (7, 7.0)], "the mean since the last one"
    assert len(bench.run(5, logging_steps=2).records) == 5, "metrics.jsonl has every step"


@case("report_to")
def _(bench: Bench) -> None:
    assert len(reported(bench, report_to="tensorboard", logging_steps=1)[1]) == 7
    lines, losses = reported(bench, report_to="none", logging_steps=1)
    assert (len(lines), losses) == (7, [])
    with pytest.raises(ByzerError, match='report_to="comet" is not allowed'):
        settings(report_to="comet")


@case("save_strategy", "save_steps")
def _(bench: Bench) -> None:
    small = {"per_device_train_batch_size": 4}  # two steps an epoch
    assert bench.run(5, save_strategy="no", **small).saved == [5]
    assert bench.run(5, save_strategy="epoch", **small).saved == [2, 4, 5]
    assert bench.run(5, save_strategy="steps", save_steps=3, **small).saved == [3, 5]
    assert bench.run(5, save_steps=3, **small).saved == [3, 5]
    assert settings(save_strategy="steps").saving.steps == 500
    with pytest.raises(ByzerError, match='save_steps is without effect with save_strategy="epoch"'):
        settings(save_strategy="epoch", save_steps=3)


@case("save_total_limit")
def _(bench: Bench) -> None:
    folder = bench.folder()
    bench.run(4, folder=folder, save_steps=1, save_total_limit=2)
    assert [path.name for path in committed(folder)] == ["step-3", "step-4"]


@case("resume_from_checkpoint")
def _(bench: Bench) -> None:
    keys = {"per_device_train_batch_size": 2, "lora": True, "dropout": 0.2, "save_steps": 2, "save_total_limit": 9}
    whole = bench.run(6, **keys)
    earlier = bench.folder()
    bench.run(6, folder=earlier, should_stop=lambda step: step == 4, **keys)
    for place, begins in ((earlier.root, 5), (earlier.checkpoints / "step-2", 3)):
        ran = bench.run(6, resume_from_checkpoint=str(place), **keys)
        assert ran.records[0]["step"] == begins
        assert ran.digest() == whole.digest(), "as if it had not been another job"
    assert [path.name for path in committed(earlier)] == ["step-2", "step-4"], "it is left as it was"
    with pytest.raises(ByzerError, match="the checkpoint is at step 4, and this job ends at step 3"):
        bench.run(3, resume_from_checkpoint=str(earlier.root), **keys)
    with pytest.raises(ByzerError, match="there is no whole checkpoint at"):
        bench.run(6, resume_from_checkpoint=str(bench.root / "nowhere"), **keys)
    with pytest.raises(ByzerError, match="does not fit the model"):
        bench.run(6, resume_from_checkpoint=str(earlier.root), **{**keys, "lora": False})
    bench.monkeypatch.chdir(earlier.root.parent)
    kept = bench.job(resume_from_checkpoint=earlier.root.name).request.train
    assert _kept(kept)["sft"]["resume_from_checkpoint"] == str(earlier.root), "workers do not share the folder"


@case("sample_prompts", "sample_steps", "sample_max_tokens")
def _(bench: Bench) -> None:
    keys = {"sample_prompts": ["Name a colour.", "And?"], "sample_steps": 2, "sample_max_tokens": 3}
    for method in ("sft", "sfft"):
        job = bench.job(method, **keys)
        sampler = recipe.sampler(recipe.find(method), job)
        assert sampler is not None
        assert recipe.sampler(recipe.find(method), bench.job(method)) is None
        ran = bench.run(5, sampler=sampler, lora=method == "sft")
        assert [(sample["step"], sample["prompt"]) for sample in ran.samples] == [
            (step, text) for step in (2, 4, 5) for text in keys["sample_prompts"]
        ]
        few, many = (replace(sampler, max_tokens=tokens).answers(ran.engine, 5) for tokens in (3, 30))
        assert few == ran.samples[-2:]
        assert all(len(short["answer"]) < len(long["answer"]) for short, long in zip(few, many, strict=True))
        assert ran.losses == bench.run(5, lora=method == "sft").losses, "training goes on as if nobody had asked"
