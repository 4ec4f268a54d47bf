"""`kills`: twenty seeded `kill -9`s of a training job's parts, and whether and when it goes on as if nothing had been.

Twelve jobs (fine-tuning with LoRA dropout and pretraining; ZeRO 0, 2 and 3; fp32 and bf16) of two workers run
once undisturbed. Then each runs again, and something dies: a worker at a random moment, a worker while a
checkpoint is being written, the coordinator, the process that started the job, the whole node that the gang is
on, all of Ray. Moment and victim come from the kill's number. A run counts when nobody had to help (all of Ray
gone: one call of `resume` on a new cluster) and it ends with the undisturbed run's weights bit for bit, and its
steps with the same losses.

Measured from outside, by the clock of this process: `noticed`, until the job's events say that something died (a
dead coordinator or cluster cannot say so itself: these two have none); `cleaned`, from then until the last
process of the old gang is gone; `training`, from the kill until the first new step is in metrics.jsonl.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from measure import Figure
from our_jobs import CORES, session
from tiny_model import tiny_model

from byzerllm_magics.cluster import connection, embedded
from byzerllm_magics.cluster.jobs import Job
from byzerllm_trainers.job_folder import JobFolder, Record

SMOKE = {"kills": 3, "steps": 24}
SAVE_STEPS = 8
CONFIGURATIONS = list(product(("sft", "sfft"), (0, 2, 3), ("fp32", "bf16")))
VICTIMS = [
    "worker", "coordinator", "worker, saving", "driver", "worker", "node", "worker, saving", "coordinator",
    "worker", "ray", "worker", "worker, saving", "coordinator", "worker", "node", "worker, saving",
    "driver", "worker", "coordinator", "worker",
]  # fmt: skip
WAIT_SECONDS = 180.0


@dataclass
class Recovery:
    """How a job came through one kill; seconds, None: not to be had."""

    same: bool
    noticed: float | None = None
    cleaned: float | None = None
    training: float | None = None


@dataclass
class Bench:
    """The machine room: a cluster, a second node for those jobs whose node dies, and undisturbed runs."""

    work: Path
    steps: int
    node: subprocess.Popen[bytes] | None = None
    undisturbed: dict[tuple[str, int, str], Job] = field(default_factory=dict)


def measure(work: Path, kills: int = len(VICTIMS), steps: int = 120) -> list[Figure]:
    """About fifteen minutes: every run of a job takes some twenty seconds, of which six are imports."""
    bench = Bench(work, steps)
    recoveries: list[tuple[str, Recovery]] = []
    try:
        for number in range(kills):
            victim, configuration = VICTIMS[number], CONFIGURATIONS[number % len(CONFIGURATIONS)]
            try:
                recovery = _killed(bench, number, victim, configuration)
            except TimeoutError as error:  # it did not come through
                print(error, file=sys.stderr)
                recovery = Recovery(same=False)
            print(number, victim, configuration, recovery, file=sys.stderr, flush=True)
            recoveries.append((victim, recovery))
    finally:
        _end_node(bench)
    same = [float(recovery.same) for _, recovery in recoveries]
    figures = [Figure("kills_survived", sum(same), f"of {kills}", {"same": same}, at_least=float(kills))]
    ours = [(victim, recovery) for victim, recovery in recoveries if victim not in ("driver", "ray")]
    for name, goal in (("noticed", 1.0), ("cleaned", 2.0), ("training", 15.0)):
        raw: dict[str, list[float]] = {}
        for victim, recovery in ours:
            if (seconds := getattr(recovery, name)) is not None:
                raw.setdefault(victim, []).append(round(seconds, 3))
        every = [seconds for values in raw.values() for seconds in values]
        figures.append(Figure(f"kills_{name}_median", median(every), "seconds", raw))
        figures.append(Figure(f"kills_{name}_longest", max(every), "seconds", raw, at_most=goal))
    return figures


# -- one kill -----------------------------------------------------------------------------------------


def _killed(bench: Bench, number: int, victim: str, configuration: tuple[str, int, str]) -> Recovery:
    """Run a job, kill the victim, wait for the job's end, and compare it with the undisturbed one."""
    chance = random.Random(number)
    undisturbed = _undisturbed(bench, configuration)
    keys = _keys(bench, configuration, f"k{number}-{victim.split(',', maxsplit=1)[0]}")
    driver: subprocess.Popen[bytes] | None = None
    if victim == "driver":
        driver, job = _driven(keys)
    else:
        ours = session(2)
        if victim == "node":
            _launch_node(bench)
            _until(_node_is_up, WAIT_SECONDS)
            ours.setup(**{"resource.second": 1})
        job = ours.run(keys)
    assert isinstance(job, Job)
    _until(lambda: _has(job, "running"), WAIT_SECONDS)
    coordinator, *gang = [psutil.Process(_pid(name)) for name in (job.name, *(f"W-{r}-{job.name}" for r in range(2)))]
    _reach(job, chance.randrange(SAVE_STEPS + 1, 2 * bench.steps // 3))
    if victim == "worker, saving":
        _until(lambda: _is_saving(job.folder), WAIT_SECONDS)
    else:
        time.sleep(chance.uniform(0.0, 0.2))
    match victim:
        case "coordinator":
            doomed = [coordinator]
        case "driver":
            assert driver is not None
            doomed, gang = [psutil.Process(driver.pid)], []
        case "node":
            raylet = _raylet_of(gang[0])
            doomed = [raylet, *raylet.children(recursive=True)]
        case "ray":
            doomed = _all_of_ray()
        case _:
            doomed = [chance.choice(gang)]
    for process in doomed:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return _follow(bench, job, undisturbed, (time.time(), gang), victim)


def _all_of_ray() -> list[psutil.Process]:
    """Return the embedded cluster's processes."""
    cluster = embedded.find()
    assert cluster is not None
    daemons = [psutil.Process(pid) for pid in cluster.processes if psutil.pid_exists(pid)]
    return [*daemons, *(child for each in daemons for child in each.children(recursive=True))]


def _follow(
    bench: Bench, job: Job, undisturbed: Job, killed: tuple[float, list[psutil.Process]], victim: str
) -> Recovery:
    """Watch the job to its end."""
    at, gang = killed
    recovery = Recovery(same=False)
    if victim == "node":
        _end_node(bench)
        _launch_node(bench)  # nobody waits for it: the old gang's end is looked at meanwhile
    if victim == "ray":
        connection.shutdown()
        connection.connect(num_cpus=CORES)
        job.resume()
    if victim == "driver":
        job.wait()
    else:
        noticed = _until(lambda: _noticed(job.folder), WAIT_SECONDS)["time"]
        gone = _until(lambda: _gone(gang), WAIT_SECONDS)
        step = _until(lambda: _new_step(job.folder), WAIT_SECONDS)
        recovery.training = step["time"] - at
        if victim not in ("coordinator", "ray"):
            recovery.noticed, recovery.cleaned = noticed - at, max(0.0, gone - noticed)
        job.wait()
    recovery.same = _same(job, undisturbed)
    return recovery


def _same(job: Job, other: Job) -> bool:
    """Whether two runs have the same steps and weights, to the bit."""
    columns = ["step", "loss", "grad_norm"]
    losses = [[[record[name] for name in columns] for record in each.folder.metrics()] for each in (job, other)]
    return losses[0] == losses[1] and _weights(job) == _weights(other)


def _weights(job: Job) -> str:
    (file,) = Path(job.model).glob("*.safetensors")
    return hashlib.sha256(file.read_bytes()).hexdigest()


# -- jobs ---------------------------------------------------------------------------------------------


def _undisturbed(bench: Bench, configuration: tuple[str, int, str]) -> Job:
    if configuration not in bench.undisturbed:
        job = session(2).run(_keys(bench, configuration, "undisturbed-" + "-".join(map(str, configuration))))
        assert isinstance(job, Job)
        job.wait()
        bench.undisturbed[configuration] = job
    return bench.undisturbed[configuration]


def _keys(bench: Bench, configuration: tuple[str, int, str], name: str) -> dict[str, Any]:
    method, stage, precision = configuration
    tiny = tiny_model(bench.work)
    length = {"sft.max_seq_length": 128, "sft.lora_dropout": 0.1} if method == "sft" else {"sfft.max_length": 128}
    return {
        "pretrainedModelType": f"{method}/llama",
        "localModelDir": str(tiny.model),
        "localDataDir": str(tiny.rows if method == "sft" else tiny.text),
        "localPathPrefix": str(bench.work / "jobs"),
        "name": name,
        "deepspeedConfig": f'{{"zero_optimization": {{"stage": {stage}}}}}',
        f"{method}.per_device_train_batch_size": 2,
        f"{method}.bf16": precision == "bf16",
        f"{method}.max_steps": bench.steps,
        f"{method}.save_steps": SAVE_STEPS,
        **length,
    }


def _driven(keys: dict[str, Any]) -> tuple[subprocess.Popen[bytes], Job]:
    """Start the job from a process of its own, as a kernel would that then waits for it."""
    code = f"from our_jobs import session\nsession(2).run({keys!r}).wait()"
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent, stdout=subprocess.DEVNULL)
    folder = JobFolder(Path(keys["localPathPrefix"]) / keys["name"])
    _until(folder.exists, WAIT_SECONDS)
    return driver, Job(folder)


# -- looking ------------------------------------------------------------------------------------------


def _until(holds: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {holds}")
        time.sleep(0.01)
    return found


def _has(job: Job, name: str) -> bool:
    return any(event["event"] == name for event in job.folder.events())


def _reach(job: Job, step: int) -> None:
    """Wait until a step is done, and a checkpoint is there to go on from."""
    _until(lambda: _has(job, "checkpoint"), WAIT_SECONDS)
    _until(lambda: (steps := job.folder.metrics()) and steps[-1]["step"] >= step, WAIT_SECONDS)


def _is_saving(folder: JobFolder) -> bool:
    return any(not (path / "manifest.json").exists() for path in folder.checkpoints.glob("step-*"))


def _noticed(folder: JobFolder) -> Record | None:
    return next((event for event in folder.events() if event["event"] in ("loss", "restarting")), None)


def _new_step(folder: JobFolder) -> Record | None:
    return next((record for record in folder.metrics() if record["attempt"] > 1), None)


def _gone(gang: list[psutil.Process]) -> float | None:
    """Return the time when no process of the gang is left."""
    running = [each for each in gang if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    return None if running else time.time()


def _pid(name: str) -> int:
    import ray
    from ray.util.state import list_actors

    address = ray.get_runtime_context().gcs_address
    (actor,) = list_actors(address, filters=[("name", "=", name), ("state", "=", "ALIVE")])
    return int(actor.pid)


# -- the second node ----------------------------------------------------------------------------------


def _launch_node(bench: Bench) -> None:
    """Start a node that alone has the resource ``second``, on this machine, unless there is one."""
    import ray

    if bench.node is not None:
        return
    address = ray.get_runtime_context().gcs_address
    node = Path(__file__).with_name("ray_node.py")
    resources = f'{{"CPU": {CORES}, "second": 2}}'
    bench.node = subprocess.Popen([sys.executable, str(node), address, resources])


def _node_is_up() -> bool:
    import ray

    return bool(ray.available_resources().get("second", 0) == 2)


def _end_node(bench: Bench) -> None:
    """End what is left of the second node."""
    if bench.node is None:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [*psutil.Process(bench.node.pid).children(recursive=True), psutil.Process(bench.node.pid)]:
            process.kill()
    bench.node.wait()
    bench.node = None


def _raylet_of(worker: psutil.Process) -> psutil.Process:
    return next(parent for parent in worker.parents() if parent.name() == "raylet")
