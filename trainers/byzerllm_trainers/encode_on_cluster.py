"""Many rows -> examples on all cores of a cluster: Ray tasks write each part's examples into a shard folder of its own.

Plain tasks, and not Ray Data: its three helper processes and its executor took 0.35 GiB and some seconds to hand
out part numbers (docs/log.md).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from byzerllm_adapters.errors import ByzerError

from .encoder import Encoder, encode_part
from .parts import Part
from .placement import cores_that_see, on_node
from .shards import Shards, open_shards, shard_writer


def encode_on_cluster(encoder: Encoder, parts: Sequence[Part], scratch: Path, *, drop: bool) -> Iterator[Shards]:
    """Yield each part's examples, in order.

    What tokenises reserves no CPU: this job's own workers may hold them all, and they wait for its end. A task
    whose process dies is tried again by Ray.

    Args:
        encoder: Tokenises.
        parts: What to tokenise.
        scratch: A folder that is made here, and removed in the end; only nodes that see where it lies are used.
        drop: Whether rows that do not fit are left out; each part's shards know which.

    Raises:
        ByzerError: a row that does not fit: the first one, whoever found another before.
    """
    import ray

    encode = ray.remote(num_cpus=0)(encode_into)
    shared = ray.put(encoder)  # once, and not with every part
    free = cores_that_see(scratch.parent)
    upcoming = iter(enumerate(parts))
    running: dict[Any, tuple[int, str]] = {}
    errors: dict[int, ByzerError | None] = {}
    try:
        for number in range(len(parts)):
            while number not in errors:
                while free and (following := next(upcoming, None)) is not None:
                    (index, part), node = following, free.pop()
                    there = encode.options(scheduling_strategy=on_node(node))
                    running[there.remote([shared], part, scratch / str(index), drop)] = index, node
                done, _ = ray.wait(list(running))
                index, node = running.pop(done[0])
                errors[index] = ray.get(done[0])
                free.append(node)
            if error := errors.pop(number):
                raise error
            yield open_shards(scratch / str(number))
            shutil.rmtree(scratch / str(number))
    finally:
        for task in running:
            ray.cancel(task, force=True)
        shutil.rmtree(scratch, ignore_errors=True)


def encode_into(encoder: Sequence[Any], part: Part, folder: Path, drop: bool) -> ByzerError | None:
    """Write a part's examples into a shard folder; an error is returned, so that the first row's can win.

    Args:
        encoder: Ray's reference to it, in a list, so that a process fetches it once for all parts.
        part: What to tokenise.
        folder: Made anew.
        drop: As of `encode_on_cluster`.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # every core has a process
    try:
        with shard_writer(folder) as writer:
            for examples in encode_part(_fetched(encoder[0]), part, drop=drop):
                writer.add(examples)
    except ByzerError as error:
        return error
    return None


@lru_cache(maxsize=1)
def _fetched(reference: Any) -> Encoder:
    import ray

    encoder: Encoder = ray.get(reference)
    return encoder
