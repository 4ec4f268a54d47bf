"""``action="merge"`` and ``"convert"`` for a session: checked here, done on the cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.parameters import read
from byzerllm_trainers.actions.action_parameters import ConvertParameters, MergeParameters

from .model_places import find_job, job_around, model_folder
from .paths import shown
from .tables.catalog import table_of

if TYPE_CHECKING:
    from .cluster.tasks import Work
    from .session import Session
    from .tables import Table

Record = dict[str, Any]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class MadeModel:
    """A model folder that an action made.

    Attributes:
        model: The folder: what ``localModelDir`` takes.
        facts: What is known of it, the record of ``merge`` or ``convert``.
        summary: The same in a line.
        tables: ``outputTable`` by its name, if there is one.
    """

    model: str
    facts: Record
    summary: str
    tables: Mapping[str, Table] = field(default_factory=dict)

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(self.summary)


def merge(session: Session, raw: Mapping[str, object], tell: Tell) -> MadeModel:
    """Merge an adapter into its base, on the cluster.

    Raises:
        ByzerError: bad input, or a result that is not what base and adapter compute; nothing was written then.
    """
    from byzerllm_adapters.model_folder import check_model_folder
    from byzerllm_adapters.registry import check_name
    from byzerllm_trainers.actions.merge import merge as work
    from byzerllm_trainers.actions.new_folder import check_free

    keys = read(MergeParameters, raw)
    check_name(keys.pretrained_model_type)
    adapter = model_folder(keys.adapter)
    base = check_model_folder(keys.base, "modelNameOrPath") if keys.base else None
    beside = adapter.parent / "merged" if job_around(adapter) else adapter.with_name(f"{adapter.name}-merged")
    target = _absolute(keys.target) if keys.target else beside
    check_free(target)
    call = partial(
        work,
        adapter,
        target,
        base=base,
        family=keys.pretrained_model_type,
        dtype=keys.dtype,
        trust_remote_code=keys.trust_remote_code,
    )
    facts = _run(session, f"merge {keys.adapter}", call, tell)
    lost = facts["difference"] > facts["effect"] / 2
    remark = f'; {keys.dtype} rounds much of that away: dtype="float32" keeps it' if lost else ""
    summary = (
        f"merged model: {shown(target)} ({keys.dtype}); its logits equal base + adapter to {facts['difference']:.2g} "
        f"(allowed: {facts['tolerance']:g}); the adapter changes them by {facts['effect']:.2g}{remark}"
    )
    return _made(session, keys.output_table, facts, summary)


def convert(session: Session, raw: Mapping[str, object], tell: Tell) -> MadeModel:
    """Make a model folder of a checkpoint, on the cluster.

    Raises:
        ByzerError: bad input, or a checkpoint that does not hold the whole model; nothing was written then.
    """
    from byzerllm_adapters.model_folder import check_model_folder
    from byzerllm_trainers.actions.convert import convert as work
    from byzerllm_trainers.actions.new_folder import check_free
    from byzerllm_trainers.checkpoint import find_checkpoint

    keys = read(ConvertParameters, raw)
    base = check_model_folder(keys.base, "modelNameOrPath") if keys.base else None
    place = Path(keys.checkpoint).expanduser()
    job = None if place.is_dir() else find_job(keys.checkpoint)
    place = job.folder.root if job else place
    if keys.tag is not None:
        place = _tagged(place / "checkpoints", keys.tag)
    checkpoint = find_checkpoint(str(place), "checkpointDir")
    target = checkpoint.parent.parent / f"converted-{checkpoint.name}"
    target = _absolute(keys.target) if keys.target else target
    check_free(target)
    call = partial(work, checkpoint, target, base=base, dtype=keys.dtype)
    facts = _run(session, f"convert {checkpoint.name}", call, tell)
    kind = "adapter" if (target / "adapter_config.json").exists() else "model"
    summary = (
        f"converted {kind}: {shown(target)} (step {facts['step']}, ZeRO {facts['stage']}, "
        f"{facts['parameters']:,} trained parameters in {facts['dtype']}); it loads with nothing missing"
    )
    return _made(session, keys.output_table, facts, summary)


def _tagged(checkpoints: Path, tag: str) -> Path:
    """Return the checkpoint that ``tag`` names.

    Raises:
        ByzerError: there is none; which there are.
    """
    if not (checkpoints / tag).is_dir():
        there = sorted(path.name for path in checkpoints.glob("step-*"))
        do = f"there are: {', '.join(there)}" if there else "it has no checkpoints"
        raise ByzerError(f"tag={tag!r}: there is no such checkpoint", where=f"in {shown(checkpoints)}", do=do)
    return checkpoints / tag


def _run(session: Session, name: str, work: Work, tell: Tell) -> Record:
    from .cluster.tasks import reservation, run_task

    session.connect()
    return run_task(name, work, reservation(session.settings), tell)


def _made(session: Session, name: str | None, facts: Record, summary: str) -> MadeModel:
    tables = {} if name is None else {name: table_of([facts], name)}
    session.tables.update(tables)
    return MadeModel(facts["model"], facts, summary, tables)


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()
