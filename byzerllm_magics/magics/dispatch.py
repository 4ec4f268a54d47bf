"""From a magic's line and cell to a call: parse, run, and turn whatever goes wrong into a few lines."""

from __future__ import annotations

import argparse
import difflib
import importlib
import keyword
import shlex
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.secret_values import hidden

from . import SUBCOMMANDS

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ..session import Session

T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """What a subcommand works with.

    Attributes:
        session: This kernel's session.
        shell: IPython.
        options: The line's options, parsed by the subcommand's parser.
        cell: The cell, an empty line in place of the magic's own: so errors count lines as editors do. None for a
            line magic.
    """

    session: Session
    shell: InteractiveShell
    options: argparse.Namespace
    cell: str | None

    def bind(self, name: str | None, value: Any) -> None:
        """Bind ``value`` to the notebook's variable ``name``, if one was asked for."""
        if name:
            self.shell.user_ns[name] = value


class Parser(argparse.ArgumentParser):
    """An argument parser for a magic's line: it raises, and never exits."""

    def __init__(self, subcommand: str, *, cell: bool = False) -> None:
        self.cell = cell
        marks = "%%" if cell else "%"
        super().__init__(prog=f"{marks}byzerllm {subcommand}", description=SUBCOMMANDS[subcommand], add_help=False)
        self.add_argument("-h", "--help", action="store_true", help="show this help")

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the line."""
        raise ByzerError(f"{self.prog}: {message}", do=f"{self.format_usage().strip()}".replace("\n", " "))

    def parse_line(self, arguments: list[str]) -> argparse.Namespace | None:
        """Return the options; None when help was asked for, which needs no other argument."""
        if "-h" in arguments or "--help" in arguments:
            return None
        return self.parse_args(arguments)


def byzerllm(session: Session, shell: InteractiveShell, line: str, cell: str | None) -> Any:
    """Run ``%byzerllm LINE`` or ``%%byzerllm LINE`` with its cell."""
    cell = None if cell is None else "\n" + cell.replace("\ufeff", "")  # a mark of files that is pasted unseen
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise ByzerError(f"%byzerllm {line}: {str(error).lower()}", do="close the quote") from None
    if not words or (cell is None and words[0] in ("-h", "--help")):
        from . import overview, script

        if cell is None:
            return overview.call(session)
        return script.call(Context(session, shell, argparse.Namespace(settings=[]), cell))
    name, *arguments = words
    if cell is not None and name.startswith("-"):
        raise ByzerError(
            f"%%byzerllm {name}: a script takes no options, its result is its last value",
            do="write  NAME = _  in the next cell; its tables are variables of their names already",
        )
    if name not in SUBCOMMANDS:
        near = difflib.get_close_matches(name, SUBCOMMANDS, n=1)
        raise ByzerError(
            f"%byzerllm has no subcommand {name!r}",
            do=(f"did you mean {near[0]!r}? " if near else "") + f"there are: {', '.join(SUBCOMMANDS)}",
        )
    module = importlib.import_module(f"{__package__}.{name}")
    parser: Parser = module.parser()
    options = parser.parse_line(arguments)
    if options is None:
        print(parser.format_help())
        return None
    if cell is not None and cell.strip() and not parser.cell:
        raise ByzerError(f"%byzerllm {name} takes no cell", do=f'write "%byzerllm {name}" in a cell of its own')
    variable(getattr(options, "output", None))
    return module.call(Context(session, shell, options, cell))


def variable(name: str | None) -> str | None:
    """Return the name that ``-o`` gives.

    Raises:
        ByzerError: no Python variable can have it.
    """
    if name is not None and (not name.isidentifier() or keyword.iskeyword(name)):
        raise ByzerError(f"-o {name}: no Python variable can be named so", do="use letters, digits and _")
    return name


def guarded(session: Session, action: Callable[[], T]) -> T:
    """Run ``action``; a user's error passes without secrets, an interrupt is one line, anything else is our defect.

    Raises:
        ByzerError: always of this kind, so that a cell shows at most five lines and its status is "error".
    """
    try:
        return action()
    except ByzerError as error:
        _hide(error, session.secrets())
        raise
    except KeyboardInterrupt:
        raise ByzerError("interrupted", do='what runs on the cluster goes on: "%byzerllm status" shows it') from None
    except Exception as error:  # noqa: BLE001 - whatever it is, a cell shows no traceback
        from ..state_folder import state_folder

        log = state_folder() / "last-error.log"
        log.write_text(traceback.format_exc(), encoding="utf-8")
        frame = traceback.extract_tb(error.__traceback__)[-1]
        first = (str(error).strip() or "no message").splitlines()[0]
        raise ByzerError(
            f"unexpected {type(error).__name__}: {first[:300]}",
            where=f"{frame.filename}, line {frame.lineno}",
            do=f"this should have been a clear message: please report it with {log}",
        ) from None


def _hide(error: ByzerError, secrets: Iterable[str]) -> None:
    """Mask the values of secret variables in what an error shows."""
    error.what, error.where, error.do = (hidden(text, secrets) for text in (error.what, error.where, error.do))
    error.args = (error.what,)
