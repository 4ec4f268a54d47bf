"""What runs inside Ray Serve: one replica of a deployed model."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from byzerllm_adapters.errors import ByzerError, with_place
from byzerllm_adapters.secret_values import hidden, is_secret, revealed
from byzerllm_adapters.templates import ROLE_KEYS

Answer = dict[str, Any]
"""One message of a stream: ``text`` so far, and ``extra`` (with the last one the counts and times)."""


class Replica:
    """A loaded model that answers one conversation at a time; others wait in line.

    Args:
        infer_params: The statement's keys.
        sys_conf: The session's settings.
        threads: Threads to compute with on a CPU.

    A model that does not load is told by `describe`, with the adapter's own error: a constructor that raises would be
    tried again by Serve for a minute, and its error lost in a log.
    """

    def __init__(self, infer_params: Mapping[str, str], sys_conf: Mapping[str, str], threads: int) -> None:
        self._infer_params, self._sys_conf = dict(infer_params), dict(sys_conf)
        self._secrets = [value for key, value in infer_params.items() if is_secret(key)]
        self._error: ByzerError | None = None
        self._turn = asyncio.Lock()
        _listen_on_own_address()
        try:
            import torch

            from byzerllm_adapters import registry

            torch.set_num_threads(threads)
            infer_params = revealed(infer_params)
            self._secrets = [value for key, value in infer_params.items() if is_secret(key)]
            adapter = registry.find(infer_params["pretrainedModelType"])
            self._model, self._tokenizer = adapter.init_model(
                infer_params["localModelDir"], dict(infer_params), dict(sys_conf)
            )
        except Exception as error:  # noqa: BLE001 - a user's adapter may raise anything; its place is what helps
            self._error = self._told(error)

    async def asked(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the keys and the settings that it was made of."""
        return self._infer_params, self._sys_conf

    async def describe(self) -> dict[str, Any]:
        """Return the model's folder, type and parameter count.

        Raises:
            ByzerError: the model did not load.
        """
        if self._error is not None:
            raise self._error
        count = sum(p.numel() for p in self._model.parameters()) if hasattr(self._model, "parameters") else None
        return {
            "localModelDir": self._infer_params["localModelDir"],
            "pretrainedModelType": self._infer_params["pretrainedModelType"],
            "parameters": count,
        }

    async def chat(self, request: Mapping[str, Any]) -> AsyncIterator[Answer]:
        """Stream the answer to a request as it is generated.

        Args:
            request: ``instruction``, ``history``, and any of ``max_length``, ``top_p``, ``temperature``,
                ``user_role``, ``assistant_role`` and ``generation.X``.

        Cancelling the call stops the generation within one token and frees the replica.
        """
        async with self._turn:
            queue: asyncio.Queue[Answer | Exception | None] = asyncio.Queue()
            stream = _Pump(self._stream(request), queue, asyncio.get_running_loop())
            try:
                while (item := await queue.get()) is not None:
                    if isinstance(item, Exception):
                        raise self._told(item)
                    yield item
            finally:
                stream.cancel()

    async def answer(self, requests: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """Return the whole answers to many requests, in their order; one that fails gives ``{"error": why}``.

        Args:
            requests: As `chat` takes them. A model whose adapter has no ``chat_many`` answers one after another.

        Cancelling the call stops the generation within one token.
        """
        async with self._turn:
            cancelled = threading.Event()
            try:
                return await asyncio.to_thread(self._answer, [self._arguments(each) for each in requests], cancelled)
            finally:
                cancelled.set()

    def _answer(self, requests: list[dict[str, Any]], cancelled: threading.Event) -> list[Answer]:
        from byzerllm_adapters.answering import answer_many

        return [self._as_answer(found) for found in answer_many(self._model, self._tokenizer, requests, cancelled)]

    def _as_answer(self, found: Any) -> Answer:
        if isinstance(found, Exception):
            return {"error": str(self._told(found))}
        text, extra = found
        return {"text": text, "extra": extra}

    def _told(self, error: Exception) -> ByzerError:
        """Return any exception as one for the user, without the deployment's secrets in it."""
        told = with_place(error)
        what, where, do = (hidden(text, self._secrets) for text in (told.what, told.where, told.do))
        return ByzerError(what, where=where, do=do)

    def _stream(self, request: Mapping[str, Any]) -> Any:
        options = self._arguments(request)
        return lambda: self._model.stream_chat(self._tokenizer, options.pop("ins"), options.pop("his"), **options)

    def _arguments(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of ``stream_chat`` that a request means; roles, where it has a name for them."""
        known = inspect.signature(self._model.stream_chat).parameters
        names = ("max_length", "top_p", "temperature", *(name for name in ROLE_KEYS if name in known))
        options = {name: request[name] for name in names if name in request}
        for key, value in request.items():
            prefix, _, name = key.partition(".")
            if prefix in ("generation", "gen") and name:
                options[name] = value
        return {"ins": request["instruction"], "his": list(request.get("history", [])), **options}


def _listen_on_own_address() -> None:
    """Keep the port that Serve opens for every replica off the machine's other interfaces; it has no setting for it."""
    import ray
    from ray.serve._private import replica

    own = ray.util.get_node_ip_address()
    add_port = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, _address: add_port(server, f"{own}:0")


class _Pump:
    """Iterates over an adapter's answer on a thread and hands each item to the event loop."""

    def __init__(self, start: Any, queue: asyncio.Queue[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._start, self._queue, self._loop = start, queue, loop
        self._cancelled = threading.Event()
        self._result: Any = None
        threading.Thread(target=self._run, name="chat", daemon=True).start()

    def cancel(self) -> None:
        """Stop generating; harmless after the end."""
        self._cancelled.set()
        close = getattr(self._result, "close", None)
        if close is not None and not hasattr(self._result, "gi_frame"):  # a generator is closed by its own thread
            close()

    def _run(self) -> None:
        from byzerllm_adapters.contract import answer_stream

        try:
            self._result = self._start()
            for text, extra in answer_stream(self._result):
                if self._cancelled.is_set():
                    break
                self._put({"text": text, "extra": extra})
            self._put(None)
        except Exception as error:  # noqa: BLE001 - it reaches the cell
            self._put(error)

    def _put(self, item: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
