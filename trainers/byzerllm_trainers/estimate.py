"""What a training job will take, before anything of it exists: memory, disk, tokens, steps, time."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.parameters import read

from . import recipe
from .data_sample import Data, look, prepared, sample
from .device import check_device
from .flops import PEAKS
from .job_folder import JobFolder
from .job_request import JobRequest
from .loop_settings import NEEDS_GPU_STATE
from .memory import FP32
from .memory_need import Estimator, Model, Need, stored_bytes
from .memory_trace import BatchShape
from .submit import check_request
from .train_parameters import TrainParameters

if TYPE_CHECKING:
    import pyarrow as pa

    from .loop_settings import LoopSettings
    from .machine import Machine

ASSUMED_MFU = 0.4
"""Share of a device's peak that training reaches where no earlier job says.

Usual on GPUs for models of 1 B weights and more; on CPUs, see the section on estimates in `docs/log.md`.
"""

WARM_UP_STEPS = 3
"""First steps of an earlier job that say nothing about its speed."""


@dataclass(frozen=True)
class Room:
    """What a worker has.

    Attributes:
        device: E.g. ``NVIDIA H200`` or ``CPU``.
        memory: Bytes that one worker may take.
        shared_by: Workers that share one node's main memory and cores; 1 on GPUs.
        host: Bytes of main memory that one worker may take.
        flops: FLOP/s of one worker by bytes of a number: the data sheet's, or what was measured of a CPU; where neither
            is known, there is no entry.
    """

    device: str
    memory: int
    shared_by: int
    host: int
    flops: Mapping[int, float]


@dataclass(frozen=True)
class Change:
    """A change that makes a job smaller: what to write, and the bytes that a worker then needs."""

    keys: str
    total: int


@dataclass(frozen=True)
class Estimate:
    """What a job will take.

    Attributes:
        method: ``sft``, ``sfft`` or ``dpo``.
        way: ``sfft``, or how the others fine-tune: ``lora``, ``dora``, ``qlora`` or ``full``.
        workers: Ranks.
        model: Its counts.
        need: Memory of one worker.
        room: What a worker has.
        data: Tokens and steps.
        checkpoint: Bytes of one checkpoint.
        checkpoints: How many lie on the disk at most: a new one is written before an old one goes.
        result: Bytes of the result's weights.
        seconds: Time of all steps, or None: unknown.
        seconds_from: What that is computed from.
        changes: What would make it fit, if it does not; the largest alone first, at last all together.
    """

    method: str
    way: str
    workers: int
    model: Model
    need: Need
    room: Room
    data: Data
    checkpoint: int
    checkpoints: int
    result: int
    seconds: float | None
    seconds_from: str
    changes: Sequence[Change]

    @property
    def fits(self) -> bool:
        """Whether a worker's device, and its share of the host's memory, hold what they have to."""
        return self.need.total <= self.room.memory and self.need.host <= self.room.host


def estimate(
    parameters: Mapping[str, Any],
    machines: Sequence[Machine],
    *,
    workers: int = 1,
    table: pa.Table | Any = None,
    partitions: Sequence[int] | None = None,
    eval_table: pa.Table | Any = None,
    earlier: Iterable[JobFolder] = (),
) -> Estimate:
    """Estimate a job; no weight is read, nothing is written, and no cluster is needed.

    Args:
        parameters: The keys of the cell, as `submit.submit` takes them.
        machines: Where it may run, at least one.
        workers: Ranks.
        table: The rows, in place of ``localDataDir``: an Arrow table, or a Ray Dataset, of which the beginning is read.
        partitions: How many of the rows each partition has, for ``keepPartitionNum``.
        eval_table: The rows of ``evalTable``.
        earlier: Jobs whose speed may tell this one's.

    Raises:
        ByzerError: whatever would keep the job from running, as `submit.submit` says it.
    """
    train = read(TrainParameters, parameters)
    checked = check_request(train, workers, table=table, partitions=partitions, eval_table=eval_table)
    settings = checked.settings
    gpu = any(machine.gpus for machine in machines)
    check_device(settings, gpu=gpu)
    request = JobRequest(dict(parameters), "", workers, gpu, cpus_per_worker=1, threads_per_worker=1)
    drawn = sample(train, table, checked.format)
    with prepared(_where_it_runs(request), drawn, checked.partitions) as job:
        data = look(job, drawn)
        method = recipe.find(train.method)
        extra_forwards = method.objective(job).extra_forwards
        estimator = Estimator(lambda: method.model(job), world=workers, gpu=gpu, stored=_stored(train))
    model = estimator.model(settings)
    need = estimator.need(settings, data.shape)
    room = _room(machines, workers, one_node=train.optimization.one_node)
    seconds, source = _time(request, model, data, room, earlier, extra_forwards=extra_forwards)
    fits = need.total <= room.memory and need.host <= room.host
    return Estimate(
        method=train.method,
        way=train.fine_tuning.finetuning_type if train.fine_tunes else train.method,
        workers=workers,
        model=model,
        need=need,
        room=room,
        data=data,
        checkpoint=checkpoint_bytes(model, settings),
        checkpoints=_checkpoints(settings, data),
        result=model.width * (model.trained + model.frozen if train.optimization.whole else model.trained),
        seconds=seconds,
        seconds_from=source,
        changes=[] if fits else _changes(estimator, train, settings, data.shape, need, gpu=gpu),
    )


def _where_it_runs(request: JobRequest) -> JobRequest:
    """Return a request whose model is loaded as its workers would: with GPUs in bf16, which this process may lack."""
    loop, method = request.loop, request.train.method
    if not request.gpu or loop.fp16 or loop.bf16 is not None:
        return request
    return replace(request, parameters=request.parameters | {f"{method}.bf16": True})


def _stored(train: TrainParameters) -> int:
    """Bytes of the files with the weights that the model begins with."""
    return 0 if train.method == "sfft" and train.sfft.from_scratch else stored_bytes(train.local_model_dir)


def checkpoint_bytes(model: Model, settings: LoopSettings) -> int:
    """Bytes of a checkpoint: trained weights, their masters where there are any, and AdamW's two moments.

    Frozen weights are left out. ZeRO-1 and 2 keep masters in fp32 runs too, and ZeRO-3 writes them from its partitions.
    """
    masters = FP32 if settings.zero_stage or model.width < FP32 else 0
    moments = {"sgd": 0, "adafactor": 4, "adamw_bnb_8bit": 2, "paged_adamw_8bit": 2}.get(settings.optim or "", 8)
    own = 0 if settings.zero_stage == 3 else model.width
    return model.trained * (own + masters + moments)


def _checkpoints(settings: LoopSettings, data: Data) -> int:
    """Return how many checkpoints lie on the disk at most."""
    every = {"no": data.total_steps, "steps": settings.saving.steps, "epoch": data.epoch_steps}[
        settings.saving.strategy
    ]
    written = -(-data.total_steps // max(1, every))
    return min(written, settings.save_total_limit + 1 + (settings.best_by is not None))


def _room(machines: Sequence[Machine], workers: int, *, one_node: bool) -> Room:
    """Return what each of the workers has on the machines, the smallest deciding."""
    gpus = [gpu for machine in machines for gpu in machine.gpus]
    hosts = [machine for machine in machines if machine.gpus] if gpus else list(machines)
    together = workers if one_node else -(-workers // len(hosts))
    host = min(machine.memory for machine in hosts) // together
    if not gpus:
        slowest = min((machine.cpu_flops for machine in hosts), key=lambda flops: flops.get(FP32, 0.0))
        return Room("CPU", host, together, host, {width: all_cores / together for width, all_cores in slowest.items()})
    smallest = min(gpus, key=lambda gpu: gpu.memory)
    peak = next((peak for part, peak in PEAKS.items() if part in smallest.name), None)
    return Room(smallest.name, smallest.memory, 1, host, {2: peak} if peak else {})


def _time(
    request: JobRequest,
    model: Model,
    data: Data,
    room: Room,
    earlier: Iterable[JobFolder],
    *,
    extra_forwards: int,
) -> tuple[float | None, str]:
    """Return the seconds of all steps and what they come from: an earlier job's speed, else the device's peak."""
    for folder in earlier:
        speeds = [record["tokens_per_second"] for record in folder.metrics()[WARM_UP_STEPS:]]
        if speeds and _computes_alike(request, folder):
            return data.total_tokens / statistics.median(
                speeds
            ), f"the speed of job {folder.name}, which computes alike"
    peak = room.flops.get(model.width)
    if peak is None:
        return None, "no earlier job computes alike, and the device's peak is not known"
    epoch = model.flops.of_step(data.tokens, data.targets, data.width, extra_forwards)
    flops = epoch * data.total_steps / data.epoch_steps
    of_what = f"of the device's {peak / 1e12:.0f}" if request.gpu else f"of a worker's {peak / 1e12:.2g} measured"
    source = f"{flops:.2g} FLOPs at {ASSUMED_MFU:.0%} (assumed) {of_what} TFLOP/s"
    return flops / (request.workers * peak * ASSUMED_MFU), source


def _computes_alike(request: JobRequest, folder: JobFolder) -> bool:
    """Whether an earlier job did steps of the same shape on as many devices of the same kind."""
    other = JobRequest(**folder.request())
    return _shape_of(request) == _shape_of(other)


def _shape_of(request: JobRequest) -> tuple[Any, ...]:
    """Return what decides a job's speed."""
    train, loop = request.train, request.loop
    keys = train.optimization
    lengths: tuple[Any, ...] = (train.sfft.max_length,)
    if train.fine_tunes:
        own = train.fine_tuning
        adapter = (own.finetuning_type, own.lora_rank, tuple(own.target_modules), tuple(own.modules_to_save))
        lengths = (own.max_seq_length, train.packs, *adapter)
    place = Path(train.local_model_dir).expanduser().absolute()
    return (
        train.pretrained_model_type,
        place,
        request.workers,
        request.gpu,
        lengths,
        (keys.bf16, keys.fp16, keys.gradient_checkpointing, keys.torch_compile, keys.optim),
        (loop.rows, loop.accumulation, loop.group_by_length, loop.deepspeed),
    )


