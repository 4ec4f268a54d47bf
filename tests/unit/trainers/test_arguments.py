"""Every key of a way to train has an effect: a case for each, and a test that none is without one."""

import itertools

import pytest
import torch

from byzerllm_magics.parameters import keys_of
from byzerllm_trainers.loop_settings import LoopSettings
from byzerllm_trainers.optimizers import build_optimizer
from byzerllm_trainers.train_parameters import methods as ways_to_train
from tests.unit.trainers.arguments import (  # noqa: F401 - their cases
    amounts,
    data,
    evaluation,
    methods,
    preferences,
    reports,
    weights,
)
from tests.unit.trainers.arguments.bench import CASES, Bench, Case
from tests.unit.trainers.helpers import load, settings

pytestmark = [pytest.mark.usefixtures("group"), pytest.mark.slow]


@pytest.mark.parametrize("check", CASES.values(), ids=["-".join(names) for names in CASES])
def test_an_argument_has_its_effect(bench: Bench, check: Case) -> None:
    check(bench)


def test_no_declared_key_is_without_a_case() -> None:
    names = {key.name.partition(".")[2] for group in ways_to_train() for key in keys_of(group)}
    assert sorted(names | {"num_train_epochs"}) == sorted(itertools.chain(*CASES))


def test_every_optimizer_that_may_be_written_is_built(bench: Bench) -> None:
    """Where there is no GPU; `device.check_device` has refused the others."""
    [optim] = [key for key in keys_of("sft") if key.name == "sft.optim"]
    for name in set(optim.values) - {"adamw_bnb_8bit", "paged_adamw_8bit"}:
        chosen: LoopSettings = settings(optim=name)
        assert isinstance(build_optimizer(load(bench.model_dir), chosen), torch.optim.Optimizer)
