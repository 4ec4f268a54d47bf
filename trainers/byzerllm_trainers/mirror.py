"""A job folder's copy at an ``s3://`` address: what is left when the machine that trains is gone.

Training works in a folder on disk. The job's coordinator copies there what is new, and whoever goes on with the job or
looks at it elsewhere fetches it. At the address are the folder's files under their names, but for three things:

- what only grows (records, logs) lies in pieces ``FILE/OFFSET``, so that a copy sends only what is new;
- a claim is ``leases/N-WHO``: an object cannot be made exclusively, so a claim counts if it is found alone;
- a folder with a manifest (a checkpoint, token shards) is there when its manifest is, which comes last.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from byzerllm_adapters.errors import ByzerError

from .job_folder import UNPUBLISHED, JobFolder, LeaseLost

SCHEME = "s3://"
MANIFEST = "manifest.json"
LEASES = "leases"
EVENTS = "events.jsonl"

STAYS = ("afterwards", ".reserve")
"""What belongs to the machine, and may hold secrets."""

AT_ONCE = 8 * 2**20
"""So many bytes of a file are in memory: it may be larger than that."""

YIELD_SECONDS = 1.0
"""Two who claim one attempt at once both yield, and try again within this time."""

CONNECT_SECONDS, REQUEST_SECONDS = 5, 60


def is_remote(prefix: str) -> bool:
    """Whether job folders of this ``localPathPrefix`` are copied to an object store."""
    return prefix.startswith(SCHEME)


def working_folder(prefix: str) -> Path:
    """Return where job folders are on disk: the prefix, or for an address its place in the user's cache."""
    if not is_remote(prefix):
        return Path(prefix)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "byzerllm" / "s3" / prefix.removeprefix(SCHEME).strip("/")


def mirror_of(folder: JobFolder) -> Mirror | None:
    """Return a job's copy; None: it has none.

    Raises:
        ByzerError: its address is none.
    """
    prefix = str(folder.request().get("parameters", {}).get("localPathPrefix", ""))
    return Mirror(folder, f"{prefix.rstrip('/')}/{folder.name}") if is_remote(prefix) else None


def fetch(address: str) -> JobFolder:
    """Fetch the job at an address, unless what is on disk is as new; return its folder.

    Raises:
        ByzerError: there is no job, or the address cannot be reached.
    """
    prefix, _, name = address.rstrip("/").rpartition("/")
    folder = JobFolder(working_folder(prefix) / name)
    Mirror(folder, f"{prefix}/{name}").fetch()
    return folder


