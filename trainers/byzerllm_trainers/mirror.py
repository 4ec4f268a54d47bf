"""A job folder's copy at an ``s3://`` address: what is left when the machine that trains is gone.

Training works in a folder on disk. The job's coordinator copies there what is new, and whoever goes on with the job or
looks at it elsewhere fetches it. At the address are the folder's files under their names, but for three things:

- What only grows (records, logs) lies in pieces ``FILE/ATTEMPT-OFFSET``. Read in this order, a piece replaces all from
  its offset on, so that what an attempt writes that was superseded meanwhile counts for nothing.
- A claim is ``leases/N-WHO``: an object cannot be made exclusively, so a claim counts if it is found alone.
- A folder with a manifest (a checkpoint, token shards) is there when its manifest is, which comes last. Should one who
  was superseded write into it all the same, its checksums tell.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from byzerllm_adapters.errors import ByzerError

from .job_folder import FETCHED, UNPUBLISHED, JobFolder, LeaseLost, read_json, write_json
from .object_store import is_remote, open_store, unreachable, working_folder

MANIFEST = "manifest.json"
LEASES = "leases"
EVENTS = "events.jsonl"
CHECKPOINTS = "checkpoints"

STAYS = ("afterwards", LEASES, CHECKPOINTS, EVENTS)
"""What is not sent as it is: it has a way of its own, or belongs to the machine, and may hold secrets."""

ORIGIN = ".fetched-from"
"""What a fetched folder began with: the newest attempt, and how long each file that only grows was."""

SELDOM = ("logs/", "tensorboard/")
"""What is sent with an event only: a piece each time would be many."""

AT_ONCE = 8 * 2**20
"""So many bytes of a file that does not grow are in memory: it may be larger than that."""

YIELD_SECONDS = 1.0
"""Two who claim one attempt at once both yield, and try again within this time."""


def mirror_of(folder: JobFolder, settings: Mapping[str, str] | None = None) -> Mirror | None:
    """Return a job's copy; None: it has none.

    Args:
        folder: The job's.
        settings: See `object_store.store_settings`; None: this process' own.

    Raises:
        ByzerError: its address is none.
    """
    prefix = str(folder.request().get("parameters", {}).get("localPathPrefix", ""))
    return Mirror(folder, f"{prefix.rstrip('/')}/{folder.name}", settings) if is_remote(prefix) else None


def fetch(address: str) -> JobFolder:
    """Fetch the job at an address, unless it is this machine that holds its newest attempt; return its folder.

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
        settings: See `mirror_of`.

    Raises:
        ByzerError: that is no address.
    """

    def __init__(self, folder: JobFolder, address: str, settings: Mapping[str, str] | None = None) -> None:
        self.address = address
        self._folder = folder
        self._store, self._base = open_store(address, settings)
        self._sent: dict[str, object] = {}
        """What was sent of files that may change and of folders with a manifest, to see whether it has changed."""
        self._copied: dict[str, int] = {}
        """How much of what only grows was sent, in bytes, where that is known."""
        self._ours: set[str] | None = None
        """Folders with a manifest that may be removed there: those that this attempt found or sent."""

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
        """Become its newest attempt; to claim again what is held changes nothing.

        Raises:
            LeaseLost: it has one that is newer, or somebody else has the same number.
            OSError: it cannot be reached.
        """
        mine = f"{attempt}-{hashlib.sha256(owner.encode()).hexdigest()[:12]}"
        while True:
            claims = [claim for number, claim in self._claims() if number >= attempt]
            if claims == [mine]:
                (self._folder.root / FETCHED).unlink(missing_ok=True)
                return
            if mine in claims:  # two at once: both yield
                self._store.delete_file(f"{self._base}/{LEASES}/{mine}")
                time.sleep(random.uniform(0, YIELD_SECONDS))
            elif claims:
                break
            else:
                self._write(f"{LEASES}/{mine}", owner.encode())
        self.check_lease(attempt - 1)

    def check_lease(self, attempt: int) -> None:
        """Let the folder know of a newer attempt elsewhere, so that all who write there end.

        Raises:
            LeaseLost: there is one.
            OSError: it cannot be reached.
        """
        if (newest := self.newest()) > attempt:
            (self._folder.root / LEASES / str(newest)).write_text(f"at {self.address}", encoding="utf-8")
            (self._folder.root / FETCHED).touch()  # what is here is not the newest any more
            raise LeaseLost(
                f"job {self._folder.name}: attempt {newest} took over from attempt {attempt} at {self.address}",
                do=f'"%byzerllm attach {self.address}" shows it',
            )

    def _claims(self) -> list[tuple[int, str]]:
        names = [name.rpartition("/")[2] for name in self._sizes(LEASES)]
        return [(int(name.partition("-")[0]), name) for name in names if name.partition("-")[0].isdigit()]

    # -- there ------------------------------------------------------------------------------------------

    def push(self, attempt: int, *, briefly: bool = False) -> None:
        """Send what is new; what was removed here is removed there, once something newer is there.

        A reader finds nothing announced that is not there: records of steps come before the checkpoint of the last
        of them, and the events, which name them, at the end.

        Args:
            attempt: Which one writes.
            briefly: Send records only.

        Raises:
            LeaseLost: another attempt goes on elsewhere.
            OSError: it cannot be reached.
        """
        self.check_lease(attempt)
        if self._ours is None:
            self._ours = set(self._sealed_there())
        events = self._growth(EVENTS)
        for path in self._loose():
            self._send_loose(path, attempt, briefly=briefly)
        if not briefly:
            for folder in self._sealed():
                self.check_lease(attempt)
                self._send_sealed(folder)
            self._forget_removed(attempt)
        self.check_lease(attempt)
        self._send_growth(EVENTS, events, attempt)

    def _sealed(self) -> list[Path]:
        """Return the folders that are complete, for they have a manifest; of checkpoints the newest first."""
        steps = [path.parent for path in self._folder.checkpoints.glob(f"step-*/{MANIFEST}")]
        shards = [path.parent for path in self._folder.data.glob(f"*/{MANIFEST}")]
        shards = [path for path in shards if not path.name.startswith(UNPUBLISHED)]
        return sorted(shards) + sorted(steps, key=lambda path: -_step(path.name))

    def _loose(self) -> Iterator[Path]:
        """Yield the other files."""
        root = self._folder.root
        for path in sorted(root.rglob("*")):
            top, *inside = path.relative_to(root).parts
            if top in STAYS or path.name.startswith(".") or not path.is_file():
                continue
            if top != "data" or len(inside) == 1:  # deeper there are shards, or what an attempt still makes of them
                yield path

    def _send_loose(self, path: Path, attempt: int, *, briefly: bool) -> None:
        name = str(path.relative_to(self._folder.root))
        if _grows(name):
            if not (briefly and name.startswith(SELDOM)):
                self._send_growth(name, self._growth(name), attempt)
            return
        found = path.stat()
        if self._sent.get(name) != (found.st_size, found.st_mtime_ns):
            self._send(path)
            self._sent[name] = (found.st_size, found.st_mtime_ns)

    def _growth(self, name: str) -> bytes:
        """Return what a file that only grows has more than the copy: of records, whole lines."""
        path = self._folder.root / name
        if not path.exists():
            return b""
        size = path.stat().st_size
        if name not in self._copied:
            self._copied[name] = self._reached(name)
        self._copied[name] = min(size, self._copied[name])  # a torn line that was sent of a log is gone
        with path.open("rb") as handle:
            handle.seek(self._copied[name])
            new = handle.read()
        return new[: new.rfind(b"\n") + 1] if name.endswith(".jsonl") else new

    def _reached(self, name: str) -> int:
        """Return how much of a file that only grows is there as it is here.

        Of what was fetched: as much as that, whatever others have sent since, until an attempt of ours sends more.
        """
        pieces, origin = self._pieces(name), self._folder.root / ORIGIN
        if not origin.exists():
            return _reach(pieces)
        fetched = read_json(origin)
        ours = [piece for piece in pieces if piece[0] > fetched["attempt"]]
        return _reach(ours) if ours else int(fetched["sizes"].get(name, 0))

    def _send_growth(self, name: str, new: bytes, attempt: int) -> None:
        if new:
            self._write(f"{name}/{attempt:08d}-{self._copied[name]:016d}", new)
            self._copied[name] += len(new)

    def _send_sealed(self, folder: Path) -> None:
        """Send a folder that does not change any more, its manifest last, unless just that is there."""
        name = str(folder.relative_to(self._folder.root))
        try:
            manifest = (folder / MANIFEST).read_bytes()
            if self._sent.get(name) == manifest:
                return
            if self._read(f"{name}/{MANIFEST}") != manifest:
                self._remove(name)
                for path in sorted(folder.rglob("*")):
                    if path.is_file() and path.name != MANIFEST:
                        self._send(path)
                self._write(f"{name}/{MANIFEST}", manifest)
            self._sent[name] = manifest
        except FileNotFoundError:  # a newer checkpoint has pushed it out meanwhile
            print(f"{name} was removed here before all of it was sent to {self.address}")
            self._remove(name)
        assert self._ours is not None
        self._ours.add(name)

    def _forget_removed(self, attempt: int) -> None:
        """Remove there the folders with a manifest that are not here any more.

        Of checkpoints only those that a newer one has followed there, and none whose own is damaged here.
        """
        here = {str(path.relative_to(self._folder.root)) for path in self._sealed()}
        there = self._sealed_there()
        newest = max((_step(name) for name in there & here if name.startswith(CHECKPOINTS)), default=-1)
        damaged = {
            f"{CHECKPOINTS}/{p.name.removeprefix('damaged-')}" for p in self._folder.checkpoints.glob("damaged-*")
        }
        ended = self._folder.ending() is not None  # then the user may have removed all of them
        assert self._ours is not None
        for name in (there - here - damaged) & self._ours:
            if not name.startswith(CHECKPOINTS) or ended or _step(name) < newest:
                self.check_lease(attempt)
                self._remove(name)

    def _sealed_there(self) -> set[str]:
        names = [name.split("/") for place in (CHECKPOINTS, "data") for name in self._sizes(place)]
        return {"/".join(parts[:2]) for parts in names if len(parts) > 2}

    def _remove(self, name: str) -> None:
        """Remove a folder with a manifest: that first, for half a folder is none."""
        path = f"{self._base}/{name}"
        if self._store.get_file_info(f"{path}/{MANIFEST}").is_file:
            self._store.delete_file(f"{path}/{MANIFEST}")
        if self._sizes(name):
            self._store.delete_dir(path)
        self._sent.pop(name, None)

    # -- and back ---------------------------------------------------------------------------------------

    def fetch(self) -> None:
        """Make the folder what the copy is, unless it is this machine that holds the newest attempt.

        Raises:
            ByzerError: there is no job, or it cannot be reached.
        """
        if not self.exists():
            raise ByzerError(f"there is no job at {self.address}", do="an address is s3://bucket/…/NAME")
        try:
            if not self._folder.exists() or self._folder.is_fetched or self._folder.attempt() < self.newest():
                self._fetch()
        except OSError as error:
            raise unreachable(self.address, error) from error

    def _fetch(self) -> None:
        """Bring everything, beside what is here, and then put it in its place."""
        root, beside = self._folder.root, self._folder.root.with_name(f".{self._folder.name}-fetched")
        shutil.rmtree(beside, ignore_errors=True)
        for folder in ("data", CHECKPOINTS, "logs", LEASES):
            (beside / folder).mkdir(parents=True)
        grown: dict[str, list[tuple[int, int, int]]] = {}
        for name, size in self._sizes("").items():
            file, _, last = name.rpartition("/")
            if file == LEASES:
                content = self._read(name) or b""
                (beside / LEASES / last.partition("-")[0]).write_bytes(content)
            elif _grows(file):
                grown.setdefault(file, []).append((*_numbers(last), size))
            else:
                self._bring(name, beside / name)
        for name, pieces in grown.items():
            self._join(name, sorted(pieces), beside / name)
        sizes = {name: (beside / name).stat().st_size for name in grown}
        write_json(beside / ORIGIN, {"attempt": JobFolder(beside).attempt(), "sizes": sizes})
        (beside / FETCHED).touch()
        shutil.rmtree(root, ignore_errors=True)
        beside.rename(root)

    def _bring(self, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._store.open_input_stream(f"{self._base}/{name}") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, AT_ONCE)

    def _join(self, name: str, pieces: list[tuple[int, int, int]], path: Path) -> None:
        """Write what only grows from its pieces: each replaces all from its offset on."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as target:
            for attempt, offset, _ in pieces:
                target.truncate(offset)
                target.seek(offset)
                target.write(self._read(f"{name}/{attempt:08d}-{offset:016d}") or b"")

    # -- the store --------------------------------------------------------------------------------------

    def _pieces(self, name: str) -> list[tuple[int, int, int]]:
        """Return attempt, offset and size of the pieces of what only grows, in their order."""
        return sorted((*_numbers(piece.rpartition("/")[2]), size) for piece, size in self._sizes(name).items())

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


def _numbers(piece: str) -> tuple[int, int]:
    """Return attempt and offset of a piece's name."""
    attempt, _, offset = piece.partition("-")
    return int(attempt), int(offset)


def _reach(pieces: list[tuple[int, int, int]]) -> int:
    """Return how long the file is that pieces in their order make."""
    return pieces[-1][1] + pieces[-1][2] if pieces else 0


def _step(name: str) -> int:
    """Return the step that the name of a checkpoint's folder says."""
    return int(name.rpartition("step-")[2])
