"""An adapter into its base: a model folder that needs no peft."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzerllm_adapters import registry
from byzerllm_adapters.errors import ByzerError

from ..job_folder import Record, read_json
from .new_folder import check_free, new_folder

if TYPE_CHECKING:
    import torch

PROMPTS = ("The capital of France is", "今天天气很好，我们一起去", "def add(a, b):\n    return")
"""What the merged model is compared on."""

TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""How far the merged model's logits may be from those of base and adapter, relative (see `_distance`).

The merged weights are rounded once more than those of the base; what is wrong, not rounded, is far beyond.
"""


def merge(
    adapter: Path,
    target: Path,
    *,
    base: Path | None = None,
    family: str = "auto",
    dtype: str = "bfloat16",
    trust_remote_code: bool = False,
) -> Iterator[str | Record]:
    """Write the base with the adapter's weights added, tokenizer and chat template to ``target``.

    Yields what it is doing, and last a record: ``model``, ``adapter``, ``base``, ``dtype``, ``difference`` (of the
    logits of what was written from those of base and adapter, relative), ``tolerance``, and ``effect`` (how much the
    adapter changes the base's logits, the same measure).

    Args:
        adapter: A peft adapter's folder.
        target: Where nothing is yet; it appears when the result was verified.
        base: The base's folder; None: as the adapter records it. It is loaded in ``dtype``, also where the adapter
            was trained on four bits.
        family: As ``pretrainedModelType``.
        dtype: ``bfloat16``, ``float16`` or ``float32``.
        trust_remote_code: Run the base's own code.

    Raises:
        ByzerError: there is no adapter or no base, they do not fit, or the result computes something else.
    """
    from byzerllm_adapters import loading

    check_free(target)
    if not loading.is_adapter(adapter):
        raise ByzerError(
            f"{adapter} holds no adapter to merge",
            where="in localModelDir",
            do="give a folder with adapter_config.json; a whole model needs no merging",
        )
    base = base or loading.base_of(adapter)
    if (base / "config.json").is_file() and "quantization_config" in read_json(base / "config.json"):
        raise ByzerError(
            "the base is stored in few bits, and merging into those ruins it",
            where=str(base),
            do="give the folder of the unquantised base as modelNameOrPath",
        )
    loaders = registry.find(family)
    tokenizer_dir = adapter if loading.has_tokenizer(adapter) else base
    tokenizer = loaders.load_tokenizer(str(tokenizer_dir), trust_remote_code=trust_remote_code)
    yield f"loading {base.name} in {dtype}"
    model = loaders.load_model(str(base), dtype=dtype, trust_remote_code=trust_remote_code)
    untouched = _logits(model, tokenizer)
    model = loading.attach_adapter(model, adapter)
    expected = _logits(model, tokenizer)
    yield "merging"
    model = model.merge_and_unload(safe_merge=True)
    with new_folder(target) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        del model
        yield "verifying"
        merged = loaders.load_model(str(folder), dtype=dtype, trust_remote_code=trust_remote_code)
        difference = _distance(_logits(merged, tokenizer), expected)
        if not difference <= TOLERANCE[dtype]:  # nan is no match either
            raise ByzerError(
                f"the merged model is not base and adapter: its logits differ by {difference:.2g} "
                f"(allowed in {dtype}: {TOLERANCE[dtype]:g})",
                where=str(adapter),
                do='write dtype="float32" if the adapter is large; nothing was written',
            )
    yield {
        "model": str(target),
        "adapter": str(adapter),
        "base": str(base),
        "dtype": dtype,
        "difference": difference,
        "tolerance": TOLERANCE[dtype],
        "effect": _distance(expected, untouched),
    }


def _logits(model: Any, tokenizer: Any) -> list[torch.Tensor]:
    """Return the logits for each of `PROMPTS`, ``[tokens, vocabulary]`` in fp32."""
    import torch

    found = []
    with torch.no_grad():
        for prompt in PROMPTS:
            ids = tokenizer(prompt, return_tensors="pt")["input_ids"].to(model.device)
            found.append(model(input_ids=ids, use_cache=False).logits[0].float().cpu())
    return found


def _distance(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """Return the norm of the difference over that of what was expected."""
    import torch

    one, other = torch.cat(found), torch.cat(expected)
    return float((one - other).norm() / other.norm())
