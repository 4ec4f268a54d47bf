"""LoRA layers computed as one operation are peft's: outputs, gradients, files; what they cannot do stays peft's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners import lora
from torch import nn

from byzerllm_trainers.lora_linear import LoraLinear, fuse_lora

X = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(2))


class Two(nn.Module):
    """Two linear layers with a bias, and one that is left alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(32, 48), nn.Linear(48, 32), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.second(torch.relu(self.first(x)))))


def adapted(**options: Any) -> Any:
    torch.manual_seed(0)
    model = get_peft_model(Two(), LoraConfig(r=4, target_modules=["first", "second"], **options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)  # peft begins with zeros, which would hide what A does
    return model.train()


def fused(**options: Any) -> Any:
    model = adapted(**options)
    fuse_lora(model)
    return model


def layers(model: Any) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, lora.Linear)]


def outcome(model: Any, x: torch.Tensor = X) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(3)  # of the dropout
    x = x.clone().requires_grad_()
    y = model(x)
    y.square().sum().backward()
    assert x.grad is not None
    return y.detach(), {"x": x.grad} | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("rslora", [False, True])
def test_outputs_and_gradients_are_pefts(dropout: float, rslora: bool) -> None:
    options = {"lora_dropout": dropout, "use_rslora": rslora}
    theirs, ours = adapted(**options), fused(**options)
    assert {type(layer) for layer in layers(ours)} == {LoraLinear}
    (y, gradients), (expected_y, expected) = outcome(ours), outcome(theirs)
    torch.testing.assert_close(y, expected_y)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


def test_half_precision_is_as_exact_as_pefts() -> None:
    exact, _ = outcome(adapted())
    theirs, _ = outcome(adapted().bfloat16(), X.bfloat16())
    ours, _ = outcome(fused().bfloat16(), X.bfloat16())
    assert (ours.float() - exact).norm() <= 1.1 * (theirs.float() - exact).norm()


def test_an_input_of_another_precision_is_left_to_peft() -> None:
    ours, theirs = fused(), adapted()
    torch.testing.assert_close(ours(X.double().float()), theirs(X))
    assert layers(ours.bfloat16())[0](X.bfloat16()).dtype == torch.bfloat16


def test_without_the_adapter_the_layer_is_its_base() -> None:
    ours = fused()
    with ours.disable_adapter():
        torch.testing.assert_close(ours(X), ours.get_base_model()(X))
        off = ours(X)
    assert not torch.allclose(off, ours(X))


def test_merging_and_saving_are_pefts(tmp_path: Path) -> None:
    ours, theirs = fused(), adapted()
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    file = "adapter_model.safetensors"
    assert (tmp_path / "ours" / file).read_bytes() == (tmp_path / "theirs" / file).read_bytes()
    expected = theirs.eval()(X)
    torch.testing.assert_close(ours.eval().merge_and_unload()(X), expected)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}, {"bias": "all"}])
def test_layers_with_more_to_them_stay_pefts(options: dict[str, Any]) -> None:
    assert {type(layer) for layer in layers(fused(**options))} == {lora.Linear}
