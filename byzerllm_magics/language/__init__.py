"""Text of a cell -> statements, with positions. lark is imported when the first cell is read."""

from .errors import LanguageError, Problem, problem_error
from .parse import parse_run, parse_script, parse_setup, read_script
from .places import Span
from .statements import (
    Assignment,
    Load,
    ModelCommand,
    Note,
    Repartition,
    RunLLM,
    Select,
    Setup,
    SetVariable,
    Statement,
)
from .substitute import substitute

__all__ = [
    "Assignment",
    "LanguageError",
    "Load",
    "ModelCommand",
    "Note",
    "Problem",
    "Repartition",
    "RunLLM",
    "Select",
    "SetVariable",
    "Setup",
    "Span",
    "Statement",
    "parse_run",
    "parse_script",
    "parse_setup",
    "problem_error",
    "read_script",
    "substitute",
]
