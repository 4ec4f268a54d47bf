"""The default adapter: any causal language model that transformers loads, or a peft adapter on one.

A family that differs takes what it needs from here and replaces the rest (see `llama2`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import TypeAdapter, ValidationError

from byzerllm_adapters import loading
from byzerllm_adapters.contract import Answer, ChatStream, Message
from byzerllm_adapters.conversations import encode_prompt, encode_written_prompt
from byzerllm_adapters.engines.batch import generate_batch
from byzerllm_adapters.engines.generate import Sampling, generate
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.loading import fast_bf16, load_model
from byzerllm_adapters.templates import ROLE_KEYS, frame, roles_taken

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["DEFAULT_TEMPLATE", "fast_bf16", "init_model", "load_model", "load_tokenizer", "stream_chat"]

# The space before an answer is part of what is generated: " Hello" is one token of a byte-level BPE, while a
# prompt that ended in a space would leave the model a start that it never saw.
DEFAULT_TEMPLATE = (
    "{{ bos_token }}"
    "{% if tools %}{{ 'Tools:\\n' }}{% for tool in tools %}{{ tool | tojson + '\\n' }}{% endfor %}"
    "{{ '\\n' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' and loop.first %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ (user_role or 'User') + ': ' + message['content'] + '\\n' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ (assistant_role or 'Assistant') + ':' }}"
    "{% generation %}{{ ' ' + message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}{{ '<tool_call>' + call['function'] | tojson + '</tool_call>' }}"
    "{% endfor %}{{ eos_token }}{% endgeneration %}{{ '\\n' }}"
    "{% elif message['role'] == 'tool' %}{{ 'Tool: ' + message['content'] + '\\n' }}"
    "{% else %}{{ raise_exception('a system message comes first; the other roles are user, assistant and tool') }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ (assistant_role or 'Assistant') + ':' }}{% endif %}"
)
"""For a tokenizer without a template; it needs no special token but the end of sequence. Tools are written as JSON.

`user_role` and `assistant_role` are the request's, until a job writes its own into the template that it saves.
"""

load_tokenizer = partial(loading.load_tokenizer, template=DEFAULT_TEMPLATE)


class LoadTokenizer(Protocol):
    """`load_tokenizer` of a family."""

    def __call__(self, model_dir: str, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
        """Return the folder's tokenizer, with a chat template."""
        ...


def init_model(
    model_dir: str,
    infer_params: Mapping[str, str] | None = None,
    sys_conf: Mapping[str, str] | None = None,
    *,
    load_tokenizer: LoadTokenizer = load_tokenizer,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model folder for serving and bind `stream_chat` to the model.

    Args:
        infer_params: The statement's keys. Read here: `dtype`, `trust_remote_code`, `quatization` (or
            `quantization`: false, 4, 8, nf4), `infer.bool.load_in_4bit`.
        sys_conf: The session's settings; none matters here.

    Raises:
        ByzerError: The folder does not load; see `loading.load_model`.
    """
    params = infer_params or {}
    trust = _flag(params, "trust_remote_code")
    tokenizer = load_tokenizer(model_dir, trust_remote_code=trust)
    model = load_model(
        model_dir,
        dtype=params.get("dtype", "auto"),
        trust_remote_code=trust,
        quantization=_quantization(params),
    )
    model.stream_chat = MethodType(stream_chat, model)
    model.chat_many = MethodType(chat_many, model)
    return model, tokenizer


def stream_chat(  # noqa: PLR0917 - the contract's signature
    self: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ins: str,
    his: Sequence[Message] = (),
    max_length: int = 4090,
    top_p: float = 0.95,
    temperature: float = 0.1,
    *,
    user_role: str | None = None,
    assistant_role: str | None = None,
    **kwargs: Any,
) -> ChatStream:
    """Answer `ins`, which follows the conversation `his`.

    Args:
        max_length: The most tokens of prompt and answer together; the model's own context limits it further.
        top_p: Sample from the likeliest tokens that together have this probability.
        temperature: 0 takes the likeliest token always.
        user_role: What the template calls who asks, where it is ours and was not trained with other names;
            elsewhere it is without effect, and the answer's `ignored` says so.
        assistant_role: What it calls who answers.
        **kwargs: `max_new_tokens` (the most tokens of the answer), `top_k` (0: no limit).

    Raises:
        ByzerError: A parameter is unknown or out of range, the template refuses the conversation, or the
            prompt is too long. What goes wrong later is raised by the stream.
    """
    roles, ignored = _roles(tokenizer, user_role=user_role, assistant_role=assistant_role)
    sampling = Sampling.of(max_length=max_length, top_p=top_p, temperature=temperature, ignored=ignored, **kwargs)
    ids = _prompt(self, tokenizer, ins, his, roles)
    return generate(self, tokenizer, ids, sampling, frame(tokenizer))


def chat_many(
    self: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Mapping[str, Any]],
    cancelled: threading.Event,
) -> list[Answer | ByzerError]:
    """Answer many independent requests, together where their sampling agrees.

    Args:
        requests: `ins`, `his` and the keywords of `stream_chat`, each.
        cancelled: Stops the generation within a token.

    Returns:
        Each request's answer, or the error that `stream_chat` would have raised, in their order.
    """
    answers: list[Answer | ByzerError] = [("", {})] * len(requests)
    groups: dict[Sampling, dict[int, list[int]]] = {}
    for index, request in enumerate(requests):
        options = {"max_length": 4090, "top_p": 0.95, "temperature": 0.1, **request}
        ins, his = options.pop("ins"), options.pop("his", ())
        try:
            roles, ignored = _roles(tokenizer, **{name: options.pop(name, None) for name in ROLE_KEYS})
            ids = _prompt(self, tokenizer, ins, his, roles)
            groups.setdefault(Sampling.of(**options, ignored=ignored), {})[index] = ids
        except ByzerError as error:
            answers[index] = error
    for sampling, prompts in groups.items():
        found = generate_batch(self, tokenizer, list(prompts.values()), sampling, frame(tokenizer), cancelled=cancelled)
        for index, answer in zip(prompts, found, strict=True):
            answers[index] = answer
    return answers


def _prompt(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ins: str, his: Sequence[Message], roles: dict[str, str]
) -> list[int]:
    """Return a request's prompt. A family whose model has `is_prompt` may be given one that is written out."""
    is_prompt = getattr(model, "is_prompt", None)
    if is_prompt is not None and not his and is_prompt(ins):
        return encode_written_prompt(tokenizer, ins)
    return encode_prompt(tokenizer, [*his, Message(role="user", content=ins)], roles=roles)


def _roles(tokenizer: PreTrainedTokenizerBase, **given: str | None) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the names of the two who talk that the template takes, and the keys of those that it does not."""
    wished, taken = {name: value for name, value in given.items() if value}, roles_taken(tokenizer)
    return {name: wished[name] for name in wished if name in taken}, tuple(n for n in wished if n not in taken)


def _quantization(params: Mapping[str, str]) -> str | None:
    kind = str(params.get("quatization", params.get("quantization", "false"))).lower()
    if kind == "false":
        in_4bit = "infer.bool.load_in_4bit" if "infer.bool.load_in_4bit" in params else "infer.load_in_4bit"
        return "nf4" if _flag(params, in_4bit) else None
    return kind


def _flag(params: Mapping[str, str], name: str) -> bool:
    """Return a boolean key; a caller from Python may write it in any form that a cell may."""
    try:
        return TypeAdapter(bool).validate_python(params.get(name, "false"))
    except ValidationError:
        raise ByzerError(f"{name} is {params[name]!r}", do='write "true" or "false"') from None