def _changes(
    estimator: Estimator, train: TrainParameters, settings: LoopSettings, shape: BatchShape, need: Need, *, gpu: bool
) -> list[Change]:
    """Return the changes that help, each estimated like the job itself, and the sum of them."""
    found: list[Change] = []
    together: dict[str, Any] = {}
    small = shape
    for keys, changed, at in _smaller(train, settings, shape, gpu=gpu):
        total = estimator.need(replace(settings, **changed), at).total
        if total < need.total:
            found.append(Change(keys, total))
            together |= changed
            small = min(small, at, key=lambda one: one.rows)
    if len(together) > 1:
        found.append(Change("all of it together", estimator.need(replace(settings, **together), small).total))
    return found


def _smaller(
    train: TrainParameters, settings: LoopSettings, shape: BatchShape, *, gpu: bool
) -> Iterator[tuple[str, dict[str, Any], BatchShape]]:
    """Yield what may take less memory: the keys to write, the settings they change, the batches that follow."""
    method = train.method
    if settings.rows > 1:
        batches = settings.accumulation * settings.rows
        keys = f'{method}.per_device_train_batch_size="1" and {method}.gradient_accumulation_steps="{batches}"'
        rows = max(1, shape.rows // settings.rows)  # two of a pair
        one = replace(shape, rows=rows, supervised=min(rows * shape.width, shape.supervised))
        yield keys, {"rows": 1, "accumulation": batches}, one
    if not settings.gradient_checkpointing:
        yield f'{method}.gradient_checkpointing="true"', {"gradient_checkpointing": True}, shape
    stages: list[dict[str, Any]] = [{"stage": stage} for stage in (2, 3) if stage > settings.zero_stage]
    if gpu and settings.optim not in NEEDS_GPU_STATE:
        off = {"device": "cpu"}
        stages += [{"stage": 2, "offload_optimizer": off}, {"stage": 3, "offload_optimizer": off, "offload_param": off}]
    no_third = settings.torch_compile or (train.fine_tunes and train.fine_tuning.finetuning_type == "qlora")
    for zero in (zero for zero in stages if not (no_third and zero["stage"] == 3)):
        section = {"zero_optimization": zero}
        yield f"deepspeedConfig='''{json.dumps(section)}'''", {"deepspeed": settings.deepspeed | section}, shape
