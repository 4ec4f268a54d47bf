"""The Python calls of Byzer-LLM's documents, as the documents write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from byzerllm_adapters.errors import MAX_LINES, ByzerError
from byzerllm_trainers import follow
from byzerllm_trainers.deepspeed_train import DeepSpeedTrain, ParallelConfig, TrainArgs, sfft_train, sft_train
from tests.cluster.helpers import actor_lives, eventually
from tests.tiny import instructions

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240), pytest.mark.usefixtures("session")]

DEFAULT_CONFIG = """
{
  "gradient_accumulation_steps": 1,
  "train_micro_batch_size_per_gpu": 1,
  "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "eps": 1.0e-8, "betas": [0.9, 0.95], "weight_decay": 0.1}},
  "tensorboard": {"enabled": true},
  "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}},
  "steps_per_print": 16,
  "gradient_clipping": 1.0,
  "bf16": {"enabled": true}
}
"""


def parallel(get_model: Callable[[], Any], model: Path, corpus: Path, target: Path) -> ParallelConfig:
    """The document's configuration, in small."""
    return ParallelConfig(
        num_workers=2,
        get_model=get_model,
        ds_config=json.loads(DEFAULT_CONFIG),
        setup_nccl_socket_ifname_by_ip=True,
        train_args=TrainArgs(
            model_path=str(model),
            tokenizer_path=f"{model}/tokenizer.json",
            data_dir=str(corpus),
            checkpoint_saving_path=str(target),
            steps_per_epoch=10,
            max_length=64,
        ),
    )


def test_a_model_from_scratch_trains_when_the_caller_starts_the_workers(
    tiny_model: Path, corpus: Path, tmp_path: Path
) -> None:
    layers = 1

    def get_model() -> Any:
        from transformers import LlamaConfig, LlamaForCausalLM

        sizes = {"vocab_size": 384, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
        return LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, **sizes))

    dst = DeepSpeedTrain(parallel(get_model, tiny_model, corpus, tmp_path))
    outcomes = ray.get([worker.train.remote() for worker in dst.workers])
    follow.wait(dst.folder)

    assert [outcome["steps"] for outcome in outcomes] == [10, 10]
    assert outcomes[0]["last_loss"] < outcomes[0]["first_loss"]
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(dst.folder.model, output_loading_info=True)
    assert not info["missing_keys"]
    assert model.config.num_hidden_layers == 1
    assert list(dst.folder.tensorboard.rglob("events.out.*"))
    assert str(dst.folder.checkpoints) in (dst.folder.logs / "rank-0.log").read_text()


def test_a_workers_own_error_reaches_the_caller_with_its_rank(tiny_model: Path, corpus: Path, tmp_path: Path) -> None:
    def get_model() -> Any:
        raise ValueError("boom")

    dst = DeepSpeedTrain(parallel(get_model, tiny_model, corpus, tmp_path))
    with pytest.raises(ValueError, match="boom"):
        ray.get([worker.train.remote() for worker in dst.workers])
    with pytest.raises(ByzerError, match=r"rank \d: ValueError: boom") as caught:
        follow.wait(dst.folder)
    assert len(caught.value.render()) <= MAX_LINES
    assert "in get_model" in (dst.folder.logs / "coordinator.log").read_text(), "the traceback is kept"
    eventually(lambda: not actor_lives(dst.folder.name), 20)


def test_sft_train_trains_when_called(tiny_model: Path, tmp_path: Path) -> None:
    rows = sft_train(
        data_refs=[instructions(16)],
        train_params={
            "localModelDir": str(tiny_model),
            "localPathPrefix": str(tmp_path),
            "pretrainedModelType": "sft/llama",
            "sft.int.max_seq_length": "64",
        },
        conf={"num_gpus": 1, "OWNER": "william"},
    )
    (row,) = list(rows)
    assert row["status"] == "finished"
    assert row["name"].startswith("sft-william-")
    assert (Path(row["model"]) / "adapter_config.json").is_file()


def test_sfft_train_trains_when_called_as_the_document_calls_it(tiny_model: Path, corpus: Path, tmp_path: Path) -> None:
    rows = sfft_train(
        data_refs=[],
        train_params={
            "localDataDir": str(corpus),
            "localModelDir": str(tiny_model),
            "localPathPrefix": str(tmp_path),
            "pretrainedModelType": "sfft/llama2",
            "deepspeedConfig": DEFAULT_CONFIG,
            "sfft.bool.setup_nccl_socket_ifname_by_ip": "true",
            "sfft.int.max_length": "128",
        },
        sys_conf={"num_gpus": 2, "OWNER": "william"},
    )
    (row,) = list(rows)
    assert row["status"] == "finished"
    assert row["name"].startswith("sfft-william-")
    assert row["last_loss"] < row["first_loss"]
    assert json.loads((tmp_path / row["name"] / "job.json").read_text())["workers"] == 2
