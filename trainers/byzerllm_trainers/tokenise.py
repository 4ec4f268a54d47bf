"""A job's rows -> token shards on disk: those to train on, and those that are held out to evaluate on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from byzerllm_adapters.errors import ByzerError

from .corpus import eval_parts, partitions, parts
from .encode_on_cluster import encode_on_cluster
from .encoder import Encoder, encode_part
from .job_folder import JobFolder, Record
from .parts import Part, column_names
from .recipe import Job
from .reuse import content_key, link_same
from .shards import AT_ONCE, Longs, Shards, ShardWriter, open_shards, shard_writer

IN_PROCESS_ROWS = 100_000
"""Up to this many are tokenised by this process, on all of its node's cores; more by all of the cluster."""

Source: TypeAlias = tuple[Encoder, Sequence[Part]]


@dataclass(frozen=True)
class Tokenised:
    """A job's shards.

    Attributes:
        train: The examples to train on.
        held_out: Those to evaluate on; None: nothing is held out.
        reused: The job that had tokenised the same before; None: they were made now.
    """

    train: Shards
    held_out: Shards | None
    reused: str | None

    @property
    def counts(self) -> Record:
        """What the ``prepared`` event says of them, whatever the recipe."""
        held_out = {} if self.held_out is None else {"held_out": len(self.held_out)}
        return held_out | ({"reused": self.reused} if self.reused else {})


def tokenise(job: Job, encoder_for: Callable[[Sequence[str]], Encoder]) -> Tokenised:
    """Write the job's shards, or find those of another job that were made of the same.

    The shards to train on are written last: where they are, all is there.

    Args:
        job: Whose rows.
        encoder_for: Returns what tokenises rows with these columns.

    Raises:
        ByzerError: no rows, a row that does not fit, or too few rows to hold any out.
    """
    folder, train = job.folder, job.request.train
    source = _source(parts(folder, train.local_data_dir), encoder_for)
    apart = eval_parts(folder)
    evaluation = _source(apart, encoder_for) if apart else None
    bounds, share, seed = partitions(folder), train.optimization.eval_ratio, job.request.loop.data_seed
    key = content_key([source, evaluation] if evaluation else [source], [bounds, share, seed if share else None])
    reused = link_same(folder, key)
    if reused is None and share:
        _write_divided(folder, source, share, seed=seed, bounds=bounds, key=key)
    elif reused is None:
        if evaluation:
            _write(folder.held_out, evaluation)
        _write(folder.shards, source, bounds, key)
    return Tokenised(open_shards(folder.shards), held_out_shards(job), reused)


def held_out_shards(job: Job) -> Shards | None:
    """Return the shards to evaluate on; None: there are none."""
    folder = job.folder.held_out
    return open_shards(folder) if folder.exists() else None


def _source(rows: Sequence[Part], encoder_for: Callable[[Sequence[str]], Encoder]) -> Source:
    return encoder_for(column_names(rows[0])), rows


def _write(folder: Path, source: Source, bounds: Sequence[int] | None = None, key: str | None = None) -> None:
    """Tokenise rows into a shard folder, here or on the cluster."""
    encoder, rows = source
    with shard_writer(folder, bounds, key) as writer:
        if sum(part.rows for part in rows) > IN_PROCESS_ROWS and _on_cluster():
            for shards in encode_on_cluster(encoder, rows, folder.with_name(f"{folder.name}-parts")):
                writer.append(shards)
        else:
            for part in rows:
                for examples in encode_part(encoder, part):
                    writer.add(examples)


def _on_cluster() -> bool:
    import ray

    return bool(ray.is_initialized())


def _write_divided(
    folder: JobFolder, source: Source, share: float, *, seed: int, bounds: Sequence[int] | None, key: str
) -> None:
    """Tokenise all rows, and hold a share of them out."""
    _write(folder.data / "all", source)
    together = open_shards(folder.data / "all")
    chosen = _chosen(together, share, seed)
    rest = np.setdiff1d(np.arange(len(together)), chosen)
    with shard_writer(folder.held_out) as writer:
        _copy(together, chosen, writer)
    with shard_writer(folder.shards, bounds and np.searchsorted(rest, bounds).tolist(), key) as writer:
        _copy(together, rest, writer)
    shutil.rmtree(folder.data / "all")


def _chosen(shards: Shards, share: float, seed: int) -> Longs:
    """Return a random share of the examples with something to learn, ascending."""
    usable = np.flatnonzero(shards.targets > 0)
    count = max(1, round(share * len(usable)))
    if count >= len(usable):
        raise ByzerError(
            f"nothing can be held out of {len(usable)} row{'s' * (len(usable) != 1)} (documents)",
            where=f"eval_ratio={share:g}",
            do="give more rows, a smaller eval_ratio, or evalTable",
        )
    # not [seed, epoch], the generator that decides the data order
    return np.sort(np.random.default_rng([seed, 0, 1]).choice(usable, count, replace=False))


def _copy(shards: Shards, indices: Longs, writer: ShardWriter) -> None:
    for begin in range(0, len(indices), AT_ONCE):
        writer.append(shards.take(indices[begin : begin + AT_ONCE]))
