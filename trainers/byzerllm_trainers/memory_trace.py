"""How much memory a step's tensors take: the real model runs on tensors without data, and each allocation is counted.

A formula in hidden sizes and layers would be one for one family. Here the model's own forward and backward run
over PyTorch's fake tensors (shapes and dtypes, no numbers: `torch._subclasses.FakeTensorMode`), so that whatever
keeps an activation (attention kind, gradient checkpointing, LoRA's branches, a tied head) is in the count because
it is in the code. Billions of parameters take seconds and no memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .model_options import base_of

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class BatchShape:
    """The largest micro-batch: ``rows`` × ``width`` tokens, of which ``supervised`` are predicted.

    With ``packed`` a row holds several examples, which do not see each other.
    """

    rows: int
    width: int
    supervised: int
    packed: bool = False


@dataclass(frozen=True)
class Moment:
    """What forward and backward hold at one time, besides weights.

    Attributes:
        activations: Bytes of all tensors but logits and the gradients that are done.
        logits: Bytes of tensors over the vocabulary: logits, their fp32 copy, the loss' gradient.
        gradients: Elements of weights whose gradients are done.
    """

    activations: int
    logits: int
    gradients: int


def trace_step(model: nn.Module, shape: BatchShape) -> list[Moment]:
    """Return the moments of a micro-batch that can be its largest: for each number of gradients done, the peak.

    The loss is `loss.NextToken`'s: the head sees supervised positions only.
    A gradient leaves the count as soon as it is done, since where it goes depends on ZeRO's stage.

    Args:
        model: On the meta device, in what the run computes in; it is used up.
        shape: The micro-batch.
    """
    import torch
    from torch._subclasses import FakeTensorMode

    from .cross_entropy import summed_cross_entropy

    base = base_of(model)
    vocabulary = int(base.get_output_embeddings().out_features)
    with FakeTensorMode():
        _take_fakes(model)
        ids = torch.zeros(shape.rows, shape.width, dtype=torch.long)
        positions = {"position_ids": torch.zeros_like(ids)} if shape.packed else {}
        chosen = torch.zeros(shape.supervised, dtype=torch.long)

        def pick(_head: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            # as `loss.supervised` does; an index in place of its mask, whose number of positions is data
            return (inputs[0].flatten(0, 1)[chosen], *inputs[1:])

        base.get_output_embeddings().register_forward_pre_hook(pick)
        with _counted(vocabulary) as count:
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(count.gradient_done)
            logits = model(input_ids=ids, **positions, use_cache=False).logits
            summed_cross_entropy(logits, chosen).backward()
    return count.moments()


def trace_optimizer(optimizer: torch.optim.Optimizer) -> tuple[int, int]:
    """Return the bytes of an optimizer's state and, besides, the most that one of its steps takes for a while.

    Args:
        optimizer: Over parameters on the meta device.
    """
    import torch

    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.empty_like(parameter)
    with _counted() as count:
        optimizer.step()
    return count.held, count.most - count.held


class _Count:
    """Bytes of the tensors that live; one that is a view of another counts once."""

    def __init__(self, vocabulary: int | None) -> None:
        self.held = self.most = 0
        self._vocabulary, self._logits, self._gradients = vocabulary, 0, 0
        self._known: set[int] = set()
        self._peaks: dict[int, tuple[int, int]] = {}

    def know(self, tensor: torch.Tensor) -> None:
        """Leave out a tensor that was there before the first operator, such as a weight."""
        self._known.add(tensor.untyped_storage()._cdata)

    def add(self, tensor: torch.Tensor) -> None:
        """Count a tensor that an operator returned, until its memory is free."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        is_logits = tensor.shape[-1:] == (self._vocabulary,) and tensor.is_floating_point() and tensor.ndim == 2
        self._known.add(key)
        self._change(size, logits=is_logits)
        weakref.finalize(storage, self._freed, key, size, is_logits)

    def gradient_done(self, parameter: torch.Tensor) -> None:
        """Note that a weight's gradient is complete, and let go of it."""
        parameter.grad = None
        self._gradients += parameter.numel()
        self._note()

    def moments(self) -> list[Moment]:
        """Return the largest moment for each number of gradients that were done."""
        return [Moment(held - logits, logits, done) for done, (held, logits) in self._peaks.items()]

    def _freed(self, key: int, size: int, is_logits: bool) -> None:
        self._known.discard(key)
        self._change(-size, logits=is_logits)

    def _change(self, size: int, *, logits: bool) -> None:
        self.held += size
        self._logits += size if logits else 0
        self.most = max(self.most, self.held)
        self._note()

    def _note(self) -> None:
        if self.held > self._peaks.get(self._gradients, (-1, 0))[0]:
            self._peaks[self._gradients] = (self.held, self._logits)


@contextmanager
def _counted(vocabulary: int | None = None) -> Iterator[_Count]:
    """Count what operators return."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter

    count = _Count(vocabulary)

    class Counting(TorchDispatchMode):  # type: ignore[misc,unused-ignore]
        def __torch_dispatch__(self, operator: Any, _types: Sequence[type], args: Any = (), options: Any = None) -> Any:
            for value in tree_iter((args, options)):
                if isinstance(value, torch.Tensor):
                    count.know(value)
            result = operator(*args, **(options or {}))
            for value in tree_iter(result):
                if isinstance(value, torch.Tensor):
                    count.add(value)
            return result

    with Counting():
        yield count


def _take_fakes(model: nn.Module) -> None:
    """Put fake CPU tensors in place of a meta model's: the meta device would choose unfused attention.

    Shared weights stay shared.
    """
    import torch

    fakes: dict[int, torch.Tensor] = {}

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        made = torch.empty(tensor.shape, dtype=tensor.dtype)
        return torch.nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else made

    for module in model.modules():
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                if tensor is not None:
                    if id(tensor) not in fakes:
                        fakes[id(tensor)] = fake(tensor)
                    own[name] = fakes[id(tensor)]
