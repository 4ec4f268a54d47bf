"""How the weights change."""

import math
from typing import Any

import pytest
import torch

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers.model_options import add_embedding_noise
from tests.unit.trainers.arguments.bench import Bench, case
from tests.unit.trainers.helpers import load, settings


@case("learning_rate")
def _(bench: Bench) -> None:
    assert [r["learning_rate"] for r in bench.run(learning_rate=3e-3).records] == [3e-3] * 3


@case("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")
def _(bench: Bench) -> None:
    def adamw(groups: Any, lr: float) -> Any:
        return torch.optim.AdamW(groups, lr=lr, betas=(0.5, 0.6), eps=1e-3)

    found = bench.run(4, weight_decay=0.9, adam_beta1=0.5, adam_beta2=0.6, adam_epsilon=1e-3).losses
    assert found == pytest.approx(bench.plain(adamw, 4, decay=0.9), rel=1e-3)
    for left_out in ("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"):
        keys = {"weight_decay": 0.9, "adam_beta1": 0.5, "adam_beta2": 0.6, "adam_epsilon": 1e-3}
        del keys[left_out]
        assert bench.run(4, **keys).losses != pytest.approx(found, rel=1e-5), left_out


@case("max_grad_norm")
def _(bench: Bench) -> None:
    clipped = bench.run(optim="sgd", max_grad_norm=0.1)
    assert clipped.records[0]["grad_norm"] > 0.1, "told before clipping"
    assert clipped.losses == pytest.approx(bench.plain(torch.optim.SGD, clip=0.1), rel=1e-4)
    assert bench.run(optim="sgd", max_grad_norm=0).losses == pytest.approx(
        bench.plain(torch.optim.SGD, clip=0), rel=1e-4
    )


@case("optim")
def _(bench: Bench) -> None:
    from transformers.optimization import Adafactor

    def adafactor(groups: Any, lr: float) -> Any:
        return Adafactor(groups, lr=lr, scale_parameter=False, relative_step=False)

    adamw = bench.plain(torch.optim.AdamW)
    for name, expected in {
        "adamw_torch": adamw,
        "adamw_torch_fused": adamw,
        "paged_adamw_32bit": adamw,  # no GPU whose memory could be paged out
        "sgd": bench.plain(torch.optim.SGD),
        "adafactor": bench.plain(adafactor),
    }.items():
        assert bench.run(optim=name).losses == pytest.approx(expected, rel=1e-3), name
    for name in ("adamw_bnb_8bit", "paged_adamw_8bit"):
        with pytest.raises(ByzerError, match=f"optim={name} needs a GPU"):
            bench.run(optim=name)


@case("lr_scheduler_type", "lr_scheduler_kwargs")
def _(bench: Bench) -> None:
    """After the warm-up, transformers' own schedules."""
    from transformers import get_scheduler

    for name, options in {
        "linear": {},
        "cosine": {"num_cycles": 0.75},
        "cosine_with_restarts": {"num_cycles": 3},
        "polynomial": {"power": 2.0, "lr_end": 0.1},
        "constant_with_warmup": {},
        "inverse_sqrt": {"timescale": 7},
    }.items():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        theirs = get_scheduler(name, optimizer, 4, 20, dict(options))
        rates = []
        for _step in range(20):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            theirs.step()
        ours = settings(lr_scheduler_type=name, lr_scheduler_kwargs=options, warmup_steps=4, learning_rate=1.0)
        assert [ours.learning_rate_at(step, 20) for step in range(4, 20)] == pytest.approx(rates[4:]), name
    with pytest.raises(ByzerError, match="linear has no option power"):
        settings(lr_scheduler_type="linear", lr_scheduler_kwargs={"power": 2})


@case("warmup_steps", "warmup_ratio")
def _(bench: Bench) -> None:
    by_steps = bench.run(4, warmup_steps=3, lr_scheduler_type="linear")
    assert by_steps.notes == []
    [note] = bench.run(2, warmup_steps=3, lr_scheduler_type="linear").notes
    assert note.startswith("the warm-up takes 3 steps, and the run has 2")
    assert [r["learning_rate"] for r in by_steps.records] == pytest.approx([2.5e-3, 5e-3, 7.5e-3, 1e-2])
    by_ratio = settings(warmup_ratio=0.75, lr_scheduler_type="linear", learning_rate=1e-2)
    assert [by_ratio.learning_rate_at(step, 4) for step in range(4)] == pytest.approx([2.5e-3, 5e-3, 7.5e-3, 1e-2])
    assert settings(lr_scheduler_type="constant", learning_rate=1.0).learning_rate_at(0, 100) == 1.0


@case("neftune_noise_alpha")
def _(bench: Bench) -> None:
    quiet, noisy = bench.run(neftune_noise_alpha="none"), bench.run(neftune_noise_alpha=50)
    assert noisy.losses != quiet.losses
    model = load(bench.model_dir, lora=True)
    ids = torch.arange(6).reshape(1, 6)
    embeddings = model.get_base_model().get_input_embeddings()
    before = embeddings(ids)
    add_embedding_noise(model, 5.0)
    model.train()
    noise = (embeddings(ids) - before).abs()
    bound = 5.0 / math.sqrt(6 * before.shape[-1])
    assert bound / 2 < noise.max() <= bound * 1.001
    model.eval()
    assert torch.equal(embeddings(ids), before), "no noise but in training"
