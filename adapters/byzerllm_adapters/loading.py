"""Load a model folder: the tokenizer, and the weights with every one of them accounted for, or none of them.

`dtype="auto"` is the checkpoint's own on a GPU. On a CPU it is float32, except that a 16-bit checkpoint of
more than `LARGE` bytes stays in bfloat16 where the CPU multiplies it natively. Measured on one answer
at a time, one core of an AVX512-BF16 EPYC: 1.2 to 1.4 times faster with 141 M parameters, even with 7 M, and
1.3 times slower with 1.4 M.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.templates import ensure_template
from byzerllm_adapters.tokenizer_file import load_tokenizer_file

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LARGE = 100_000_000
UNREADABLE = (OSError, ValueError, RuntimeError, ImportError, SafetensorError, pickle.UnpicklingError)
"""What transformers and peft raise for a folder they cannot load."""

FOUR_BITS = ("4", "nf4")
"""Values of `quantization` that load weights in four bits."""

_MARK = "in_four_bits"
_SHAPES_ONLY = ContextVar("_SHAPES_ONLY", default=False)

LONGEST_REASON = 200
"""Characters of a library's own explanation that are shown."""


@contextmanager
def shapes_only() -> Iterator[None]:
    """Within it, `load_model` returns models on the meta device: shapes and dtypes from config.json, no weights."""
    token = _SHAPES_ONLY.set(True)
    try:
        with torch.device("meta"):
            yield
    finally:
        _SHAPES_ONLY.reset(token)


def load_tokenizer(
    model_dir: str | Path,
    *,
    template: str,
    trust_remote_code: bool = False,
    original: Callable[[Path], PreTrainedTokenizerBase] | None = None,
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model folder, with its own chat template or else `template`.

    The folder of a peft adapter without a tokenizer has its base model's.

    Args:
        model_dir: A folder; or a `tokenizer.json` or sentencepiece model (`tokenizer.model`), which stands for its
            folder where a `tokenizer_config.json` says more about it.
        original: Reads the folder without remote code where its files name a tokenizer of the family's own.

    Raises:
        ByzerError: There is no such folder or file, or no tokenizer that transformers can read.
    """
    from transformers import AutoTokenizer

    if (file := Path(model_dir)).is_file() and not (file.parent / "tokenizer_config.json").is_file():
        tokenizer = load_tokenizer_file(file)
        ensure_template(tokenizer, template)
        return tokenizer
    folder = _folder(file.parent if file.is_file() else model_dir)
    if is_adapter(folder) and not has_tokenizer(folder):
        return load_tokenizer(
            base_of(folder), template=template, trust_remote_code=trust_remote_code, original=original
        )
    options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    try:
        if original is not None and not trust_remote_code and _names_own_code(folder):
            tokenizer = original(folder)
        else:
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    except UNREADABLE as error:
        raise _unreadable("tokenizer", folder, error) from error
    ensure_template(tokenizer, template)
    return tokenizer


def _names_own_code(folder: Path) -> bool:
    """Whether a folder says that its tokenizer is of a class that lies in its own Python files."""
    file = folder / "tokenizer_config.json"
    if not file.is_file():
        return False
    said = json.loads(file.read_text("utf-8"))
    return isinstance(said, dict) and "AutoTokenizer" in (said.get("auto_map") or {})


def load_model(
    model_dir: str | Path,
    *,
    dtype: str = "auto",
    device: str | None = None,
    trust_remote_code: bool = False,
    quantization: str | None = None,
) -> PreTrainedModel:
    """Return the model of a folder in evaluation mode. The folder of a peft adapter is merged into its base.

    Args:
        dtype: "auto" (see the module), "float32", "bfloat16" or "float16".
        device: A torch device; the first GPU, or else the CPU, by default.
        quantization: "4" or "nf4" (NF4, doubly quantised), "8", or None. A peft adapter stays beside a
            quantised base, since merging into four bits ruins quality. Four bits are multiplied in `dtype`, with
            "auto" in bfloat16 where the device has it fast.

    Raises:
        ByzerError: A file is missing or unreadable, or weights are missing, of another shape than the
            model's, or without a place in it; it names the tensors. Nothing is ever left at random values.
    """
    folder = _folder(model_dir)
    options: dict[str, Any] = {
        "dtype": dtype,
        "device": device or default_device(),
        "trust_remote_code": trust_remote_code,
        "quantization": quantization,
    }
    return _load_adapter(folder, options) if is_adapter(folder) else _load_full(folder, **options)


def new_model(model_dir: str | Path, *, vocabulary: int = 0) -> PreTrainedModel:
    """Return the model that a folder's config.json describes, in float32, with new weights as its family draws them.

    Args:
        vocabulary: The model gets at least so many tokens; 0: as many as its configuration says.

    Raises:
        ByzerError: There is no config.json, or none that transformers can make a model of.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = _folder(model_dir)
    _require_config(folder)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        text = config.get_text_config()
        text.vocab_size = max(text.vocab_size, vocabulary)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except UNREADABLE as error:
        raise _unreadable("model's configuration", folder, error) from error


def default_device() -> str:
    """Return the first GPU, or else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def fast_bf16(device: str | None = None) -> bool:
    """Return whether a device multiplies bfloat16 natively (a CPU: AVX512-BF16 or AMX)."""
    if torch.device(device or default_device()).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds a peft adapter and not a whole model."""
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> Path:
    """Return the folder of the model that a peft adapter was trained on, as its configuration records it.

    Raises:
        ByzerError: The folder is not there any more.
    """
    recorded = _json(folder / "adapter_config.json").get("base_model_name_or_path")
    base = Path(str(recorded or ""))
    if not recorded or not base.is_dir():
        raise ByzerError(
            f"the base model of this adapter is not at {str(recorded)!r}",
            where=str(folder),
            do="put it back, or set base_model_name_or_path in adapter_config.json to where it is",
        )
    return base


def _load_full(
    folder: Path, *, dtype: str, device: str, trust_remote_code: bool, quantization: str | None
) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    _require_config(folder)
    if _SHAPES_ONLY.get():
        return _shapes(folder, _dtype(folder, dtype, device), quantization, trust_remote_code=trust_remote_code)
    try:
        # No attn_implementation: transformers then takes sdpa, and eager for the few families that lack it.
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=_dtype(folder, dtype, device),
            device_map=device,
            **_quantization(quantization, dtype),
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            weights_only=True,
            ignore_mismatched_sizes=True,  # only to learn the names: _complete stops on them
            output_loading_info=True,
        )
    except UNREADABLE as error:
        raise _unreadable("model", folder, error) from error
    _complete(folder, info)
    return model.eval()


