"""From the assignments of a cell to checked parameters: which declaration, and errors with a caret."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Literal, TypeAlias

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.infer_parameters import InferParameters
from byzerllm_adapters.parameters import ParameterError, Parameters, Problem, read
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
            wrong declaration. Where it is clear which action is meant, what else is wrong for that one is named too.

    """
    mistyped = [] if "action" in raw else difflib.get_close_matches("action", raw, n=1, cutoff=0.8)
    asked = str(raw.get(mistyped[0] if mistyped else "action", "finetune"))
    for action in ACTIONS:
        if asked == action and not mistyped:
            return action
    near = difflib.get_close_matches(asked, ACTIONS, n=1)
    meant = next((action for action in ACTIONS if near == [action]), None)
    problems = []
    if mistyped:
        problems.append(Problem(mistyped[0], f"{mistyped[0]} is not a known parameter", "did you mean action?"))
    if asked not in ACTIONS:
        do = f"did you mean {meant}?" if meant else f"write one of {', '.join(ACTIONS)}"
        problems.append(Problem(mistyped[0] if mistyped else "action", f"{asked} is not an action", do))
    others = {key: value for key, value in raw.items() if key != "action" and key not in mistyped}
    raise ParameterError((*problems, *(_of_given_keys(meant, others) if meant else ())))


def _of_given_keys(action: Action, raw: Mapping[str, object]) -> tuple[Problem, ...]:
    """Return what is wrong with the keys that a cell gives to an action; Python's own values are left aside."""
    try:
        read(ACTIONS[action], {key: value for key, value in raw.items() if isinstance(value, str)})
    except ParameterError as error:
        return tuple(problem for problem in error.problems if problem.key in raw)
    return ()


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


_IN_A_KEY = re.compile(r'in "?(?P<key>[\w.]+)"?(?:, (?P<rest>.*))?', re.DOTALL)
"""How an error says that it is about a key's value: `in localModelDir`, and what there is to say besides."""


def at_its_key(error: ByzerError, text: str, statement: object) -> ByzerError:
    """Return an error that says which key it is about with that key's place in the cell; any other as it is.

    Args:
        error: Whatever a statement failed with.
        text: The cell.
        statement: The one that failed.

    """
    about = _IN_A_KEY.fullmatch(error.where)
    if about is None or isinstance(error, LanguageError) or not isinstance(statement, Parametrised):
        return error
    for assignment in assignments_of(statement):
        if _last(assignment.key) == _last(about["key"]):
            what = f"{error.what} ({about['rest']})" if about["rest"] else error.what
            return problem_error(text, [(assignment.value_span, what, error.do)])
    return error


def _last(key: str) -> str:
    """Return a key without its group and type."""
    return key.rpartition(".")[2]


def assignments_of(statement: Parametrised) -> tuple[Assignment, ...]:
    """Return a statement's assignments."""
    match statement:
        case Setup():
            return statement.settings
        case RunLLM():
            return statement.parameters
        case Load() | Repartition():
            return statement.options
