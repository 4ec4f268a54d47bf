"""Text of a cell -> statements, with positions. lark is imported when the first cell is read."""

from .errors import LanguageError, problem_error
from .parse import parse_run, parse_script, parse_setup
from .statements import Assignment, ModelCommand, RunLLM, Setup, SetVariable, Span, Statement
from .substitute import substitute

__all__ = [
    "Assignment",
    "LanguageError",
    "ModelCommand",
    "RunLLM",
    "SetVariable",
    "Setup",
    "Span",
    "Statement",
    "parse_run",
    "parse_script",
    "parse_setup",
    "problem_error",
    "substitute",
]
