"""From rows to a chat: an adapter is trained on two workers, deployed, and prompted with what it was trained on."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from byzerllm_adapters.errors import ByzerError
from tests.cluster.helpers import Observed, observed
from tests.tiny import instructions

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def finetuning(model: Path, prefix: Path, name: str, rows: int) -> dict[str, str]:
    """Keys of a small fine-tuning job in fp32 without dropout."""
    return {
        "pretrainedModelType": "sft/llama",
        "localModelDir": str(model),
        "localPathPrefix": str(prefix),
        "name": name,
        "inputTable": "rows",
        "sft.bool.bf16": "false",
        "sft.float.lora_dropout": "0",
        "sft.float.learning_rate": "1e-2",
        "sft.int.per_device_train_batch_size": str(rows),
        "sft.int.max_steps": "30",
    }


@pytest.fixture(scope="module")
def finetuned(session: Any, tiny_model: Path, prefix: Path) -> Observed:
    """Two workers, 30 steps."""
    session.tables["rows"] = instructions()
    return observed(session, finetuning(tiny_model, prefix, "finetuned", rows=4))


@pytest.fixture(scope="module")
def chat(session: Any, finetuned: Observed) -> Iterator[Any]:
    """The fine-tuned model, deployed under the name "tuned"."""
    yield session.run(action="infer", localModelDir=finetuned.job.model, udfName="tuned")
    session.undeploy("tuned")


def prompt_ids(folder: str, *messages: tuple[str, str]) -> list[int]:
    """What the adapter prompts a folder's model with."""
    from byzerllm_adapters.conversations import Message, encode_prompt
    from byzerllm_adapters.registry import find

    tokenizer = find("llama").load_tokenizer(folder)
    return encode_prompt(tokenizer, [Message(role=role, content=content) for role, content in messages])


def test_the_result_is_a_peft_adapter_that_learned(finetuned: Observed, tiny_model: Path) -> None:
    model = Path(finetuned.job.model)
    assert (model / "adapter_model.safetensors").is_file()
    assert not (model / "model.safetensors").exists()
    assert json.loads((model / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny_model)
    assert finetuned.row["last_loss"] < finetuned.row["first_loss"] - 0.2


def test_one_worker_sees_the_same_losses(session: Any, finetuned: Observed, tiny_model: Path, prefix: Path) -> None:
    session.configure(settings={"num_gpus": 1})
    try:
        job = session.run(finetuning(tiny_model, prefix, "finetuned-alone", rows=8))
        job.wait()
    finally:
        session.configure(settings={"num_gpus": 2})
    assert list(job.metrics().loss[:10]) == pytest.approx(list(finetuned.job.metrics().loss[:10]), abs=1e-3)


def test_an_answer_arrives_in_pieces(session: Any, chat: Any) -> None:
    exchange = session.chat("Describe the stone.", model="tuned", new=True, temperature=0.0, max_tokens=20)
    pieces = list(exchange)
    assert len(pieces) > 1
    assert "".join(pieces) == exchange.answer
    assert exchange.answer.metadata["generated_tokens_count"] > 1


def test_the_model_is_prompted_with_the_prefix_of_the_row_that_it_was_trained_on(
    session: Any, chat: Any, finetuned: Observed
) -> None:
    from byzerllm_trainers.shards import open_shards

    question = instructions().instruction[0]
    ids, mask = open_shards(finetuned.job.folder.data / "shards").example(0)
    prefix = prompt_ids(finetuned.job.model, ("user", question))
    assert list(ids[: len(prefix)]) == prefix
    assert not mask[: len(prefix)].any()
    assert mask[len(prefix)]
    exchange = session.chat(question, model="tuned", new=True, max_tokens=2)
    list(exchange)
    assert exchange.answer.metadata["input_tokens_count"] == len(prefix)


def test_a_second_turn_sees_the_first(session: Any, chat: Any, finetuned: Observed) -> None:
    first = session.chat("Describe the tree.", model="tuned", new=True, temperature=0.0, max_tokens=8)
    list(first)
    second = session.chat("And the river?", model="tuned", temperature=0.0, max_tokens=2)
    list(second)
    turns = [("user", "Describe the tree."), ("assistant", str(first.answer)), ("user", "And the river?")]
    assert second.answer.metadata["input_tokens_count"] == len(prompt_ids(finetuned.job.model, *turns))


def test_ending_an_answer_early_frees_the_replica(session: Any, reciter: str) -> None:
    began = time.monotonic()
    endless = iter(session.chat("Recite.", model=reciter, new=True, temperature=0.0))
    heard = "".join(itertools.islice(endless, 3))
    endless.close()  # type: ignore[attr-defined]
    interrupted = time.monotonic()
    again = session.chat("Recite.", model=reciter, temperature=0.0, max_tokens=4)
    assert len("".join(again)) == 4
    assert time.monotonic() - interrupted < 3, "the whole alphabet to the end of the context takes over ten seconds"
    assert heard
    assert again.answer.metadata["input_tokens_count"] > 40, "the partial answer is part of the conversation"
    assert interrupted - began < 20


def test_reconnecting_finds_a_running_model_and_says_what_runs_instead(session: Any, reciter: str) -> None:
    found = session.run(action="infer", udfName=reciter, reconnect="true")
    assert found.status == "RUNNING"
    with pytest.raises(ByzerError) as caught:
        session.run(action="infer", udfName="reciterr", reconnect="true")
    assert caught.value.where.startswith("deployed: ")
    assert reciter in caught.value.where
    assert reciter in caught.value.do


def test_a_foreign_owners_model_is_refused(cluster: object, reciter: str) -> None:
    from byzerllm_magics.session import Session

    stranger = Session()
    stranger.configure(settings={"owner": "stranger"})
    for refused in (
        lambda: stranger.chat("hello", model=reciter),
        lambda: stranger.undeploy(reciter),
        lambda: stranger.run(action="infer", udfName=reciter, reconnect="true"),
    ):
        with pytest.raises(ByzerError, match="belongs to tester") as caught:
            refused()
        assert "owner=tester" in caught.value.do
    assert [model.name for model in stranger.models() if model.name == reciter] == [reciter]


def test_undeploying_frees_what_the_model_held(session: Any, tiny_model: Path) -> None:
    from tests.cluster.helpers import eventually, free_cpus

    before = free_cpus()
    session.run(action="infer", localModelDir=str(tiny_model), udfName="brief")
    eventually(lambda: free_cpus() < before, 20)
    session.undeploy("brief")
    eventually(lambda: free_cpus() >= before, 20)
    assert "brief" not in [model.name for model in session.models()]
