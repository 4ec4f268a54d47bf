"""Preferences on two workers: they are learned, and the adapter is deployed as any other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.helpers import Observed, observed
from tests.tiny import preferences

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def preferred(session: Any, tiny_model: Path, prefix: Path) -> Observed:
    """Two workers, ZeRO 2, 30 steps."""
    session.tables["pairs"] = preferences()
    keys = {
        "pretrainedModelType": "dpo/llama",
        "localModelDir": str(tiny_model),
        "localPathPrefix": str(prefix),
        "name": "preferred",
        "inputTable": "pairs",
        "deepspeedConfig": json.dumps({"zero_optimization": {"stage": 2}}),
        "dpo.bool.bf16": "false",
        "dpo.float.learning_rate": "1e-2",
        "dpo.float.beta": "0.5",
        "dpo.int.per_device_train_batch_size": "8",
        "dpo.int.max_steps": "30",
        "dpo.float.eval_ratio": "0.125",
    }
    return observed(session, keys)


@pytest.fixture(scope="module")
def chat(session: Any, preferred: Observed) -> Iterator[Any]:
    """The tuned model, deployed under the name "taught"."""
    yield session.run(action="infer", localModelDir=preferred.job.model, udfName="taught")
    session.undeploy("taught")


def test_both_workers_learn_the_preferences(preferred: Observed) -> None:
    metrics = preferred.job.metrics()
    assert metrics.loss[0] == pytest.approx(0.693147, abs=1e-5)
    assert metrics["rewards/margins"].iloc[-1] > 1
    assert metrics["rewards/accuracies"].iloc[-1] == 1
    assert preferred.row["eval_accuracy"] == 1
    assert preferred.row["method"] == "dpo/llama"


def test_the_result_is_a_peft_adapter(preferred: Observed, tiny_model: Path) -> None:
    model = Path(preferred.job.model)
    assert (model / "adapter_model.safetensors").is_file()
    assert not (model / "model.safetensors").exists()
    assert json.loads((model / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny_model)


def test_the_deployed_adapter_answers(session: Any, chat: Any) -> None:
    exchange = session.chat(preferences().prompt[0], model="taught", new=True, temperature=0.0, max_tokens=8)
    assert "".join(exchange) == exchange.answer
    assert exchange.answer.metadata["generated_tokens_count"] > 0
