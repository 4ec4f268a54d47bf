"""One rank of a gang: a Ray actor ``W-RANK-JOB`` that holds one device and runs the loop."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from byzerllm_adapters.errors import ByzerError

from .job_folder import SAMPLES_FILE, JobFolder, Record
from .job_request import read_request
from .processes import Place, this_process
from .versions import installed_versions
from .watchdog import START_SECONDS

if TYPE_CHECKING:
    from .report import Report

SEEN_SECONDS = 5.0
"""A network file system shows what another node has just written within this time."""

FLUSH_SECONDS = 0.25
"""Metrics reach the disk at most this often: a viewer draws no faster."""


class Worker:
    """A rank. Ray runs its methods on threads, so that `stop` is heard while `train` runs.

    Args:
        root: The job's folder.
        rank: This rank, counted from 0.
        attempt: The attempt whose lease this rank writes under.
        threads: Threads to compute with.
    """

    def __init__(self, root: str, rank: int, attempt: int, threads: int) -> None:
        self._folder, self._index, self._attempt, self._threads = JobFolder(root), rank, attempt, threads
        os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is loaded, which is later
        self._stop, self._ended = threading.Event(), threading.Event()
        self._loading = threading.Lock()
        self._result: Record | None = None
        self._error: BaseException | None = None
        self._places: Sequence[Place] = ()
        self._done, self._trains = 0, False

    def place(self) -> Place:
        """Return where this worker is, and what is installed there; from now on what it prints is logged.

        Raises:
            ByzerError: the node does not see the job's folder.
        """
        import ray

        self._find_folder()
        log = keep_log(self._folder.logs / f"rank-{self._index}.log")
        faulthandler.register(signal.SIGUSR1, file=log, all_threads=True)
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        return Place(
            address=ray.util.get_node_ip_address(),
            port=port,
            node=ray.get_runtime_context().get_node_id(),
            process=this_process(),
            devices=os.environ.get("CUDA_VISIBLE_DEVICES", ""),
            versions=installed_versions(),
        )

    def meet(self, places: Sequence[Place]) -> None:
        """Be told where all ranks are, by rank; nothing is joined yet."""
        self._places = places

    def progress(self) -> int:
        """Return how many things were done since the start: it only has to change for a rank that gets on.

        Less than 0: none is to be expected, before `train` is called and after the last step.
        """
        return self._done if self._trains else -1

    def get_on(self) -> None:
        """Count one more thing that was done."""
        self._done += 1

    def load(self) -> None:
        """Import what training needs, which takes seconds; whatever fails here fails again, and is told, in `train`."""
        with self._loading:  # two threads that import DeepSpeed at once see half of it
            _leave_out_noise()
            from . import loop, recipe  # noqa: F401
            from .engine import import_deepspeed

            import_deepspeed()
            request = read_request(self._folder)
            if request.train.fine_tunes:  # peft brings bitsandbytes: a second that pretraining does not need
                import peft  # noqa: F401
            if self._index == 0 and request.loop.report_to == "tensorboard":
                import torch.utils.tensorboard  # noqa: F401 - its writer imports it at the first step otherwise

    def train(self) -> Record:
        """Train to the end (or until stopped) and return the outcome."""
        self._trains = True
        try:
            self._result = self._train()
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._ended.set()
        return self._result

    def outcome(self) -> Record:
        """Wait until `train`, called by someone else, has ended; return its outcome or raise its error."""
        self._ended.wait()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def stop(self) -> None:
        """Ask to end after the current step, with a checkpoint."""
        self._stop.set()

    def _train(self) -> Record:
        self.load()
        import torch

        torch.set_num_threads(self._threads)
        from . import loop, recipe
        from .engine import Rank, join_group
        from .export import export_model
        from .report import Report

        assert self._places, "meet() comes before train()"
        request = read_request(self._folder)
        job = recipe.Job(self._folder, request)
        rank = Rank(self._index, request.workers)
        join_group(
            rank,
            self._places,
            gpu=request.gpu,
            by_own_address=request.train.sfft.setup_nccl_socket_ifname_by_ip,
            patience=2 * max(request.loop.stall_seconds, START_SECONDS),  # the watchdog is to notice first
        )
        torch.manual_seed(request.loop.seed)  # new weights (LoRA's, or from scratch) are the same on every rank
        method = recipe.find(request.train.method)
        plan = method.plan(job)
        total = recipe.total_steps(method, job, plan)
        model = method.model(job)
        if rank.index == 0:
            self.event("running", total_steps=total, **_parameter_counts(model), **method.about_model(job))
        settings = request.loop
        with MetricsWriter(self._folder, self._attempt) as metrics, Report(settings, self._folder, total) as report:
            engine, outcome = loop.train(
                model,
                plan,
                settings,
                total,
                folder=self._folder,
                rank=rank,
                observer=_Observer(self, metrics, report),
                objective=method.objective(job),
                epoch_steps=method.steps_per_epoch(job, plan),
                held_out=method.held_out(job),
                sampler=recipe.sampler(method, job),
            )
        self._trains = False  # saving the result takes as long as it takes
        if outcome.state == "finished":
            export_model(engine, self._folder.model, rank.index, fence=self.fence)
            if rank.index == 0:
                self.fence()
                method.tokenizer(job).save_pretrained(self._folder.model)
                print(f"model and tokenizer, as of step {outcome.model_step}: {self._folder.model}")
                print(f"checkpoints: {self._folder.checkpoints}")
        torch.distributed.destroy_process_group()
        return outcome.as_record()

    def _find_folder(self) -> None:
        """Wait until this node sees the job's folder, and in it the claim of this attempt.

        Raises:
            ByzerError: it does not.
        """
        deadline = time.monotonic() + SEEN_SECONDS
        while self._folder.attempt() < self._attempt:
            if time.monotonic() > deadline:
                raise ByzerError(
                    f"a worker's node ({socket.gethostname()}) does not see the job's folder",
                    where=f"{self._folder.root}",
                    do="give a localPathPrefix that all nodes share: a network file system",
                )
            time.sleep(0.1)

    def fence(self) -> None:
        """Raise `LeaseLost` if another attempt goes on with this job."""
        self._folder.check_lease(self._attempt)

    def event(self, name: str, **details: Any) -> None:
        """Append an event to the job's."""
        record = {"event": name, "time": time.time(), "attempt": self._attempt, **details}
        self.fence()
        self._folder.append("events.jsonl", [record])

    def keep_samples(self, answers: Sequence[Record]) -> None:
        """Append what the model answered to the job's samples."""
        self.fence()
        self._folder.append(SAMPLES_FILE, [{"attempt": self._attempt, **answer} for answer in answers])

    def is_asked_to_stop(self) -> bool:
        """Whether somebody has called `stop`."""
        return self._stop.is_set()


