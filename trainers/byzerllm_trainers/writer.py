"""Writing a rank's part of a checkpoint while training goes on.

DeepSpeed hands the content of each file to its checkpoint engine. Ours copies the tensors to memory, which is all
that training waits for; a thread writes the files, puts them on the disk for certain, and notes their digests.
"""

from __future__ import annotations

import copy
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from .job_folder import Record, write_json


class BackgroundWriter:
    """DeepSpeed's checkpoint engine, but for `save`, which only copies; `start` then writes.

    Args:
        inner: DeepSpeed's own, which does all the rest.

    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._copies: list[tuple[Path, Any]] = []
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def save(self, state_dict: Any, path: str | Path) -> None:
        """Copy the content of a file."""
        self._copies.append((Path(path), in_memory(state_dict)))

    def start(self, index: Path) -> None:
        """Write what was copied, from a thread, and at last ``index``: size and SHA-256 of each file.

        Their names there are relative to its folder.
        """
        assert not self.is_writing(), "one checkpoint at a time"
        self._thread = threading.Thread(target=self._write, args=(index,), name="checkpoint", daemon=True)
        self._thread.start()

    def is_writing(self) -> bool:
        """Whether files are still to be written."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self, on_look: Callable[[], None] = lambda: None) -> None:
        """Wait until all is written; raises as `check` does. ``on_look`` is called meanwhile, once a second."""
        while self.is_writing():
            assert self._thread is not None
            self._thread.join(1.0)
            on_look()
        self.check()

    def check(self) -> None:
        """Raise what kept files from being written, if anything did.

        Raises:
            OSError: the disk refused them.
        """
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(self, index: Path) -> None:
        written: list[Path] = []
        files: Record = {}
        try:
            while self._copies:
                path, state = self._copies.pop(0)
                written.append(path)
                files[str(path.relative_to(index.parent))] = write_file(path, state)
            write_json(index, files)
        except BaseException as error:  # noqa: BLE001 - `check` raises it where the loop is
            self._copies.clear()
            for path in written:  # half a checkpoint is only in the way on a full disk
                path.unlink(missing_ok=True)
            self._error = error


def write_file(path: Path, state: Any) -> Record:
    """Write ``state`` as torch does, and return the file's size and SHA-256.

    Raises:
        OSError: the disk refuses it.
    """
    import torch

    with path.open("wb") as file:
        digesting = _Digesting(file)
        try:
            torch.save(state, digesting)
            file.flush()
            os.fsync(file.fileno())
        except Exception as error:
            refused = digesting.error or (error if isinstance(error, OSError) else None)
            if refused is None:
                raise
            raise OSError(refused.errno, refused.strerror, str(path)) from error  # torch's own names no reason
    return {"bytes": digesting.size, "sha256": digesting.digest.hexdigest()}


class _Digesting:
    """A file that is written from its beginning to its end, and the digest of what was."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest, self.size = hashlib.sha256(), 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            written = self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise
        self.digest.update(data)
        self.size += written
        return written

    def flush(self) -> None:
        self._file.flush()


def in_memory(state: Any, copies: dict[Any, Any] | None = None) -> Any:
    """Return a copy of nested dicts, lists and tensors whose tensors lie in the CPU's memory.

    Args:
        state: Is not changed; training may change its tensors afterwards.
        copies: Tensors copied before: one that is there twice, such as a tied weight, is copied once.
    """
    import torch

    copies = {} if copies is None else copies
    if isinstance(state, torch.Tensor):
        key = (state.untyped_storage()._cdata, state.storage_offset(), state.shape, state.stride(), state.dtype)
        if key not in copies:
            copies[key] = state.detach().to("cpu", copy=True)
        return copies[key]
    if isinstance(state, dict):
        copied = {key: in_memory(value, copies) for key, value in state.items()}
        return copied if type(state) is dict else type(state)(copied)
    if isinstance(state, list | tuple) and type(state) in (list, tuple):
        return type(state)(in_memory(value, copies) for value in state)
    return copy.deepcopy(state)