class Mirror:
    """The copy of a job's folder.

    Args:
        folder: The job's.
        address: ``s3://bucket/…/NAME``.

    Raises:
        ByzerError: that is no address.
    """

    def __init__(self, folder: JobFolder, address: str) -> None:
        self.address = address
        self._folder = folder
        self._store, self._base = _open(address)
        self._sent: dict[str, tuple[int, int]] = {}
        """Size and time of change of the files that were sent."""
        self._copied: dict[str, int] = {}
        """How much of what only grows was sent, in bytes, where that is known."""

    # -- who may write ----------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether a job is there. Raises `ByzerError` where nobody can tell."""
        try:
            return bool(self._store.get_file_info(f"{self._base}/job.json").is_file)
        except OSError as error:
            raise unreachable(self.address, error) from error

    def newest(self) -> int:
        """Return the number of the newest attempt that was claimed there; 0: none was."""
        return max((attempt for attempt, _ in self._claims()), default=0)

    def claim(self, attempt: int, owner: str) -> None:
        """Become its newest attempt.

        Raises:
            LeaseLost: it has one that is newer, or somebody else claims the same number now.
            OSError: it cannot be reached.
        """
        mine = f"{attempt}-{hashlib.sha256(owner.encode()).hexdigest()[:12]}"
        while self.newest() < attempt:
            self._write(f"{LEASES}/{mine}", owner.encode())
            if [claim for number, claim in self._claims() if number >= attempt] == [mine]:
                return
            self._store.delete_file(f"{self._base}/{LEASES}/{mine}")
            time.sleep(random.uniform(0, YIELD_SECONDS))  # the other may have yielded, too
        self.check_lease(attempt - 1)

    def check_lease(self, attempt: int) -> None:
        """Let the folder know of a newer attempt elsewhere, so that all who write there end.

        Raises:
            LeaseLost: there is one.
            OSError: it cannot be reached.
        """
        if (newest := self.newest()) > attempt:
            (self._folder.root / LEASES / str(newest)).write_text(f"at {self.address}", encoding="utf-8")
            raise LeaseLost(
                f"job {self._folder.name}: attempt {newest} took over from attempt {attempt} at {self.address}",
                do=f'"%byzerllm attach {self.address}" shows it',
            )

    def _claims(self) -> list[tuple[int, str]]:
        names = [name.rpartition("/")[2] for name in self._listed(LEASES)]
        return [(int(name.partition("-")[0]), name) for name in names]

    # -- there ------------------------------------------------------------------------------------------

    def push(self, attempt: int) -> None:
        """Send what is new; what was removed here is removed there.

        A reader finds nothing announced that is not there: records of steps come before the checkpoint of the last
        of them, and the events, which name them, at the end.

        Args:
            attempt: Which one writes.

        Raises:
            LeaseLost: another attempt goes on elsewhere.
            OSError: it cannot be reached.
        """
        self.check_lease(attempt)
        sealed = self._sealed()
        events = self._growth(EVENTS)
        for path in self._loose():
            self._send_loose(path)
        for folder in sealed:
            self._send_sealed(folder)
        self._forget_removed(sealed)
        self.check_lease(attempt)
        self._send_growth(EVENTS, events)

    def _sealed(self) -> list[Path]:
        """Return the folders that are complete, for they have a manifest."""
        places = (self._folder.checkpoints, self._folder.data)
        found = [path.parent for place in places for path in place.glob(f"*/{MANIFEST}")]
        return sorted(path for path in found if not path.name.startswith(UNPUBLISHED))

    def _loose(self) -> Iterator[Path]:
        """Yield the other files, but for the events."""
        root = self._folder.root
        for path in sorted(root.rglob("*")):
            top, *inside = path.relative_to(root).parts
            if top in (*STAYS, LEASES, EVENTS, "checkpoints") or path.name.startswith(".") or not path.is_file():
                continue
            if top != "data" or len(inside) == 1:  # deeper there are shards, or what an attempt still makes of them
                yield path

    def _send_loose(self, path: Path) -> None:
        name = str(path.relative_to(self._folder.root))
        if _grows(name):
            self._send_growth(name, self._growth(name))
            return
        found = path.stat()
        if self._sent.get(name) != (found.st_size, found.st_mtime_ns):
            self._send(path)
            self._sent[name] = (found.st_size, found.st_mtime_ns)

    def _growth(self, name: str) -> bytes:
        """Return what a file that only grows has more than the copy: of records, whole lines."""
        path, reached = self._folder.root / name, self._reached_of(name)
        if not path.exists():
            return b""
        if path.stat().st_size < reached:  # it was begun anew
            self._store.delete_dir(f"{self._base}/{name}")
            reached = self._copied[name] = 0
        with path.open("rb") as handle:
            handle.seek(reached)
            new = handle.read()
        return new[: new.rfind(b"\n") + 1] if name.endswith(".jsonl") else new

    def _send_growth(self, name: str, new: bytes) -> None:
        if new:
            reached = self._reached_of(name)
            self._write(f"{name}/{reached:016d}", new)
            self._copied[name] = reached + len(new)

    def _reached_of(self, name: str) -> int:
        """Return how many bytes of a file that only grows the copy has; another coordinator may have sent some."""
        if name not in self._copied:
            pieces = self._sizes(name).items()
            self._copied[name] = max((int(piece.rpartition("/")[2]) + size for piece, size in pieces), default=0)
        return self._copied[name]

    def _send_sealed(self, folder: Path) -> None:
        """Send a folder that does not change any more, its manifest last, unless just that is there."""
        name = str(folder.relative_to(self._folder.root))
        try:
            manifest = (folder / MANIFEST).read_bytes()
            stamp = (len(manifest), hash(manifest))
            if self._sent.get(name) == stamp:
                return
            if self._read(f"{name}/{MANIFEST}") != manifest:
                self._remove(name)
                for path in sorted(folder.rglob("*")):
                    if path.is_file() and path.name != MANIFEST:
                        self._send(path)
                self._write(f"{name}/{MANIFEST}", manifest)
            self._sent[name] = stamp
        except FileNotFoundError:  # a newer checkpoint has pushed it out meanwhile
            self._remove(name)

    def _forget_removed(self, sealed: list[Path]) -> None:
        """Remove there the folders with a manifest that are not here any more."""
        here = {str(path.relative_to(self._folder.root)) for path in sealed}
        names = (name.split("/") for place in ("checkpoints", "data") for name in self._sizes(place))
        for name in {f"{top}/{inner[0]}" for top, *inner in names if len(inner) > 1} - here:
            self._remove(name)

    def _remove(self, name: str) -> None:
        """Remove a folder with a manifest: that first, for half a folder is none."""
        path = f"{self._base}/{name}"
        if self._store.get_file_info(f"{path}/{MANIFEST}").is_file:
            self._store.delete_file(f"{path}/{MANIFEST}")
        if self._listed(name):
            self._store.delete_dir(path)

    # -- and back ---------------------------------------------------------------------------------------

    def fetch(self) -> None:
        """Make the folder what the copy is, unless it is as new.

        Raises:
            ByzerError: there is no job, or it cannot be reached.
        """
        if not self.exists():
            raise ByzerError(f"there is no job at {self.address}", do="an address is s3://bucket/…/NAME")
        try:
            if not self._folder.exists() or self._folder.attempt() < self.newest():
                self._fetch()
        except OSError as error:
            raise unreachable(self.address, error) from error

    def _fetch(self) -> None:
        """Bring everything; the claims last: before they are there, the folder is not as new."""
        root, names = self._folder.root, sorted(self._sizes(""))
        shutil.rmtree(root, ignore_errors=True)
        for folder in (self._folder.data, self._folder.checkpoints, self._folder.logs):
            folder.mkdir(parents=True)
        for name in names:
            file, _, piece = name.rpartition("/")
            if file == LEASES:
                continue
            path = root / (file if _grows(file) else name)
            path.parent.mkdir(parents=True, exist_ok=True)
            mode = "ab" if _grows(file) and int(piece) else "wb"
            with self._store.open_input_stream(f"{self._base}/{name}") as source, path.open(mode) as target:
                shutil.copyfileobj(source, target, AT_ONCE)
        (root / LEASES).mkdir(exist_ok=True)
        for attempt, claim in self._claims():
            (root / LEASES / str(attempt)).write_bytes(self._read(f"{LEASES}/{claim}") or b"")

    # -- the store --------------------------------------------------------------------------------------

    def _listed(self, name: str) -> list[str]:
        return list(self._sizes(name))

    def _sizes(self, name: str) -> dict[str, int]:
        """Return the files below a folder of the copy, by their name in it, with their sizes."""
        from pyarrow.fs import FileSelector

        below = f"{self._base}/{name}".rstrip("/")
        found = self._store.get_file_info(FileSelector(below, allow_not_found=True, recursive=True))
        return {info.path.removeprefix(f"{self._base}/"): info.size for info in found if info.is_file}

    def _send(self, path: Path) -> None:
        """Send a file as it is now."""
        name = str(path.relative_to(self._folder.root))
        with path.open("rb") as source, self._store.open_output_stream(f"{self._base}/{name}") as target:
            shutil.copyfileobj(source, target, AT_ONCE)

    def _write(self, name: str, content: bytes) -> None:
        with self._store.open_output_stream(f"{self._base}/{name}") as target:
            target.write(content)

    def _read(self, name: str) -> bytes | None:
        """Return a file of the copy; None: there is none."""
        try:
            with self._store.open_input_stream(f"{self._base}/{name}") as source:
                return bytes(source.read())
        except FileNotFoundError:
            return None


def _grows(name: str) -> bool:
    """Whether a file of the folder is only appended to."""
    return name.endswith((".jsonl", ".log")) or name.startswith("tensorboard/")


def _open(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it.

    The key comes from where AWS's own tools take it (environment, ~/.aws), another server from AWS_ENDPOINT_URL.

    Raises:
        ByzerError: that is no address.
    """
    from pyarrow.fs import S3FileSystem

    path = address.removeprefix(SCHEME).strip("/")
    if not address.startswith(SCHEME) or path.count("/") < 1:
        raise ByzerError(f"{address!r} is no address of a job", do="write s3://bucket/folder")
    server = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "https://")
    store = S3FileSystem(
        endpoint_override=server.netloc or None,
        scheme=server.scheme,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=REQUEST_SECONDS,
    )
    return store, path


def unreachable(address: str, error: OSError) -> ByzerError:
    """Return what a user is told when an address cannot be reached."""
    said = str(error).strip().splitlines()
    return ByzerError(
        f"cannot reach {address}: {said[0] if said else type(error).__name__}",
        do="key and server come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL, or ~/.aws",
    )
