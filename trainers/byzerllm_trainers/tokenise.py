"""A job's rows -> token shards on disk: those to train on, and those that are held out to evaluate on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from byzerllm_adapters.errors import ByzerError

from .bad_rows import none_fits, placed
from .corpus import data_format, eval_format, eval_parts, partitions, parts
from .encode_on_cluster import encode_on_cluster
from .encoder import Encoder, encode_part
from .job_folder import JobFolder, Record
from .parts import Part, place_of
from .recipe import Job, find
from .reuse import content_key, link_same
from .shards import AT_ONCE, Longs, Shards, ShardWriter, open_shards, shard_writer

IN_PROCESS_ROWS = 100_000
"""Up to this many are tokenised by this process, on all of its node's cores; more by all of the cluster."""


@dataclass(frozen=True)
class Source:
    """Rows, and what tokenises them.

    Attributes:
        drop: Whether rows that do not fit are left out.
        local: Whether this process tokenises them, however many there are.
    """

    encoder: Encoder
    parts: Sequence[Part]
    drop: bool
    local: bool

    def first_dropped(self, made: Shards | ShardWriter) -> ByzerError:
        """Return why the first of the rows that were left out was, with its place."""
        assert made.why is not None
        return placed(made.why, place_of(self.parts, int(made.dropped[0]) // self.encoder.per_row), self.encoder.format)


@dataclass(frozen=True)
class Tokenised:
    """A job's shards.

    Attributes:
        train: The examples to train on.
        held_out: Those to evaluate on; None: nothing is held out.
        format: What the rows to train on were read as.
        per_row: How many examples a row became.
        dropped: What the ``prepared`` event says of rows that were left out; empty where none were.
        reused: The job that had tokenised the same before; None: they were made now.
    """

    train: Shards
    held_out: Shards | None
    format: str
    per_row: int
    dropped: Record
    reused: str | None

    @property
    def counts(self) -> Record:
        """What the ``prepared`` event says of them, whatever the recipe."""
        held_out = {} if self.held_out is None else {"held_out": len(self.held_out) // self.per_row}
        return held_out | ({"reused": self.reused} if self.reused else {})


def tokenise(job: Job, encoder_for: Callable[[str], Encoder]) -> Tokenised:
    """Write the job's shards, or find those of another job that were made of the same.

    The shards to train on are written last: where they are, all is there.

    Args:
        job: Whose rows.
        encoder_for: Returns what tokenises rows of a format.

    Raises:
        ByzerError: no rows, a row that does not fit, or too few rows to hold any out.
    """
    folder, train = job.folder, job.request.train
    drop = train.optimization.on_bad_row == "drop"
    kind_of = find(train.method).format_of
    kind = data_format(folder, train.local_data_dir, kind_of)
    source = Source(encoder_for(kind), parts(folder, train.local_data_dir), drop, job.local)
    apart = eval_parts(folder)
    evaluation = Source(encoder_for(eval_format(folder, kind_of)), apart, drop, job.local) if apart else None
    bounds, share, seed = partitions(folder), train.optimization.eval_ratio, job.request.loop.data_seed
    sources = [each for each in (source, evaluation) if each]
    settings = [bounds, share, seed if share else None, drop]
    key = content_key([(each.encoder, each.parts) for each in sources], settings)
    reused = link_same(folder, key)
    if reused is None and share:
        _write_divided(folder, source, share, seed=seed, bounds=bounds, key=key)
    elif reused is None:
        if evaluation:
            _write(folder.held_out, evaluation)
        _write(folder.shards, source, bounds, key)
    made, held_out = open_shards(folder.shards), held_out_shards(job)
    dropped = _dropped([(evaluation, held_out), (source, made)])
    return Tokenised(made, held_out, kind, source.encoder.per_row, dropped, reused)


def held_out_shards(job: Job) -> Shards | None:
    """Return the shards to evaluate on; None: there are none."""
    folder = job.folder.held_out
    return open_shards(folder) if folder.exists() else None


def _dropped(made: Sequence[tuple[Source | None, Shards | None]]) -> Record:
    """Return how many rows were left out, and why the first."""
    known = [(source, shards) for source, shards in made if source is not None and shards is not None]
    lacking = [(source, shards) for source, shards in known if len(shards.dropped)]
    if not lacking:
        return {}
    first = lacking[0][0].first_dropped(lacking[0][1])
    count = sum(len(shards.dropped) // source.encoder.per_row for source, shards in lacking)
    return {"rows_dropped": count, "first_dropped": f"{first.where}: {first.what}"}


def _write(folder: Path, source: Source, bounds: Sequence[int] | None = None, key: str | None = None) -> None:
    """Tokenise rows into a shard folder, here or on the cluster.

    Args:
        folder: Made anew.
        source: What to tokenise.
        bounds: Where partitions begin and end among the rows.
        key: What the shards are found again by.

    Raises:
        ByzerError: a row does not fit; or none does.
    """
    encoder, rows = source.encoder, sum(part.rows for part in source.parts)
    with shard_writer(folder, key) as writer:
        if rows > IN_PROCESS_ROWS and not source.local and _on_cluster():
            scratch = folder.with_name(f"{folder.name}-parts")
            for shards in encode_on_cluster(encoder, source.parts, scratch, drop=source.drop):
                writer.append(shards)
        else:
            for part in source.parts:
                for found in encode_part(encoder, part, drop=source.drop):
                    writer.add(found)
        if writer.dropped and not writer.examples:
            raise none_fits(rows, source.first_dropped(writer))
        writer.partitions = bounds and writer.left([encoder.per_row * bound for bound in bounds])


def _on_cluster() -> bool:
    import ray

    return bool(ray.is_initialized())


def _write_divided(
    folder: JobFolder, source: Source, share: float, *, seed: int, bounds: Sequence[int] | None, key: str
) -> None:
    """Tokenise all rows, and hold a share of them out."""
    everything = folder.shards.with_name("all")
    _write(everything, source, bounds)
    together = open_shards(everything)
    chosen = _chosen(together, share, seed, source.encoder.per_row)
    rest = np.setdiff1d(np.arange(len(together)), chosen)
    with shard_writer(folder.held_out) as writer:
        _copy(together, chosen, writer)
    with shard_writer(folder.shards, key) as writer:
        _copy(together, rest, writer)
        if together.partitions is not None:
            writer.partitions = np.searchsorted(rest, together.partitions).tolist()
        writer.dropped.extend(together.dropped.tolist())
        writer.why = together.why
    shutil.rmtree(everything)


def _chosen(shards: Shards, share: float, seed: int, per_row: int) -> Longs:
    """Return the examples of a random share of the rows with something to learn, ascending."""
    usable = np.flatnonzero((shards.targets > 0).reshape(-1, per_row).all(axis=1))
    count = max(1, round(share * len(usable)))
    if count >= len(usable):
        raise ByzerError(
            f"nothing can be held out of {len(usable)} row{'s' * (len(usable) != 1)} (documents)",
            where=f"eval_ratio={share:g}",
            do="give more rows, a smaller eval_ratio, or evalTable",
        )
    # not [seed, epoch], the generator that decides the data order
    found = np.sort(np.random.default_rng([seed, 0, 1]).choice(usable, count, replace=False))
    return np.asarray(found[:, None] * per_row + np.arange(per_row), dtype=np.int64).reshape(-1)


def _copy(shards: Shards, indices: Longs, writer: ShardWriter) -> None:
    for begin in range(0, len(indices), AT_ONCE):
        writer.append(shards.take(indices[begin : begin + AT_ONCE]))
