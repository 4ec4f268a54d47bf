"""Deployed models: one Ray Serve application each, named ``OWNER/udfName``. Serve is the truth; this only asks it."""

from __future__ import annotations

import difflib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.infer_parameters import InferParameters

from . import room
from .replica import Replica

REPLICA_CPUS = 0.1
"""A CPU replica's reservation: small, so that a deployed model and a two-worker job fit on two cores."""

ONGOING_REQUESTS = 64
"""Requests that a replica takes in at a time; it answers them in turn, or together where they came together."""

ROOM_SECONDS = 10.0
"""After this long without resources for a replica the cell says what is missing and who holds it."""

T = TypeVar("T")

_serve_lock = threading.Lock()


@dataclass(frozen=True)
class Deployment:
    """A model that answers.

    Attributes:
        name: Its name in the cell, ``udfName``.
        owner: Whose it is.
        status: Serve's word: ``RUNNING``, ``DEPLOYING``, …
        replicas: How many replicas run.
        deployed: When it was deployed, unix seconds.
    """

    name: str
    owner: str
    status: str
    replicas: int
    deployed: float

    @property
    def application(self) -> str:
        """The Serve application's name."""
        return f"{self.owner}/{self.name}"

    def describe(self) -> dict[str, Any]:
        """Return the model's folder, type and parameter count.

        Raises:
            ByzerError: the model did not load; its adapter's own error.
        """
        from ray.exceptions import RayTaskError

        def ask() -> dict[str, Any]:
            described: dict[str, Any] = app_handle(self).describe.remote().result(timeout_s=60)
            return described

        try:
            return off_loop(ask)
        except RayTaskError as error:
            raise cause(error) from None

    def asked(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the keys and the settings that the model was deployed with."""

        def ask() -> tuple[dict[str, str], dict[str, str]]:
            asked: tuple[dict[str, str], dict[str, str]] = app_handle(self).asked.remote().result(timeout_s=60)
            return asked

        return off_loop(ask)

    def stream(self, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield ``{"text": so far, "extra": …}`` as it is generated. Closing the generator frees the replica.

        Raises:
            ByzerError: the request cannot be answered, or the replica died.
        """
        from ray.exceptions import RayError, RayTaskError

        handle = app_handle(self).options(stream=True)
        items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        responses: list[Any] = []
        unwanted = threading.Event()

        def receive() -> None:
            try:
                responses.append(handle.chat.remote(dict(request)))
                if unwanted.is_set():  # closed before there was anything to cancel
                    responses[0].cancel()
                for item in responses[0]:
                    items.put(item)
                items.put(None)
            except Exception as error:  # noqa: BLE001 - raised below, on the caller's thread
                items.put(error)

        threading.Thread(target=receive, name="answer", daemon=True).start()
        ended = False
        try:
            while isinstance(item := items.get(), dict):
                yield item
            ended = True
            if isinstance(item, RayError) and not isinstance(item, RayTaskError):
                raise ByzerError(
                    f"model {self.name!r} stopped answering: {type(item).__name__}",
                    do='"%byzerllm models" shows its state; ask again when it is RUNNING',
                )
            if item is not None:
                raise cause(item)
        finally:
            unwanted.set()
            if not ended and responses:
                responses[0].cancel()

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(f"model {self.name!r} ({self.status}, {self.replicas} replica{'s' * (self.replicas != 1)})")


def app_handle(deployment: Deployment) -> Any:
    """Return Serve's handle to a model's replicas."""
    return _serve().get_app_handle(deployment.application)


def off_loop(call: Callable[[], T]) -> T:
    """Run ``call`` on a thread and return its result: a notebook's main thread runs an event loop, and Serve's
    synchronous calls refuse to work there.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result()


def _serve() -> Any:
    """Import Serve, its remarks kept out of the cell that happens to run."""
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    return serve


def ensure_serve() -> None:
    """Start Serve without HTTP proxies, once; takes seconds, so `setup` begins it in the background."""
    with _serve_lock:
        _serve().start(proxy_location="Disabled")


def deploy(
    parameters: InferParameters,
    raw: Mapping[str, str],
    *,
    sys_conf: Mapping[str, str],
    owner: str,
    tell: Callable[[str], None] = print,
) -> Deployment:
    """Deploy a model and wait until it answers; interrupting or failing leaves nothing behind.

    Args:
        parameters: The statement's keys, validated.
        raw: The same as text, as an adapter gets them.
        sys_conf: The session's settings as text.
        owner: Part of the application's name.
        tell: Takes what is missing when the model waits for room.

    Raises:
        ByzerError: the model does not load (the adapter's own error), there is no room for it, or it did not answer
            within ``modelWaitServerReadyTimeout``.
    """
    serve, (cpus, gpus) = _serve(), _needs(sys_conf)
    room.check(cpus, gpus)
    name = f"{owner}/{parameters.udf_name}"
    try:
        bring_back(raw, sys_conf, name)
        _wait_until_running(name, cpus, gpus, parameters.ready_timeout, tell)
        deployment = get(parameters.udf_name, owner)
        deployment.describe()
    except KeyboardInterrupt:
        serve.delete(name, _blocking=False)
        raise ByzerError(f"interrupted: model {parameters.udf_name!r} is not deployed") from None
    except BaseException:
        serve.delete(name)
        raise
    return deployment


def bring_back(raw: Mapping[str, str], sys_conf: Mapping[str, str], application: str) -> None:
    """Have Serve run a model, and do not wait for it.

    Args:
        raw: The keys that it is deployed with.
        sys_conf: The settings, likewise.
        application: The name of its application.
    """
    serve, (cpus, gpus) = _serve(), _needs(sys_conf)
    ensure_serve()
    model = serve.deployment(
        Replica,
        name="model",
        num_replicas=int(sys_conf["maxConcurrency"]),
        max_ongoing_requests=int(sys_conf.get("workerMaxConcurrency", ONGOING_REQUESTS)),
        max_queued_requests=int(sys_conf["masterMaxConcurrency"]),
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus, "resources": _resources(sys_conf)},
    ).bind(dict(raw), dict(sys_conf), _threads())
    serve.run_many([serve.RunTarget(model, application, route_prefix=None)], wait_for_applications_running=False)


def _needs(sys_conf: Mapping[str, str]) -> tuple[float, float]:
    """Return the CPUs and GPUs of a replica."""
    import ray

    gpus = float(sys_conf["num_gpus"]) if ray.cluster_resources().get("GPU") else 0.0
    return float(sys_conf.get("num_cpus") or (1.0 if gpus else REPLICA_CPUS)), gpus


def _wait_until_running(name: str, cpus: float, gpus: float, seconds: float, tell: Callable[[str], None]) -> None:
    """Wait until every replica of an application runs; after `ROOM_SECONDS` without room, tell what is missing.

    Raises:
        ByzerError: Serve gave up, or it took longer than ``seconds``.
    """
    begun, told = time.monotonic(), False
    while (application := _serve().status().applications.get(name)) is None or application.status != "RUNNING":
        waited = time.monotonic() - begun
        missing = room.missing(cpus, gpus, besides=name) if waited > ROOM_SECONDS else ""
        if missing and not told:
            tell(f"waiting for room: {missing}")
            told = True
        if application is not None and application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise ByzerError(f"the model did not start: {application.message.strip().splitlines()[-1][:300]}")
        if waited > seconds:
            raise ByzerError(
                f"the model did not answer within {seconds:g} s" + (": no room for it" if missing else ""),
                where=missing,
                do='modelWaitServerReadyTimeout="…" (seconds) waits longer; "%byzerllm undeploy NAME" makes room',
            )
        time.sleep(0.1)


def listed(owner: str | None = None) -> list[Deployment]:
    """All deployed models (of ``owner``), the last deployed first."""
    with _serve_lock:
        applications = _serve().status().applications
    found = []
    for name, status in applications.items():
        whose, _, model = name.partition("/")
        if model and owner in (None, whose):
            replicas = sum(sum(d.replica_states.values()) for d in status.deployments.values())
            found.append(Deployment(model, whose, status.status.value, replicas, status.last_deployed_time_s))
    return sorted(found, key=lambda d: -d.deployed)


def get(name: str, owner: str) -> Deployment:
    """Return one's own deployed model, by name or ``OWNER/NAME``.

    Raises:
        ByzerError: there is none of that name, with the nearest name and what runs instead, or it is somebody else's.
    """
    whose, _, bare = name.rpartition("/")
    everybodys = listed()
    mine = {d.name: d for d in everybodys if d.owner == owner}
    if bare in mine and whose in ("", owner):
        return mine[bare]
    foreign = [d for d in everybodys if d.name == bare and whose in ("", d.owner)]
    if foreign:
        raise ByzerError(
            f"the model {bare!r} belongs to {foreign[0].owner}, and you are {owner}",
            do=f'"owner={foreign[0].owner}" in %%byzerllm setup makes you its owner',
        )
    near = difflib.get_close_matches(bare, mine, n=1)
    do = f'did you mean "{near[0]}"?' if near else _how_to_deploy()
    raise ByzerError(f"no model {name!r}", where=_what_runs(everybodys, owner), do=do)


def last(owner: str) -> Deployment:
    """Return the model that an owner deployed last.

    Raises:
        ByzerError: the owner has none.
    """
    everybodys = listed()
    mine = [d for d in everybodys if d.owner == owner]
    if not mine:
        raise ByzerError("no model is deployed", where=_what_runs(everybodys, owner), do=_how_to_deploy())
    return mine[0]


def _what_runs(everybodys: list[Deployment], owner: str) -> str:
    """Say what an owner has deployed, and else what others have."""
    mine = [d.name for d in everybodys if d.owner == owner]
    if mine:
        return f"deployed: {', '.join(mine)}"
    others = [d.application for d in everybodys]
    return f"you are {owner}, and all there is belongs to others: {', '.join(others)}" if others else ""


def undeploy(name: str, owner: str, seconds: float = 30.0) -> None:
    """Delete a deployment and wait until it is gone.

    Raises:
        ByzerError: there is none of that name.
    """
    _serve().delete(get(name, owner).application)
    deadline = time.monotonic() + seconds
    while any(d.name == name for d in listed(owner)) and time.monotonic() < deadline:
        time.sleep(0.1)


def _how_to_deploy() -> str:
    return '%%byzerllm run with action="infer", localModelDir and udfName deploys one'


def _resources(sys_conf: Mapping[str, str]) -> dict[str, float]:
    """Return the custom Ray resources of a replica: settings called `resource.NAME`."""
    prefix = "resource."
    return {key.removeprefix(prefix): float(value) for key, value in sys_conf.items() if key.startswith(prefix)}


def _threads() -> int:
    import psutil

    return psutil.cpu_count(logical=False) or 1


def cause(error: Exception) -> Exception:
    """Return what a replica raised, as the user's error."""
    from ray.exceptions import RayTaskError

    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, ByzerError):
            return cause
        return ByzerError(f"{type(cause).__name__}: {cause}")
    return error
