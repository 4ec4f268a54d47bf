"""What Byzer-LLM's documents import from ``byzerllm.utils.fulltune.pretrain``, under the same names."""

from __future__ import annotations

from byzerllm_adapters.baichuan import BaiChuanConfig, BaiChuanForCausalLM

from .deepspeed_train import DeepSpeedTrain, ParallelConfig, TrainArgs, sfft_train, sft_train

__all__ = [
    "BaiChuanConfig",
    "BaiChuanForCausalLM",
    "DeepSpeedTrain",
    "ParallelConfig",
    "TrainArgs",
    "sfft_train",
    "sft_train",
]
