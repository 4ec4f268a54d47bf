"""What a checkpoint is: a folder ``checkpoints/step-N`` of DeepSpeed's files and one ``random-RANK.pt`` a rank.

Its ``manifest.json`` (step, metrics, sizes and SHA-256 of every file) is written last: a folder without a valid
manifest does not exist. `saving` writes checkpoints, `restoring` goes on from them.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from byzerllm_adapters.errors import ByzerError

from .evaluation import HIGHER_IS_BETTER
from .job_folder import JobFolder, Record, read_json

STATE = "state"
"""DeepSpeed's folder inside a checkpoint."""


def random_file(checkpoint: Path, rank: int) -> Path:
    """Where a rank's random state is."""
    return checkpoint / f"random-{rank}.pt"


def ranks_of(checkpoint: Path) -> int:
    """Return how many workers saved a checkpoint."""
    return len(list(checkpoint.glob("random-*.pt")))


def step_of(checkpoint: Path) -> int:
    """Return the step that a committed checkpoint is of."""
    return int(read_json(checkpoint / "manifest.json")["step"])


def find_checkpoint(place: str, key: str = "resume_from_checkpoint") -> Path:
    """Return the checkpoint that a value of ``key`` means: itself, or a job folder's newest whole one.

    Raises:
        ByzerError: there is none, and why.
    """
    path = Path(place).expanduser().absolute()
    folder = JobFolder(path)
    candidates = [path] if (path / "manifest.json").is_file() else list(reversed(committed(folder)))
    damages = {}
    for candidate in candidates:
        if not (found := damage(candidate)):
            return candidate
        damages[candidate] = found
    do = "give a job's folder, or one of its checkpoints/step-N"
    if damages:
        newest, found = next(iter(damages.items()))
        raise ByzerError(f"{key}: {newest.name} is damaged, {found}, and there is no other", where=place, do=do)
    if folder.exists():
        do = f"it saves every save_steps and at its end; its model is {folder.model}"
        if not folder.model.exists():
            do = f'"%byzerllm resume {folder.name}" begins it again'
        raise ByzerError(f"{key}: job {folder.name} has saved no checkpoint", where=place, do=do)
    raise ByzerError(f"there is no whole checkpoint at {place}", where=f"in {key}", do=do)


def best_checkpoint(folder: JobFolder, metric: str) -> Path | None:
    """Return the committed checkpoint with the best evaluation, the earliest of equals; None when none has one."""
    return next(iter(best_first(folder, metric)), None)


def best_first(folder: JobFolder, metric: str) -> list[Path]:
    """Return the committed checkpoints that have an evaluation, the best first, the earlier of equals first."""
    scored = [(path, _metrics(path).get(metric)) for path in committed(folder)]
    known = [(path, float(score)) for path, score in scored if score is not None]
    sign = -1.0 if HIGHER_IS_BETTER[metric] else 1.0
    return [path for path, _ in sorted(known, key=lambda one: sign * one[1])]


def committed(folder: JobFolder) -> list[Path]:
    """Checkpoints that have a manifest, oldest first."""
    found = [path.parent for path in folder.checkpoints.glob("step-*/manifest.json")]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def _metrics(checkpoint: Path) -> Record:
    """Return what its evaluation found; of one whose manifest is torn, nothing."""
    try:
        found: Record = read_json(checkpoint / "manifest.json").get("metrics", {})
    except ValueError:
        return {}
    return found


def sweep(folder: JobFolder) -> None:
    """Remove checkpoints that have no manifest: whoever wrote them died."""
    for torn in set(folder.checkpoints.glob("step-*")) - set(committed(folder)):
        shutil.rmtree(torn, ignore_errors=True)  # a superseded rank may still write there


def is_whole(checkpoint: Path) -> bool:
    """Whether every file is there with the checksum that the manifest recorded."""
    return not damage(checkpoint)


def damage(checkpoint: Path) -> str:
    """Return what is wrong with a checkpoint; empty: every file is there with the checksum that was recorded."""
    try:
        files: Record = read_json(checkpoint / "manifest.json")["files"]
    except (ValueError, KeyError, TypeError):  # not JSON, not text, or not of ours
        return "its manifest is torn"
    for name, expected in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        try:
            if path.stat().st_size != expected["bytes"] or _digest(path) != expected["sha256"]:
                return f"{name} is not what was written"
        except OSError as error:  # a bad block
            return f"{name} cannot be read: {error.strerror}"
    return ""


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
