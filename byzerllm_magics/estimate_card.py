"""An estimate as a notebook shows it: whether it fits, memory by part, disk, tokens, steps, time."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from byzerllm_trainers.estimate import Estimate

_NAME = '<td style="text-align:left;opacity:.7;padding:1px 12px 1px 0;white-space:nowrap;vertical-align:top">{}</td>'
_VALUE = '<td style="text-align:left;padding:1px 0">{}</td>'


class EstimateCard:
    """A small table with an HTML and a plain form; colours are the page's own, light or dark.

    Args:
        estimate: The numbers, which stay here for Python code.
        machines: In words, whose memory was looked at.
    """

    def __init__(self, estimate: Estimate, machines: str) -> None:
        self.estimate = estimate
        self.verdict = _verdict(estimate)
        self.rows = [
            ("parameters", _parameters(estimate)),
            ("memory", _memory(estimate)),
            *((f"  {name}", size(amount)) for name, amount in parts(estimate)),
            ("device", f"{estimate.room.device}, {size(estimate.room.memory)} a worker · {machines}"),
            ("data", _data(estimate)),
            ("steps", f"{estimate.data.total_steps:,} · {estimate.data.epoch_steps:,} an epoch"),
            ("time", _time(estimate)),
            ("disk", _disk(estimate)),
        ]
        self.changes = [f"{change.keys}: {size(change.total)}" for change in estimate.changes]
        if estimate.need.total > estimate.room.memory and all(
            change.total > estimate.room.memory for change in estimate.changes[-1:]
        ):
            self.changes.append(_smaller_still(estimate))

    def __repr__(self) -> str:
        width = max(len(name) for name, _ in self.rows)
        lines = [self.verdict, *(f"  → {change}" for change in self.changes)]
        return "\n".join([*lines, *(f"{name.ljust(width)}  {text}" for name, text in self.rows)])

    def _repr_html_(self) -> str:
        changes = "".join(f'<div style="margin-left:1em">→ {html.escape(change)}</div>' for change in self.changes)
        body = "".join(
            f"<tr>{_NAME.format(html.escape(name).replace('  ', '&emsp;'))}{_VALUE.format(html.escape(text))}</tr>"
            for name, text in self.rows
        )
        table = f'<table style="border-collapse:collapse;margin:2px 0;max-width:100%">{body}</table>'
        return f"<div><b>{html.escape(self.verdict)}</b>{changes}{table}</div>"


def parts(estimate: Estimate) -> list[tuple[str, int]]:
    """Return a worker's memory at its peak by part, in bytes, the largest first; what is empty is left out."""
    held = {name.replace("_", " "): amount for name, amount in estimate.need.peak.as_dict().items()}
    held["process" if estimate.room.device == "CPU" else "CUDA context"] = estimate.need.overhead
    return sorted(((name, amount) for name, amount in held.items() if amount), key=lambda part: -part[1])


def size(amount: int) -> str:
    """Return bytes as people read them: ``1.2 GiB``, ``35 MiB``, ``204 KiB``."""
    if amount >= 2**30:
        return f"{amount / 2**30:.1f} GiB"
    return f"{amount / 2**20:.0f} MiB" if amount >= 2**20 else f"{amount / 2**10:.0f} KiB"


def _verdict(estimate: Estimate) -> str:
    need, room = estimate.need, estimate.room
    if need.total > room.memory:
        return f"Will not fit: a worker needs {size(need.total)}, and it has {size(room.memory)}. What takes less:"
    if need.host > room.host:
        return (
            f"Will not fit: what is offloaded and the copy of a checkpoint take {size(need.host)} of main memory "
            f"a worker, and it has {size(room.host)}."
        )
    return f"Fits: a worker needs {size(need.total)} of {size(room.memory)}."


def _parameters(estimate: Estimate) -> str:
    model = estimate.model
    total = model.trained + model.frozen
    four_bits = f" · {model.packed:,} in 4 bits (their memory is computed, not traced)" if model.packed else ""
    return f"{total:,} · {model.trained:,} trained ({model.trained / total:.1%}){four_bits}"


def _smaller_still(estimate: Estimate) -> str:
    """Say what helps where all changes together do not."""
    other = {
        "full": ', or LoRA (sft.finetuning_type="lora") in place of all weights',
        "sfft": ", or LoRA (sft/NAME) in place of all weights",
        "qlora": "",
    }
    four_bits = f', or a base in four bits ({estimate.method}.finetuning_type="qlora")'
    return "more or larger devices, a smaller model" + other.get(estimate.way, four_bits)


def _memory(estimate: Estimate) -> str:
    need = estimate.need
    [phase] = [name for name, held in need.phases.items() if held is need.peak]
    shape = estimate.data.shape
    batch = f"{shape.rows} × {shape.width} tokens, {shape.supervised} supervised"
    host = f" · of the node's main memory: {size(need.host)}" if need.host else ""
    workers = f"each of {estimate.workers} workers" if estimate.workers > 1 else "one worker"
    return f"{size(need.total)} at its peak ({phase}) on {workers}, batches of {batch}{host}"


def _data(estimate: Estimate) -> str:
    data = estimate.data
    tokens = f"{data.tokens:,} tokens an epoch, {data.targets:,} supervised"
    return (
        f"{tokens} (tokenised)" if data.share == 1.0 else f"about {tokens} (extrapolated from {data.share:.1%} of it)"
    )


def _time(estimate: Estimate) -> str:
    if estimate.seconds is None:
        return f"unknown: {estimate.seconds_from}"
    return f"about {_duration(estimate.seconds)}, from {estimate.seconds_from}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _disk(estimate: Estimate) -> str:
    kept = f"{estimate.checkpoints} checkpoint{'s' * (estimate.checkpoints != 1)} of {size(estimate.checkpoint)}"
    return (
        f"{size(estimate.checkpoints * estimate.checkpoint + estimate.result)}: {kept}, result {size(estimate.result)}"
    )