@dataclass(frozen=True)
class _Observer:
    """Tells the job's folder and log what the loop does."""

    worker: Worker
    metrics: MetricsWriter
    report: Report

    def record(self, step: Record) -> None:
        self.metrics.add(step)
        self.report.add(step)

    def flush(self) -> None:
        self.metrics.flush()

    def fence(self) -> None:
        self.worker.fence()

    def saved(self, step: int) -> None:
        self.worker.event("checkpoint", step=step)

    def note(self, message: str) -> None:
        self.worker.event("note", message=message)
        print(message)

    def sampled(self, answers: Sequence[Record]) -> None:
        self.worker.keep_samples(answers)
        for answer in answers:
            print(f"step {answer['step']}, asked: {answer['prompt']}\n{answer['answer']}")

    def should_stop(self) -> bool:
        return self.worker.is_asked_to_stop()

    def get_on(self) -> None:
        self.worker.get_on()


class MetricsWriter:
    """Appends metrics from a thread, so that the loop never waits for a disk. Leaving its ``with`` writes what is left.

    Args:
        folder: The job.
        attempt: Written into each record; without its lease nothing is written and the loop ends.
    """

    def __init__(self, folder: JobFolder, attempt: int) -> None:
        self._folder, self._attempt = folder, attempt
        self._pending: list[Record] = []
        self._lock, self._writing, self._closed = threading.Lock(), threading.Lock(), threading.Event()
        self._error: ByzerError | OSError | None = None
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def add(self, record: Record) -> None:
        """Take one step's record.

        Raises:
            LeaseLost: another attempt runs this job now.
            OSError: the disk refused the records before.
        """
        if self._error is not None:
            raise self._error
        with self._lock:
            self._pending.append({"attempt": self._attempt, "time": round(time.time(), 3), **record})

    def flush(self) -> None:
        """Write what was added until now before returning; raises as `add` does."""
        self._write()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._closed.set()
        self._thread.join()
        if self._error is not None and kind is None:  # else the loop's own error tells more
            raise self._error

    def _run(self) -> None:
        while self._error is None:
            last_round = self._closed.wait(FLUSH_SECONDS)
            self._write()
            if last_round:
                return

    def _write(self) -> None:
        """Append what is pending; by one thread at a time, so that steps stay in order."""
        with self._writing:
            with self._lock:
                records, self._pending = self._pending, []
            try:
                if records:
                    self._folder.check_lease(self._attempt)
                    self._folder.append("metrics.jsonl", records)
            except (ByzerError, OSError) as error:  # raised where the loop adds its next record, or ends
                self._error = error


def _leave_out_noise() -> None:
    """Keep out of the log what libraries say of their own affairs: a user reads it for what the job has to say."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of loading and of saving, a line each
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")  # DeepSpeed's calls
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # peft's
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # kernels that it would rather have


def keep_log(path: Path) -> TextIO:
    """Copy what this process prints into ``path`` as well: the dashboard shows one, the job folder keeps the other."""
    log = path.open("a", encoding="utf-8", buffering=1)
    sys.stdout = _Tee(sys.stdout, log)
    sys.stderr = _Tee(sys.stderr, log)
    return log


class _Tee:
    """A text stream that writes to two; everything else is the first's."""

    def __init__(self, first: TextIO, second: TextIO) -> None:
        self._first, self._second = first, second

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):  # a full disk: what has to be said there goes into the job's events
            self._second.write(text)
        return self._first.write(text)

    def flush(self) -> None:
        self._first.flush()
        with contextlib.suppress(OSError):
            self._second.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._first, name)


def _parameter_counts(model: Any) -> Record:
    """Count all and trainable parameters; under ZeRO-3 each carries its full size in ``ds_numel``."""
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    return {"parameters": sum(n for n, _ in sizes), "trainable": sum(n for n, grad in sizes if grad)}
