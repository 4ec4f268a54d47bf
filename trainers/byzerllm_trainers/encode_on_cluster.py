"""Many rows -> examples with Ray Data: one process a core tokenises parts, each into a shard folder of its own."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from byzerllm_adapters.errors import ByzerError

from .encoder import Encoder, encode_part
from .parts import Part
from .shards import Shards, open_shards, shard_writer


def encode_on_cluster(encoder: Encoder, parts: Sequence[Part], scratch: Path, *, drop: bool) -> Iterator[Shards]:
    """Yield each part's examples, in order.

    Only the parts' numbers go through Ray's object store. What tokenises reserves no CPU: this job's own workers may
    hold them all, and they wait for its end.

    Args:
        encoder: Tokenises.
        parts: What to tokenise.
        scratch: A folder that every node sees; it is removed in the end.
        drop: Whether rows that do not fit are left out; each part's shards know which.

    Raises:
        ByzerError: a row that does not fit: the first one, whoever found another before.
    """
    import ray
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context = DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    cores = int(ray.cluster_resources().get("CPU", 1))
    with DataContext.current(context):
        numbers = ray.data.from_items(
            [{"part": number} for number in range(len(parts))], override_num_blocks=len(parts)
        )
        encoded = numbers.map_batches(
            _PartEncoder,
            fn_constructor_args=(encoder, parts, scratch, drop),
            batch_size=1,
            num_cpus=0,
            concurrency=max(1, min(cores, len(parts))),
        )
        try:
            for result in encoded.iter_rows():
                if result["what"]:
                    raise ByzerError(result["what"], where=result["where"], do=result["do"])
                folder = scratch / str(result["part"])
                yield open_shards(folder)
                shutil.rmtree(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


class _PartEncoder:
    """Writes the shard folder of a part whose number it is given; an error comes back, so that the first row's wins."""

    def __init__(self, encoder: Encoder, parts: Sequence[Part], scratch: Path, drop: bool) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # every core has a process
        self._encoder, self._parts, self._scratch, self._drop = encoder, parts, scratch, drop

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        [number] = batch["part"].tolist()
        what = where = do = ""
        try:
            with shard_writer(self._scratch / str(number)) as writer:
                for examples in encode_part(self._encoder, self._parts[number], drop=self._drop):
                    writer.add(examples)
        except ByzerError as error:
            what, where, do = error.what, error.where, error.do
        return {"part": [number], "what": [what], "where": [where], "do": [do]}
