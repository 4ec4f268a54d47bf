"""What only preference tuning has."""

import math
from typing import Any

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import recipe
from tests.unit.trainers.arguments.bench import Bench, case
from tests.unit.trainers.helpers import load, settings


def first_loss(bench: Bench, **keys: Any) -> float:
    """The mean loss of the first step's pairs, of a model that is not its reference."""
    job, found = bench.job("dpo", **keys), recipe.find("dpo")
    found.prepare(job)
    step = found.plan(job).step(0, 0)
    sums = found.objective(job).summed_loss(load(bench.model_dir, lora=True), step.batches[0])
    return sums[0].item() / step.targets


@case("beta")
def _(bench: Bench) -> None:
    """It scales the margin, which is the loss's distance from log 2 while it is small; 0.1 if not said."""
    distances = [first_loss(bench, beta=beta) - math.log(2) for beta in (1e-3, 2e-3)]
    assert distances[1] == pytest.approx(2 * distances[0], rel=1e-2)
    assert first_loss(bench) == first_loss(bench, beta=0.1)
    with pytest.raises(ByzerError, match="is out of range"):
        settings("dpo", beta=0)


@case("loss_type")
def _(bench: Bench) -> None:
    """All of a small margin: log 2, 1 and (1 / 2 beta)²."""
    losses = {name: first_loss(bench, loss_type=name, beta=1e-3) for name in ("sigmoid", "hinge", "ipo")}
    assert losses == pytest.approx({"sigmoid": math.log(2), "hinge": 1.0, "ipo": 500.0**2}, rel=1e-2)
    assert first_loss(bench) == first_loss(bench, loss_type="sigmoid")
    with pytest.raises(ByzerError, match='loss_type="robust" is not allowed'):
        settings("dpo", loss_type="robust")
