"""A look at a model folder before anything is started for it; imports nothing heavy."""

from __future__ import annotations

import difflib
from pathlib import Path

from byzerllm_adapters.errors import ByzerError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
)


def check_model_folder(model_dir: str, key: str = "localModelDir") -> Path:
    """Return the absolute path of a model (or peft adapter) folder, the value of ``key``.

    Raises:
        ByzerError: there is no such folder (with the nearest name), or it holds no model.
    """
    path = Path(model_dir).expanduser().absolute()
    if not path.is_dir():
        raise ByzerError(f'no folder "{model_dir}"', where=f"in {key}", do=_instead(path))
    if not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise ByzerError(
            f'"{model_dir}" has no config.json, so it is not a transformers model folder',
            where=f"in {key}",
            do="save model and tokenizer there with their save_pretrained(…)",
        )
    return path


def has_weights(folder: Path) -> bool:
    """Return whether a folder holds weights that transformers reads, whole or in parts."""
    return any(any(folder.glob(kind)) for kind in ("*.safetensors", "*.bin"))


def check_tokenizer_path(tokenizer_path: str) -> None:
    """Look at what is to be a tokenizer: a folder, a `tokenizer.json` or a sentencepiece model.

    Raises:
        ByzerError: there is nothing (with the nearest name), or nothing of the kind.
    """
    path = Path(tokenizer_path).expanduser().absolute()
    where, do = "in tokenizer_path", "give a tokenizer's folder, a tokenizer.json or a sentencepiece tokenizer.model"
    if not path.exists():
        raise ByzerError(f'no folder or file "{tokenizer_path}"', where=where, do=_instead(path, files=True))
    if path.is_dir() and not any((path / name).is_file() for name in TOKENIZER_FILES):
        raise ByzerError(f'"{tokenizer_path}" holds no tokenizer', where=where, do=do)
    if path.is_file() and path.suffix not in (".json", ".model"):
        raise ByzerError(f'"{tokenizer_path}" is no tokenizer', where=where, do=do)


def _instead(path: Path, *, files: bool = False) -> str:
    """Say what there is where ``path`` is not."""
    siblings = [p.name for p in path.parent.iterdir() if files or p.is_dir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    return f'did you mean "{path.parent / near[0]}"?' if near else f"paths are relative to {Path.cwd()}"
