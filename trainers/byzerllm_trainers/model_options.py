"""What a run asks of the model itself: recomputed activations, noisy embeddings, a compiled body."""

from __future__ import annotations

import math
import os
import shutil
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .loop_settings import LoopSettings


def apply_model_options(model: Any, settings: LoopSettings) -> None:
    """Make a causal language model, or a peft model around one, train as the settings say; in place.

    Raises:
        ByzerError: it is to be compiled, and this machine has no C++ compiler.
    """
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if settings.neftune:
        add_embedding_noise(model, settings.neftune)
    if settings.torch_compile:
        check_compiler()
        # the head stays as it is: it sees another number of supervised positions each time (see loss.py)
        base_of(model).get_decoder().compile(dynamic=True)


def base_of(model: Any) -> Any:
    """Return the causal language model, out of a peft model."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def add_embedding_noise(model: Any, alpha: float) -> None:
    """Add NEFTune's noise to the embeddings while the model is in training mode (Jain et al., 2023).

    Each number gets a uniform one of at most ``alpha / sqrt(width * size)``. Nothing of it is saved.
    """
    import torch

    def with_noise(embeddings: nn.Module, _ids: object, output: torch.Tensor) -> torch.Tensor:
        if not embeddings.training:
            return output
        bound = alpha / math.sqrt(output.shape[1] * output.shape[2])
        return output + torch.empty_like(output).uniform_(-bound, bound)

    base_of(model).get_input_embeddings().register_forward_hook(with_noise)


def check_compiler() -> None:
    """Check that what torch.compile calls is there.

    Raises:
        ByzerError: it is not, and how to get it.
    """
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    if not any(shutil.which(name) for name in names):
        raise ByzerError(
            f"torch_compile needs a C++ compiler, and there is no {' or '.join(names)} where the worker runs",
            do="install one (Debian, Ubuntu: apt-get install g++) on every node, or leave torch_compile out",
        )
