"""The model has an embedding for every token that it is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

if TYPE_CHECKING:
    from .recipe import Job


def fit_vocabulary(model: Any, tokenizer: Any, job: Job) -> None:
    """Give a model embeddings for its tokenizer's tokens if the cell says ``resize_vocab``; in place.

    New rows of the embedding and the head are the mean of the others (Hewitt, 2021, as transformers does it).
    There are never fewer: many models have more than their tokenizer, for speed.

    Raises:
        ByzerError: the data has a token without an embedding, and nobody asked for one.
    """
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) <= rows:
        return
    train = job.request.train
    if train.sft.resize_vocab or train.sfft.resize_vocab:
        has_weights = model.device.type != "meta"
        model.resize_token_embeddings(len(tokenizer), mean_resizing=has_weights)
        return
    highest = _highest(job)
    if highest >= rows:
        raise ByzerError(
            f"the data has the token {tokenizer.convert_ids_to_tokens(highest)!r} (id {highest}), "
            f"and the model has embeddings for {rows} tokens",
            where=f"the tokenizer has {len(tokenizer)}",
            do=_advice(train.method, whole=train.optimization.whole),
        )


def _highest(job: Job) -> int:
    """Return the highest token id of the prepared data."""
    from .shards import open_shards
    from .tokenise import held_out_shards

    held_out = held_out_shards(job)
    there = [open_shards(job.folder.shards), *([held_out] if held_out else [])]
    return max(int(shards.tokens.max()) for shards in there if len(shards.tokens))


def _advice(method: str, *, whole: bool) -> str:
    if whole:
        return f'write {method}.bool.resize_vocab="true", or give the tokenizer that belongs to the model'
    do = 'sft.finetuning_type="full" and sft.bool.resize_vocab="true": an adapter fits the base as it is'
    return f"write {do}" if method == "sft" else f"fine-tune first, with {do}"
