"""Token shards are found again: by what they were made of, among the jobs beside this one.

What was made of the same rows, tokenizer, chat template and settings, by the same code, is linked into the job's own
folder. The files are then both jobs', and stay when either is deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import fields
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .encoder import Encoder
from .job_folder import JobFolder, read_json
from .parts import Part
from .shards import FILES, MANIFEST

DECIDING = (
    *(f"byzerllm_adapters.{name}" for name in ("contract", "conversations", "outlines", "pieces")),
    *(f"byzerllm_adapters.{name}" for name in ("rendering", "rows", "preference_rows", "templates")),
    *(f"byzerllm_trainers.{name}" for name in ("corpus", "data_files", "encoder", "parts", "shards", "tokenise")),
)
"""Our modules that decide what a row becomes, besides the encoder's own."""

LIBRARIES = ("tokenizers", "transformers", "jinja2")


def content_key(sources: Iterable[tuple[Encoder, Sequence[Part]]], settings: Any) -> str:
    """Return the SHA-256 of everything that shards are made of; no path is part of it.

    Args:
        sources: Encoders and the rows that each gets.
        settings: How examples are divided, as JSON has it.
    """
    digest = hashlib.sha256()

    def add(*values: object) -> None:
        digest.update(json.dumps(values, default=str).encode() + b"\n")

    add(settings, [(name, version(name)) for name in LIBRARIES])
    for encoder, parts in sources:
        add([_code(name) for name in (type(encoder).__module__, *DECIDING)])
        chosen = {field.name: getattr(encoder, field.name) for field in fields(encoder)}  # type: ignore[arg-type]
        add({name: value for name, value in chosen.items() if name != "tokenizer"}, _tokenizer_files(encoder.tokenizer))
        add([(path.suffix, _digest(path)) for path in dict.fromkeys(path for part in parts for path in part.paths)])
    return digest.hexdigest()


def link_same(folder: JobFolder, key: str) -> str | None:
    """Give a job the shards that another under the same ``localPathPrefix`` has made of the same.

    Returns:
        The other job's name; None: there is none.
    """
    for manifest in sorted(folder.root.parent.glob(f"*/data/{folder.shards.name}/{MANIFEST}")):
        other = JobFolder(manifest.parents[2])
        if other.root == folder.root:
            continue
        try:
            if read_json(manifest).get("content") != key:
                continue
            # what is trained on comes last: where it is, all is there
            for source, target in ((other.held_out, folder.held_out), (other.shards, folder.shards)):
                if source.exists():
                    _link(source, target)
        except FileNotFoundError:  # it is being deleted
            shutil.rmtree(folder.held_out, ignore_errors=True)
            continue
        return other.name
    return None


def _link(source: Path, target: Path) -> None:
    """Link a shard folder's files, its manifest last; copy them where the file system has no links."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in (*FILES, MANIFEST):
        try:
            os.link(source / name, target / name)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(source / name, target / name)


def _tokenizer_files(tokenizer: Any) -> list[tuple[str, str]]:
    """Return the digests of what a tokenizer is saved as, its chat template included."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return [(path.name, _digest(path)) for path in sorted(Path(folder).iterdir())]


def _code(module: str) -> str:
    """Return the digest of a module's source."""
    spec = find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    return _digest(Path(spec.origin))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
