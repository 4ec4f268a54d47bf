"""Many questions to one deployed model: dispatched together, answered in their order, each exactly once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from byzerllm_adapters.errors import ByzerError

from .deployments import Deployment, app_handle, cause

TOGETHER = 32
"""Requests of one call at most: as many as a replica generates in one batch."""

CALLS_A_REPLICA = 2
"""Calls that are under way for each replica, so that it has the next one when it has answered one."""

Answer = dict[str, Any]
"""``text`` and ``extra`` of an answer, or ``error``: why there is none."""


def answer_all(
    deployment: Deployment, requests: Sequence[Mapping[str, Any]], progress: Callable[[int], None] = lambda _: None
) -> list[Answer]:
    """Return the answer to each request, in their order.

    Args:
        deployment: Who is asked; all its replicas are.
        requests: As a replica's ``chat`` takes them.
        progress: Told how many requests were answered, whenever some more were.

    A request that fails gives ``{"error": why}``, and so do those that were with a replica when it died: none is sent
    a second time. An interrupt cancels what is under way and raises KeyboardInterrupt.
    """
    replicas = max(1, deployment.replicas)
    together = max(1, min(TOGETHER, -(-len(requests) // replicas)))
    starts = range(0, len(requests), together)
    handle, calls = app_handle(deployment), _Calls()
    answers: list[Answer] = [{}] * len(requests)
    done = 0
    with ThreadPoolExecutor(replicas * CALLS_A_REPLICA, thread_name_prefix="answers") as pool:
        futures = {
            pool.submit(calls.make, handle, [dict(request) for request in requests[start : start + together]]): start
            for start in starts
        }
        try:
            for future in as_completed(futures):
                found, start = future.result(), futures[future]
                answers[start : start + len(found)] = found
                done += len(found)
                progress(done)
        except BaseException:
            calls.cancel()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return answers


class _Calls:
    """The calls that are under way."""

    def __init__(self) -> None:
        self._responses: list[Any] = []
        self._cancelled = False

    def make(self, handle: Any, requests: list[dict[str, Any]]) -> list[Answer]:
        """Send one call and wait for its answers; what makes it fail is each request's error."""
        response = handle.answer.remote(requests)
        self._responses.append(response)
        if self._cancelled:
            response.cancel()
        try:
            answers: list[Answer] = response.result()
        except Exception as error:  # noqa: BLE001 - it becomes the rows' error, which the user reads
            known = cause(error)
            why = str(known) if isinstance(known, ByzerError) else f"the replica died: {type(error).__name__}"
            return [{"error": why} for _ in requests]
        return answers

    def cancel(self) -> None:
        """Cancel all calls, and those that are still to be made."""
        self._cancelled = True
        for response in list(self._responses):
            response.cancel()
