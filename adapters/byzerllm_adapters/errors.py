"""The one family of errors that users see; it lives in the lowest layer so that every layer can raise it."""

from __future__ import annotations

MAX_LINES = 5
"""An error that takes more lines than this hides its own first line in a notebook."""


class ByzerError(ValueError):
    """An error a user can act on: what happened, where, and what to do.

    Args:
        what: One sentence that says what is wrong.
        where: The place, e.g. a source line with a caret below it (may hold one newline), a row, a rank.
        do: What the user can do about it.

    IPython shows the lines of `render` in place of a traceback, and the cell's status still becomes "error",
    so that "Run All" stops.
    """

    def __init__(self, what: str, *, where: str = "", do: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.do = what, where, do

    def __reduce__(self) -> tuple[object, ...]:
        """Keep `where` and `do` when the error travels from a worker: exceptions pickle their `args` only."""
        return _rebuild, (type(self), self.what, self.where, self.do)

    def render(self) -> list[str]:
        """Return the error as at most five lines of plain text."""
        lines = f"{type(self).__name__}: {self.what}".splitlines()
        place = self.where.splitlines()
        advice = [f"→ {line}" for line in self.do.splitlines()[:1]]
        room = MAX_LINES - len(advice)
        return [*(lines[: max(1, room - len(place))] + place)[:room], *advice]

    def _render_traceback_(self) -> list[str]:
        """IPython's hook: what it returns is printed instead of a traceback."""
        return self.render()

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.where, self.do and f"→ {self.do}") if part)


def with_place(error: Exception) -> ByzerError:
    """Return whatever a user's code raised as an error that says in which file and line."""
    if isinstance(error, ByzerError):
        return error
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    return ByzerError(f"{type(error).__name__}: {error}", where=where)


def _rebuild(kind: type[ByzerError], what: str, where: str, do: str) -> ByzerError:
    return kind(what, where=where, do=do)
