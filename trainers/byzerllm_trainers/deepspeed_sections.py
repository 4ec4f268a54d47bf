"""The sections of a ``deepspeedConfig``, checked by the models that DeepSpeed itself reads them with."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from byzerllm_adapters.errors import ByzerError

SECTIONS = ("zero_optimization", "bf16", "fp16", "tensorboard", "wandb", "csv_monitor", "comms_logger")
"""Those that DeepSpeed has a model of; importing it takes seconds, which is done for these only."""


def check_sections(config: Mapping[str, Any]) -> None:
    """Check every section that DeepSpeed has a model of, at any depth.

    Raises:
        ByzerError: an unknown key, with the nearest name, or a value that is not possible.
    """
    given = {name: section for name, section in config.items() if name in SECTIONS and section}
    if not given:
        return
    models = _models()
    for name, section in given.items():
        if not isinstance(section, dict):
            raise ByzerError(f'deepspeedConfig: "{name}" is {section!r}', do="write an object")
        _check(name, section, models[name])


def check_offload(zero: Mapping[str, Any]) -> None:
    """Check that a ``zero_optimization`` section with a stage offloads only what that stage partitions, and to where.

    Raises:
        ByzerError: DeepSpeed would keep it on the device without a word.
    """
    for part, least in (("offload_param", 3), ("offload_optimizer", 1)):
        device = (zero.get(part) or {}).get("device", "none")
        if device not in ("none", "cpu"):
            raise ByzerError(f'deepspeedConfig: "{part}" to {device!r} is not offered', do='write "device": "cpu"')
        if device != "none" and zero["stage"] < least:
            what = f'deepspeedConfig: "{part}" is without effect at ZeRO stage {zero["stage"]}'
            raise ByzerError(what, do=f'write "stage": {3 if least == 3 else 2}, or leave {part} out')


def unknown_key(key: str, known: Collection[str]) -> ByzerError:
    """Return the error for a (dotted) key that DeepSpeed does not know, with the nearest of the ``known`` ones."""
    near = difflib.get_close_matches(key.rpartition(".")[2], known, n=1)
    hint = f'did you mean "{near[0]}"?' if near else "DeepSpeed's configuration reference lists the keys"
    return ByzerError(f'deepspeedConfig: DeepSpeed knows no key "{key}"', do=hint)


def _models() -> dict[str, type[BaseModel]]:
    """Return DeepSpeed's models by the name of their section."""
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.comm.config import CommsLoggerConfig
    from deepspeed.monitor.config import CSVConfig, TensorBoardConfig, WandbConfig
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    models = (
        DeepSpeedZeroConfig,
        DeepSpeedBF16Config,
        DeepSpeedFP16Config,
        TensorBoardConfig,
        WandbConfig,
        CSVConfig,
        CommsLoggerConfig,
    )
    return dict(zip(SECTIONS, models, strict=True))


def _check(name: str, section: Mapping[str, Any], model: type[BaseModel]) -> None:
    try:
        model(**section)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([name, *map(str, first["loc"])])
        if first["type"] == "extra_forbidden":
            raise unknown_key(place, _keys(model, first["loc"][:-1])) from None
        raise ByzerError(
            f'deepspeedConfig: "{place}" is {first["input"]!r}: {first["msg"]}',
            do="DeepSpeed's configuration reference says what it may be",
        ) from None


def _keys(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Return the keys of the object at a path of an error: field names and aliases."""
    for name in path:
        field = next(f for key, f in model.model_fields.items() if name in (key, f.alias))
        inner = [field.annotation, *get_args(field.annotation)]
        model = next(kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel))
    return [field.alias or key for key, field in model.model_fields.items()]