def _shapes(
    folder: Path, dtype: torch.dtype | str, quantization: str | None, *, trust_remote_code: bool
) -> PreTrainedModel:
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=dtype, trust_remote_code=trust_remote_code
        )
    except UNREADABLE as error:
        raise _unreadable("model", folder, error) from error
    if quantization in FOUR_BITS:
        _mark_four_bits(model)
    return model.eval()


def _mark_four_bits(model: PreTrainedModel) -> None:
    """Mark the layers whose weights transformers keeps in four bits with these options: all linear but the head."""
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.base import get_keys_to_not_convert
    from transformers.quantizers.quantizers_utils import should_convert_module

    whole = get_keys_to_not_convert(model)
    for name, module in model.named_modules():
        if (type(module) is torch.nn.Linear or isinstance(module, Conv1D)) and should_convert_module(name, whole):
            vars(module)[_MARK] = True


def in_four_bits(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the weights that a model of `shapes_only` would have in four bits; here they have their whole shape."""
    marked = [module for module in model.modules() if _MARK in vars(module)]
    return [module.weight for module in marked if not module.weight.requires_grad]  # not a copy that is trained whole


def has_tokenizer(folder: Path) -> bool:
    """Return whether a model folder holds a tokenizer."""
    return any(folder.glob("tokenizer*")) or (folder / "vocab.json").is_file()


def _require_config(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ByzerError("the model folder has no config.json", where=str(folder), do="is localModelDir right?")


def attach_adapter(base: PreTrainedModel, folder: Path) -> PeftModel:
    """Return `base` with the peft adapter of a folder beside its weights, in evaluation mode.

    Raises:
        ByzerError: The adapter is unreadable, does not fit the base, or lacks some of its weights.
    """
    from peft import PeftConfig, PeftModelForCausalLM

    try:
        model = PeftModelForCausalLM(base, PeftConfig.from_pretrained(str(folder)))
        result = model.load_adapter(str(folder), "default", torch_device=str(base.device))
    except UNREADABLE as error:
        raise _unreadable("peft adapter", folder, error) from error
    _complete(folder, {"missing_keys": result.missing_keys, "unexpected_keys": result.unexpected_keys})
    model.eval()
    return model


def _load_adapter(folder: Path, options: dict[str, Any]) -> PreTrainedModel:
    base = load_model(base_of(folder), **options)
    if _SHAPES_ONLY.get():  # merged, an adapter leaves no trace
        return base
    model: Any = attach_adapter(base, folder)
    quantised = getattr(base, "is_quantized", False)
    return (model if quantised else model.merge_and_unload()).eval()


def _complete(folder: Path, info: dict[str, Any]) -> None:
    """Stop on weights that the folder did not provide, or that the model has no place for.

    transformers reports neither tied weights nor those that a family is known to leave out or ignore.
    """
    missing = sorted(info["missing_keys"])
    mismatched = [
        f"{name} {list(there)} for {list(here)}" for name, there, here in sorted(info.get("mismatched_keys", ()))
    ]
    failed = sorted(info.get("conversion_errors", ()))
    unexpected = sorted(info.get("unexpected_keys", ()))
    for names, whose, what in (
        (missing, "model's", "missing"),
        (mismatched, "model's", "of another shape"),
        (failed, "model's", "not convertible"),
        (unexpected, "folder's", "unexpected"),
    ):
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            raise ByzerError(
                f"{len(names)} of the {whose} weights {'is' if len(names) == 1 else 'are'} {what}: {shown}",
                where=str(folder),
                do="the files do not fit config.json: copy the whole checkpoint again",
            )


def _dtype(folder: Path, dtype: str, device: str) -> torch.dtype | str:
    if dtype in DTYPES:
        return DTYPES[dtype]
    if dtype != "auto":
        raise ByzerError(f"unknown dtype {dtype!r}", do=f"known: auto, {', '.join(DTYPES)}")
    if torch.device(device).type != "cpu":
        return "auto"
    config = _json(folder / "config.json")
    stored = config.get("dtype") or config.get("torch_dtype")
    size = sum(file.stat().st_size for kind in ("*.safetensors", "*.bin") for file in folder.glob(kind))
    keep = stored in ("bfloat16", "float16") and size > LARGE and fast_bf16(device)
    return torch.bfloat16 if keep else torch.float32


def _quantization(kind: str | None, dtype: str) -> dict[str, Any]:
    """Return transformers' option for a `quantization` and a `dtype` of `load_model`.

    None is no option: it would override what the configuration of a folder in four bits says.
    """
    if kind is None:
        return {}
    if kind not in (*FOUR_BITS, "8"):
        raise ByzerError(f"unknown quantization {kind!r}", do="known: 4, nf4, 8, false")
    from transformers import BitsAndBytesConfig

    if kind == "8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES.get(dtype, torch.bfloat16 if fast_bf16() else torch.float32),
    )
    return {"quantization_config": nf4}


def _folder(model_dir: str | Path) -> Path:
    folder = Path(model_dir)
    if not folder.is_dir():
        raise ByzerError(
            f"there is no model folder {str(model_dir)!r}", do="set localModelDir to a folder on this node"
        )
    return folder


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ByzerError(f"{file.name} is not JSON: {error}", where=str(file.parent)) from error
    if not isinstance(content, dict):
        raise ByzerError(f"{file.name} holds no JSON object", where=str(file.parent))
    return content


def _unreadable(what: str, folder: Path, error: Exception) -> ByzerError:
    if isinstance(error, ByzerError):
        return error
    reason = " ".join((str(error).strip() or type(error).__name__).split())
    reason = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]} …"
    if "trust_remote_code" in str(error):
        advice = 'it comes with code of its own; if you trust that code, add trust_remote_code="true"'
    else:
        advice = "check that the folder holds a whole checkpoint"
    return ByzerError(f"the {what} does not load: {reason}", where=str(folder), do=advice)
