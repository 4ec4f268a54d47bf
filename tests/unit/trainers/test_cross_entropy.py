"""The summed cross entropy and its gradient are PyTorch's."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from byzerllm_trainers.cross_entropy import summed_cross_entropy

LABELS = torch.arange(40) * 7 % 300


def logits(dtype: torch.dtype, spread: float = 4.0) -> torch.Tensor:
    return (torch.randn(40, 300, generator=torch.Generator().manual_seed(1)) * spread).to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spread", [0.0, 4.0, 100.0])
def test_loss_and_gradient_are_pytorchs(dtype: torch.dtype, spread: float) -> None:
    theirs, ours = logits(dtype, spread), logits(dtype, spread)
    expected = cross_entropy(theirs.float(), LABELS, reduction="sum")
    found = summed_cross_entropy(ours, LABELS)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    (expected * 0.3).backward()
    (found * 0.3).backward()
    assert ours.grad is not None
    assert ours.grad.dtype == dtype
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_no_tokens_cost_nothing() -> None:
    none = torch.empty(0, 300, requires_grad=True)
    loss = summed_cross_entropy(none, torch.empty(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert none.grad is not None
    assert none.grad.shape == (0, 300)


def test_logits_that_are_not_numbers_make_a_loss_that_is_none() -> None:
    broken = logits(torch.float32).detach()
    broken[3, 5] = float("nan")
    assert not torch.isfinite(summed_cross_entropy(broken, LABELS))


def test_the_logits_stay_as_they_were() -> None:
    ours = logits(torch.float32)
    before = ours.detach().clone()
    summed_cross_entropy(ours, LABELS).backward()
    assert torch.equal(ours.detach(), before)


def test_a_second_backward_is_refused() -> None:
    loss = summed_cross_entropy(logits(torch.float32), LABELS)
    loss.backward(retain_graph=True)
    with pytest.raises(AssertionError, match="overwritten"):
        loss.backward()
