"""From the assignments of a cell to checked parameters: which declaration, and errors with a caret."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Literal, TypeAlias

from byzerllm_adapters.infer_parameters import InferParameters
from byzerllm_adapters.parameters import ParameterError, Parameters, Problem
from byzerllm_trainers.actions.action_parameters import ConvertParameters, EvaluateParameters, MergeParameters
from byzerllm_trainers.train_parameters import TrainParameters

from ..language import Assignment, LanguageError, Load, Repartition, RunLLM, Setup, Span, problem_error

Parametrised: TypeAlias = RunLLM | Setup | Load | Repartition
"""A statement that holds assignments."""

Action: TypeAlias = Literal["infer", "finetune", "merge", "convert", "evaluate"]

ACTIONS: Mapping[Action, type[Parameters]] = {
    "infer": InferParameters,
    "finetune": TrainParameters,
    "merge": MergeParameters,
    "convert": ConvertParameters,
    "evaluate": EvaluateParameters,
}
"""What keys each action takes."""


def route(raw: Mapping[str, object]) -> Action:
    """Return what these keys ask for: `action` says it, and without one they train, as in Byzer.

    Raises:
        ParameterError: It is not an action, or `action` itself is mistyped: all other keys would be judged by the
            wrong declaration.

    """
    mistyped = [] if "action" in raw else difflib.get_close_matches("action", raw, n=1, cutoff=0.8)
    if mistyped:
        raise ParameterError((Problem(mistyped[0], f"{mistyped[0]} is not a known parameter", "did you mean action?"),))
    asked = str(raw.get("action", "finetune"))
    for action in ACTIONS:
        if asked == action:
            return action
    near = difflib.get_close_matches(asked, ACTIONS, n=1)
    do = f"did you mean {near[0]}?" if near else f"write one of {', '.join(ACTIONS)}"
    raise ParameterError((Problem("action", f"{asked} is not an action", do),))


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
