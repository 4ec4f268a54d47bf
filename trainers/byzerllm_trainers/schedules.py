"""Learning-rate schedules, under transformers' names and with its formulas: what follows the warmup."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Place:
    """Where a run is.

    Attributes:
        done: Steps since the end of the warmup.
        length: Steps from the end of the warmup to the end of the run; at least 1.
        warmup: Steps of the warmup.
        peak: The learning rate at the end of the warmup.
    """

    done: int
    length: int
    warmup: int
    peak: float

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        return self.done / self.length


@dataclass(frozen=True)
class Schedule:
    """A schedule: its formula and the options that it takes, with their defaults."""

    rate: Callable[..., float]

    @property
    def options(self) -> dict[str, float]:
        """The keyword arguments of the formula."""
        found = inspect.signature(self.rate).parameters.values()
        return {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}


def _linear(place: Place) -> float:
    return place.peak * (1 - place.progress)


def _cosine(place: Place, *, num_cycles: float = 0.5) -> float:
    return place.peak * 0.5 * (1 + math.cos(2 * math.pi * num_cycles * place.progress))


def _cosine_with_restarts(place: Place, *, num_cycles: float = 1) -> float:
    """Fall along a cosine ``num_cycles`` times, from the peak each time."""
    if place.progress >= 1:
        return 0.0
    return place.peak * 0.5 * (1 + math.cos(math.pi * ((num_cycles * place.progress) % 1)))


def _polynomial(place: Place, *, power: float = 1.0, lr_end: float = 1e-7) -> float:
    end = min(lr_end, place.peak)
    return end + float((place.peak - end) * (1 - place.progress) ** power)


def _constant(place: Place) -> float:
    return place.peak


def _inverse_sqrt(place: Place, *, timescale: float | None = None) -> float:
    """Fall with the square root of the steps, which are measured in warmups (without one: in 10,000 steps)."""
    scale = timescale or place.warmup or 10_000
    return place.peak / math.sqrt((place.done + scale) / scale)


SCHEDULES: Mapping[str, Schedule] = {
    "cosine": Schedule(_cosine),
    "linear": Schedule(_linear),
    "constant": Schedule(_constant),
    "constant_with_warmup": Schedule(_constant),
    "cosine_with_restarts": Schedule(_cosine_with_restarts),
    "polynomial": Schedule(_polynomial),
    "inverse_sqrt": Schedule(_inverse_sqrt),
}


def unknown_options(name: str, options: Mapping[str, Any]) -> list[str]:
    """Return the options that a schedule does not have, or that are no numbers."""
    known = SCHEDULES[name].options
    return [key for key, value in options.items() if key not in known or not isinstance(value, int | float)]


def learning_rate(name: str, options: Mapping[str, float], step: int, *, warmup: int, total: int, peak: float) -> float:
    """Return the learning rate of the step with this index, counted from 0, of ``total``.

    Args:
        name: A schedule.
        options: Its options.
        step: The step.
        warmup: Steps in which the rate rises to its peak, in equal parts; the first step has the first part.
        total: Steps of the whole run.
        peak: The highest rate.
    """
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return SCHEDULES[name].rate(Place(step - warmup, max(1, total - warmup), warmup, peak), **options)
