"""Whether a job's model folder can be trained as its cell says: found out before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byzerllm_adapters import registry
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.model_folder import check_model_folder, has_weights

from .optimization_parameters import FineTuningParameters

if TYPE_CHECKING:
    from pathlib import Path

    from .train_parameters import TrainParameters


TOKENIZER_FILES = ("token", "vocab", "merges", "spiece")
"""How the names of a tokenizer's files begin."""


def check_model(train: TrainParameters) -> None:
    """Check the folder of the model to begin with, without reading its weights.

    Raises:
        ByzerError: there is none, it lacks weights that are not to be new, it is an adapter where a model is
            needed, or it has no layer of a name in ``target_modules``.
    """
    folder = check_model_folder(train.local_model_dir)
    ours = not train.family.startswith("custom/")
    if not (folder / "config.json").is_file():
        _check_adapter(folder, train)
    elif train.method == "sfft" and train.sfft.from_scratch:
        _check_tokenizer(folder, train)
    elif ours and not has_weights(folder):
        raise ByzerError(
            "the model folder has a config.json and no weights",
            where=str(folder),
            do="copy the *.safetensors there"
            + (', or write sfft.bool.from_scratch="true" to begin with new ones' if train.method == "sfft" else ""),
        )
    keys = train.optimization
    named = keys.model_fields_set & {"target_modules", "modules_to_save"}
    if ours and isinstance(keys, FineTuningParameters) and named:
        from .finetuning import check_modules

        check_modules(_skeleton(folder, train.family), keys)


def _check_tokenizer(folder: Path, train: TrainParameters) -> None:
    """Refuse a folder that has a configuration alone, where no other tokenizer is named."""
    if not train.sfft.tokenizer_path and not any(path.name.startswith(TOKENIZER_FILES) for path in folder.iterdir()):
        raise ByzerError(
            "the model folder has no tokenizer",
            where=str(folder),
            do="write sfft.tokenizer_path: a tokenizer's folder, a tokenizer.json or a sentencepiece model",
        )


def _check_adapter(folder: Path, train: TrainParameters) -> None:
    """Refuse an adapter where its base is what the result would be saved for."""
    if train.method == "sfft" and train.sfft.from_scratch:
        raise ByzerError(
            "from_scratch needs a config.json, and this is the folder of an adapter",
            where=str(folder),
            do="give the base model's folder as localModelDir",
        )
    if not train.optimization.whole:
        raise ByzerError(
            "localModelDir is an adapter: another one on it would be saved as if it were its base's",
            where=str(folder),
            do='train on with resume_from_checkpoint, or train all weights: sft.finetuning_type="full"'
            if train.method == "sft"
            else 'merge it into its base first: action="merge"',
        )


def _skeleton(folder: Path, family: str) -> Any:
    """Return the folder's model without weights: its modules on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    registry.find(family)  # may register its classes
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        raise ByzerError(f"config.json does not make a model: {error}", where=str(folder)) from error
