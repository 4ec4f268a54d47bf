"""A statement's table as a variable of the notebook."""

from __future__ import annotations

import builtins
import keyword
from typing import TYPE_CHECKING, Any

from .dispatch import Context

if TYPE_CHECKING:
    from ..language import Statement


def take_over(context: Context) -> None:
    """Let a DataFrame that the user has put in place of a table of ours be the table of that name.

    So also where a variable of the user's stood beside a table of ours: since it was assigned anew, it is the newer.
    """
    from ..tables.frames import is_frame

    session = context.session
    for name, ours in list(session.bound.items()):
        now = context.shell.user_ns.get(name)
        if now is not ours:
            del session.bound[name]
            if is_frame(now):
                session.tables.pop(name, None)
    for name, beside in list(session.beside.items()):
        if context.shell.user_ns.get(name) is not beside:
            del session.beside[name]
            session.tables.pop(name, None)


def bind_tables(context: Context, result: Any) -> None:
    """Bind the tables that an action left to the variables of their names; of anything else there are none."""
    for name, table in getattr(result, "tables", {}).items():
        bind_table(context, name, table)


def bind_table(context: Context, name: str, table: Any) -> None:
    """Bind a table to the variable of its name; where that is the user's own, or Python's, say where the table is."""
    namespace, bound = context.shell.user_ns, context.session.bound
    if name not in namespace and (keyword.iskeyword(name) or hasattr(builtins, name)):
        print(f"{name} is a name of Python's own and stays so; the table is session table {name!r} in SQL.")
        return
    free = name not in namespace or (name in bound and namespace[name] is bound[name])
    if name.isidentifier() and free:
        namespace[name] = bound[name] = table
    elif name.isidentifier():
        context.session.beside[name] = namespace[name]
        print(f"The variable {name} is yours and stays as it is; the table is session table {name!r} in SQL.")


def output_table(statement: Statement) -> str | None:
    """Return the name that a job's table gets; None: it gets none."""
    parameters = getattr(statement, "parameters", ())
    return next((p.value for p in parameters if p.key == "outputTable" and p.value), None)
