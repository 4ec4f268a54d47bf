"""What a figure is, and how two sides are measured against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: What it is called in a record.
        value: The number itself, usually a median or a ratio of two.
        unit: Its unit; "ratio" and "share" have none.
        raw: Every single measurement behind it, by side.
        at_most: The goal, when less is better.
        at_least: The goal, when more is better. A figure without either is there to be read beside another.
    """

    name: str
    value: float
    unit: str
    raw: Mapping[str, list[float]]
    at_most: float | None = None
    at_least: float | None = None

    @property
    def goal(self) -> str | None:
        """The goal in words; None without one."""
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return None if self.at_least is None else f">= {self.at_least:g}"

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least


def interleaved(sides: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Measure each side once a round, every second round backwards: A B, B A, A B, …

    A machine that slows down or speeds up steadily then does so to all sides alike.
    """
    results: dict[str, list[T]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            results[name].append(sides[name]())
    return results


def ratio_of_medians(ours: list[float], peer: list[float]) -> float:
    """How many times as much as the peer."""
    return median(ours) / median(peer)
