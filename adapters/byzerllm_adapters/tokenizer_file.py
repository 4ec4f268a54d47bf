"""A tokenizer that is one file: `tokenizer.json`, or a sentencepiece model such as `tokenizer.model`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

if TYPE_CHECKING:
    from tokenizers.decoders import Decoder
    from tokenizers.normalizers import Normalizer
    from transformers import PreTrainedTokenizerBase

ENDS = ("</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>", "<|im_end|>")
"""What a `tokenizer.json`, which does not say it, may call its end of sequence: the first that it has."""

BEGINS = {"</s>": "<s>", "<|end_of_text|>": "<|begin_of_text|>", "<eos>": "<bos>"}
"""And its beginning."""


def load_tokenizer_file(file: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer that is in a file, without a chat template.

    Raises:
        ByzerError: The file is neither of both.
    """
    return _load_json(file) if file.suffix == ".json" else _load_sentencepiece(file)


def _load_json(file: Path) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    try:
        backend = Tokenizer.from_str(file.read_text("utf-8"))
    except Exception as error:  # the Rust library raises no narrower class
        raise _not_one(file, "tokenizer.json", error) from error
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    end = next((token for token in ENDS if token in added), None)
    begin = BEGINS.get(end or "")
    names = {"eos_token": end, "bos_token": begin if begin in added else None}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{name: token for name, token in names.items() if token})


def _load_sentencepiece(file: Path) -> PreTrainedTokenizerBase:
    """Convert a sentencepiece model; its normalisation, which transformers leaves out, is put back."""
    from sentencepiece import SentencePieceProcessor
    from transformers import PreTrainedTokenizerFast, TokenizersBackend

    try:
        model = SentencePieceProcessor(model_file=str(file))
    except (RuntimeError, OSError) as error:
        raise _not_one(file, "sentencepiece model", error) from error
    with tempfile.TemporaryDirectory() as folder:  # transformers finds the file by its name in a folder
        Path(folder, "tokenizer.model").symlink_to(file.absolute())
        backend = TokenizersBackend.from_pretrained(folder).backend_tokenizer
    spec = _specification(model).normalizer_spec
    backend.normalizer = _normalizer(spec)
    backend.decoder = _decoder(spec)
    ids = {"bos": model.bos_id(), "eos": model.eos_id(), "unk": model.unk_id(), "pad": model.pad_id()}
    names = {f"{name}_token": model.id_to_piece(number) for name, number in ids.items() if number >= 0}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def _specification(model: Any) -> Any:
    """Return the model's protobuf message, with how it was trained."""
    from transformers.convert_slow_tokenizer import import_protobuf

    message = import_protobuf().ModelProto()
    message.ParseFromString(model.serialized_model_proto())
    return message


def _normalizer(spec: Any) -> Normalizer:
    """Return what a sentencepiece model does to a text before it looks for pieces."""
    from tokenizers import Regex, normalizers

    steps: list[Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend("▁"))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])


def _decoder(spec: Any) -> Decoder:
    """Return what turns pieces into a text again."""
    from tokenizers import decoders

    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if spec.add_dummy_prefix else steps)


def _not_one(file: Path, kind: str, error: Exception) -> ByzerError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ByzerError(
        f"{file.name} is not a {kind}: {reason}",
        where=str(file),
        do="give a tokenizer's folder, a tokenizer.json or a sentencepiece tokenizer.model",
    )
