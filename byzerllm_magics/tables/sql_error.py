"""An error in a query, with its place in the text that was written."""

from __future__ import annotations

from byzerllm_adapters.errors import ByzerError


class SqlError(ByzerError):
    """A query that cannot be read or run.

    A caller that has the cell's text can put a caret there; the error itself shows no source.

    Attributes:
        offset: Where in the query's text it is, in characters from 0; None where that is not known.
        length: How many characters of it are meant, at least 1.
    """

    def __init__(self, what: str, *, where: str = "", do: str = "", offset: int | None = None, length: int = 1) -> None:
        super().__init__(what, where=where, do=do)
        self.offset, self.length = offset, max(1, length)
