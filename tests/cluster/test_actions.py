"""Merge, convert and evaluate on the cluster: results, errors and interrupts reach the cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from byzerllm_adapters.errors import MAX_LINES, ByzerError
from tests.cluster.helpers import Observed, eventually, free_cpus, observed, pretraining
from tests.cluster.kernels import Kernel
from tests.tiny import instructions

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def tuned(session: Any, tiny_model: Path, prefix: Path) -> Observed:
    """An adapter, trained on two workers under ZeRO-2."""
    session.tables["rows"] = instructions()
    return observed(
        session,
        {
            "pretrainedModelType": "sft/llama",
            "localModelDir": str(tiny_model),
            "localPathPrefix": str(prefix),
            "name": "tuned-for-actions",
            "inputTable": "rows",
            "deepspeedConfig": json.dumps({"zero_optimization": {"stage": 2}}),
            "sft.bool.bf16": "false",
            "sft.float.lora_dropout": "0",
            "sft.float.learning_rate": "1e-2",
            "sft.int.per_device_train_batch_size": "4",
            "sft.int.max_steps": "6",
        },
    )


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return dict(model.named_parameters())


def test_a_jobs_adapter_is_merged_by_the_jobs_name(session: Any, tuned: Observed) -> None:
    told: list[str] = []
    made = session.run(
        action="merge", localModelDir=tuned.job.name, dtype="float32", outputTable="merged", progress=told.append
    )
    assert Path(made.model) == tuned.job.folder.root / "merged"
    assert made.facts["difference"] <= made.facts["tolerance"] == 1e-4
    assert made.facts["effect"] > 0.01
    assert weights(made.model)
    assert [line.rpartition(": ")[2] for line in told if "loading" not in line] == ["merging", "verifying"]
    assert session.table("merged").df().model.tolist() == [made.model]
    with pytest.raises(ByzerError, match="is there already"):
        session.run(action="merge", localModelDir=tuned.job.name)


def test_an_error_on_the_cluster_reaches_the_cell(session: Any, tuned: Observed, tmp_path: Path) -> None:
    from tests.tiny import make_model

    other = make_model(tmp_path / "other", hidden=64)
    with pytest.raises(ByzerError, match="the peft adapter does not load") as caught:
        session.run(action="merge", adapterNameOrPath=tuned.job.name, modelNameOrPath=str(other), savePath="nowhere")
    assert len(caught.value.render()) <= MAX_LINES
    assert not Path("nowhere").exists()


@pytest.mark.parametrize("stage", [2, 3])
def test_a_checkpoint_of_two_workers_becomes_the_jobs_own_model(
    session: Any, tiny_model: Path, corpus: Path, prefix: Path, pretrained: Observed, stage: int
) -> None:
    job = pretrained.job
    if stage == 3:
        job = observed(session, pretraining(tiny_model, corpus, prefix, name="three-for-actions", stage=3, steps=4)).job
    made = session.run(action="convert", checkpointDir=job.name)
    last = job.folder.metrics()[-1]["step"]
    assert (made.facts["step"], made.facts["stage"]) == (last, stage)
    assert Path(made.model) == job.folder.root / f"converted-step-{last}"
    found, live = weights(made.model), weights(job.model)
    assert all(torch.equal(found[name], live[name]) for name in live)


def test_an_adapters_checkpoint_becomes_the_jobs_own_adapter(session: Any, tuned: Observed) -> None:
    from safetensors.torch import load_file

    made = session.run(action="convert", checkpointDir=str(tuned.job.folder.root), tag="step-6")
    found, live = (load_file(Path(folder) / "adapter_model.safetensors") for folder in (made.model, tuned.job.model))
    assert found.keys() == live.keys()
    assert all(torch.equal(found[name], live[name]) for name in live)


def test_models_of_every_kind_are_compared_on_a_table(
    session: Any, tuned: Observed, tiny_model: Path, reciter: str, prefix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = prefix / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    rows = pd.DataFrame({"instruction": ["Recite: a", "Recite: c"], "output": ["bcd", "nothing of the kind"]})
    told: list[str] = []
    found = session.run(
        action="evaluate",
        localModelDir=[tuned.job.name, str(tiny_model), str(broken), reciter],
        inputTable=rows,
        metric=starts_alike,
        outputTable="scores",
        max_new_tokens="3",
        progress=told.append,
    )
    frame = found.models.df().set_index("model")
    assert frame.index[-1] == str(broken), "what failed comes last"
    assert frame.starts_alike.dropna().is_monotonic_decreasing
    assert "does not load" in frame.error[str(broken)]
    assert frame.error.drop(str(broken)).isna().all()
    assert frame.loss[[tuned.job.name, str(tiny_model)]].notna().all()
    assert pd.isna(frame.loss[reciter])
    assert "1 of 4 models failed (column error)" in capsys.readouterr().out
    predictions = session.table("scores_predictions").df()
    assert predictions.groupby("model").size().to_dict() == dict.fromkeys((tuned.job.name, str(tiny_model), reciter), 2)
    assert set(predictions.reference) == set(rows.output)
    assert session.select("select count(*) as n from scores").df().n.tolist() == [4]
    assert any(line.endswith("2 of 2 answers") for line in told)
    [record] = tuned.job.folder.evaluations()
    assert (record["metric"], record["rows"], record["loss"]) == ("starts_alike", 2, frame.loss[tuned.job.name])


def starts_alike(prediction: str, reference: str) -> float:
    return float(prediction[:1] == reference[:1])


def test_a_notebooks_function_judges_the_answers_and_an_interrupt_ends_the_tasks(
    session: Any, tiny_model: Path, tmp_path: Path
) -> None:
    kernel = Kernel()
    try:
        kernel.run("%load_ext byzerllm_magics\nimport pandas as pd")
        kernel.run("rows = pd.DataFrame({'instruction': ['a'] * 4, 'output': ['b'] * 4})")
        kernel.run("def mine(prediction, reference):\n    return len(prediction) + 100")
        kernel.run("%%byzerllm setup\nowner=tester")
        cell = f"""%%byzerllm run
action="evaluate" and localModelDir="{tiny_model}" and inputTable="rows" and metric="mine"
and max_new_tokens="2" and outputTable="judged"
"""
        done = kernel.run(cell)
        assert done.status == "ok", done.traceback
        assert kernel.run("assert judged.df().mine[0] >= 100\nassert len(judged_predictions) == 4").status == "ok"
        kernel.run("import time\ndef slow(prediction, reference):\n    time.sleep(60)\n    return 1.0")
        seen: list[float] = []

        def held(_: object) -> bool:
            seen.append(free_cpus())
            return len(seen) > 40

        before = free_cpus()
        ended = kernel.run(cell.replace('"mine"', '"slow"'), interrupt_when=held, seconds=60)
        assert ended.status == "error"
        assert "interrupted" in "\n".join(ended.traceback)
        assert eventually(lambda: free_cpus() >= before, 30)
    finally:
        kernel.close()
