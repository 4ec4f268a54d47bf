"""Find the adapter of a model family by the `pretrainedModelType` of a statement.

A new family is one module and one line in `FAMILIES`.
"""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from typing import cast

from byzerllm_adapters.contract import Family
from byzerllm_adapters.errors import ByzerError

FAMILIES = {
    "auto": "byzerllm_adapters.causal_lm",
    "llama": "byzerllm_adapters.causal_lm",
    "llama2": "byzerllm_adapters.llama2",
    "baichuan": "byzerllm_adapters.baichuan",
    "moss": "byzerllm_adapters.moss",
    "alpha_moss": "byzerllm_adapters.moss",
    "qwen": "byzerllm_adapters.qwen",
    "falcon": "byzerllm_adapters.falcon",
}

METHODS = ("sft", "sfft", "dpo")
"""The ways to train, which may stand before a family; the trainers declare what each takes."""


def find(pretrained_model_type: str) -> Family:
    """Import and return the adapter for `NAME` or `METHOD/NAME`, a method being a way to train.

    `custom/MODULE` is a module of the user's, with `init_model`, that Python can import (on the workers too).

    Raises:
        ByzerError: No such family, with the nearest name and the list; or no such module of the user's.
    """
    name = check_name(pretrained_model_type)
    if name.startswith("custom/"):
        return _custom(name.removeprefix("custom/"))
    return cast(Family, importlib.import_module(FAMILIES[name]))


def check_name(pretrained_model_type: str) -> str:
    """Return the family's name without importing it, nor anything heavy.

    Raises:
        ByzerError: No such family, with the nearest name and the list.
    """
    name = pretrained_model_type.strip()
    method, _, family = name.partition("/")
    name = family if method in METHODS else name
    if name not in FAMILIES and not name.startswith("custom/"):
        near = get_close_matches(name.lower(), FAMILIES, n=1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise ByzerError(
            f"there is no adapter for pretrainedModelType {pretrained_model_type!r}",
            where="in pretrainedModelType",
            do=f"{guess}known: {', '.join(FAMILIES)}, custom/MODULE",
        )
    return name


def _custom(module: str) -> Family:
    try:
        adapter = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there; something that it imports is not
        raise ByzerError(
            f"there is no module {module!r} for pretrainedModelType 'custom/{module}'",
            do="install it, or put its folder on sys.path, where the model will run",
        ) from error
    except (TypeError, ValueError) as error:  # a relative name, or none
        raise ByzerError(f"{module!r} is not the name of a module", do="write custom/MODULE") from error
    if not callable(getattr(adapter, "init_model", None)):
        raise ByzerError(
            f"module {module!r} is not an adapter: it has no init_model",
            do="define init_model(model_dir, infer_params={}, sys_conf={}) -> (model, tokenizer)",
        )
    return cast(Family, adapter)
