"""A bare ``%%byzerllm``: a script of statements, with what is going on shown while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

from .dispatch import Context
from .progress import Progress
from .tables import bind_table, bind_tables, output_table, take_over

if TYPE_CHECKING:
    from ..language import Statement


def call(context: Context) -> Any:
    """Run the cell's statements in order; return the last table, or else the last result.

    A script of settings alone connects and shows the card, as ``%%byzerllm setup`` does.

    Raises:
        ByzerError: the cell cannot be read, or the statement that failed; those before it have taken effect.
    """
    from ..checking import check
    from ..cluster.jobs import Job
    from ..language import Setup, read_script
    from . import setup

    text = context.cell or ""
    statements, problems = read_script(text)
    if statements and not problems and all(isinstance(statement, Setup) for statement in statements):
        check(context.session, statements, text)
        return setup.call(context)
    take_over(context)
    shown = _Shown(context, text)
    try:
        last = context.session.script(text, shown)
    finally:
        shown.close()
    if shown.table is not None:
        return shown.table
    return None if isinstance(last, Job) else last  # its view is there already


class _Shown:
    """Shows how a script goes: one line that changes, jobs live, tables under their names."""

    def __init__(self, context: Context, text: str) -> None:
        self._context, self._text = context, text
        self._line = Progress()
        self._title = ""
        self.table: Any = None

    def begins(self, number: int, of: int, statement: Statement) -> None:
        """Show which statement runs."""
        from ..script import title

        self._title = f"{number} of {of} · line {statement.span.line}: {title(statement, self._text)}"
        for note in getattr(statement, "notes", ()):
            print(f"line {note.span.line}: {note.text}")
        self._line.show(self._title) if of > 1 else self._line.soon(self._title)

    def progress(self, text: str) -> None:
        """Show how far it is."""
        self._line.show(f"{self._title} · {text}")

    def ended(self, statement: Statement, result: Any) -> None:
        """Show a job, and wait for it when its statement says so; bind a table to its name."""
        from ..cluster.jobs import Job
        from ..live import JobView
        from ..tables import Table
        from .waiting import wait_for

        if isinstance(result, Table):
            self.table = result
        name = output_table(statement) if isinstance(result, Job) else getattr(statement, "table", None)
        if name is not None:
            bind_table(self._context, name, result)
        bind_tables(self._context, result)
        if isinstance(result, Job):
            JobView(result).show()
            if not result.detached and wait_for(result) is None:
                raise ByzerError(
                    "interrupted: the statements after this one are not run",
                    do=f'"%byzerllm attach {result.name}" shows the job, "%byzerllm stop {result.name}" ends it',
                )

    def close(self) -> None:
        """Take the line away."""
        self._line.close()
