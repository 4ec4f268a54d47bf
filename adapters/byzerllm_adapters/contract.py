"""What an adapter is, and what its `stream_chat` may return.

An adapter is a module (or any object) with `init_model`; the model that it returns carries `stream_chat`,
bound with `types.MethodType`. It may define `sft_train` and `sfft_train`; where it does not, the trainers'
own are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NotRequired, Protocol, TypeAlias, TypedDict

from byzerllm_adapters.errors import ByzerError

Answer: TypeAlias = tuple[str, dict[str, Any]]
"""The text so far, and facts about it. With the last item the text is the whole answer."""


class Message(TypedDict):
    """One turn of a conversation; `role` is system, user, assistant or tool.

    Beside the text a turn may hold what its template knows: an assistant's `tool_calls` (OpenAI's shape, the
    arguments an object) and `reasoning_content`; a tool's `name` and `tool_call_id`. An assistant's turn of
    `weight` 0 is not learned.
    """

    role: str
    content: str
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]
    reasoning_content: NotRequired[str]
    weight: NotRequired[int]


class Adapter(Protocol):
    """The one function that every adapter has, a user's own included."""

    def init_model(
        self, model_dir: str, infer_params: Mapping[str, str] = ..., sys_conf: Mapping[str, str] = ...
    ) -> tuple[Any, Any]:
        """Load `model_dir`; return `(model, tokenizer)`, the model with `stream_chat` bound to it."""
        ...


class Family(Adapter, Protocol):
    """An adapter of ours: training calls the same two loaders as serving."""

    def load_tokenizer(self, model_dir: str, *, trust_remote_code: bool = ...) -> Any:
        """Return the folder's tokenizer, with a chat template."""
        ...

    def load_model(
        self,
        model_dir: str,
        *,
        dtype: str = ...,
        device: str | None = ...,
        trust_remote_code: bool = ...,
        quantization: str | None = ...,
    ) -> Any:
        """Return the folder's model in evaluation mode, every weight read from the folder."""
        ...


class StreamChat(Protocol):
    """`stream_chat` as the service calls it: every `generation.X` of a request arrives as keyword `X`.

    A request's `user_role` and `assistant_role` reach one that has parameters of these names.
    """

    def __call__(  # noqa: PLR0917 - the contract's signature
        self,
        tokenizer: Any,
        ins: str,
        his: Sequence[Message] = ...,
        max_length: int = ...,
        top_p: float = ...,
        temperature: float = ...,
        **kwargs: Any,
    ) -> Iterable[Answer] | str:
        """Answer `ins`, which follows the conversation `his`."""
        ...


class ChatStream(Iterator[Answer]):
    """An answer while it is generated: iterates as `(text so far, extra)`, prints as the answer's text.

    Args:
        items: What to iterate over; it ends soon after `cancel` was called.
        cancel: Stops the generation. Called any number of times, from any thread.

    `extra` of the last item holds `input_tokens_count`, `generated_tokens_count`, `first_token_time` and
    `time_cost` (milliseconds since the request) and `finish_reason`: "stop", "length" or "cancelled"; `ignored`
    names keywords of the request that the model has no use for, if there were any.
    A stream that nobody holds any more cancels itself.
    """

    def __init__(self, items: Iterator[Answer], cancel: Callable[[], None]) -> None:
        self._items, self._cancel = items, cancel
        self._text = ""

    def __next__(self) -> Answer:
        answer = next(self._items)
        self._text = answer[0]
        return answer

    def __str__(self) -> str:
        for _ in self:
            pass
        return self._text

    def close(self) -> None:
        """Stop generating, within one token. What was generated so far can still be iterated."""
        self._cancel()

    def __enter__(self) -> ChatStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def answer_stream(result: Iterable[Any] | str) -> Iterator[Answer]:
    """Iterate over whatever a `stream_chat` returned as `(text so far, extra)`.

    Args:
        result: A plain string, or a list, a generator or a `ChatStream` of strings or `(text, extra)` pairs.
            An `extra` that is None or "" (as older adapters return) counts as empty.

    Raises:
        ByzerError: It is nothing of the kind, or holds no answer at all.
    """
    if isinstance(result, str):
        yield result, {}
        return
    if not isinstance(result, Iterable) or isinstance(result, Mapping | bytes):
        raise _not_an_answer(result)
    answered = False
    try:
        for item in result:
            yield _answer(item)
            answered = True
    finally:
        if callable(close := getattr(result, "close", None)):
            close()
    if not answered:
        raise ByzerError("stream_chat returned no answer", do="let it yield or return at least one (text, extra)")


def _answer(item: object) -> Answer:
    match item:
        case str():
            return item, {}
        case (str() as text, Mapping() as extra):
            return text, dict(extra)
        case (str() as text, None | ""):
            return text, {}
    raise _not_an_answer(item)


def _not_an_answer(what: object) -> ByzerError:
    return ByzerError(
        f"stream_chat returned a {type(what).__name__} where an answer is expected",
        do="return a string, or a list or generator of (text so far, extra) with extra a dict",
    )
