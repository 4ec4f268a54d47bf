"""From the assignments of a cell to checked parameters: which declaration, and errors with a caret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from byzerllm_adapters.parameters import ParameterError, Problem

from ..language import Assignment, LanguageError, Load, Repartition, RunLLM, Setup, Span, problem_error

Parametrised: TypeAlias = RunLLM | Setup | Load | Repartition
"""A statement that holds assignments."""

ACTIONS: Mapping[str, Literal["infer", "train"]] = {"infer": "infer", "finetune": "train"}
_LATER = ("merge", "convert", "evaluate")


def route(raw: Mapping[str, object]) -> Literal["infer", "train"]:
    """Return whether these keys deploy or train: `action` says it, and without one they train, as in Byzer.

    Raises:
        ParameterError: The action is not one of this version.

    """
    action = str(raw.get("action", "finetune"))
    if action in ACTIONS:
        return ACTIONS[action]
    what = f"{action} is not an action" if action not in _LATER else f"the action {action} is not spoken here yet"
    raise ParameterError((Problem("action", what, 'write action="infer" to deploy, or "finetune" to train'),))


def at_the_caret(error: ParameterError, text: str, statement: Parametrised) -> LanguageError:
    """Return the error with the place of each problem in the cell.

    Args:
        error: Of `read` or `configure`, on the statement's keys and values.
        text: The cell.
        statement: A problem whose key it does not hold (a missing one) is shown at its beginning.

    """
    assignments = assignments_of(statement)
    spans = {a.key: Span.of(text, a.key_span.start, a.value_span.end) for a in assignments}
    if isinstance(statement, Setup) and statement.mode is not None and statement.mode_span is not None:
        spans[statement.mode] = statement.mode_span
    return problem_error(text, [(spans.get(p.key, statement.span), p.what, p.do) for p in error.problems])


def assignments_of(statement: Parametrised) -> tuple[Assignment, ...]:
    """Return a statement's assignments."""
    match statement:
        case Setup():
            return statement.settings
        case RunLLM():
            return statement.parameters
        case Load() | Repartition():
            return statement.options
