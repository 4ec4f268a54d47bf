"""What DuckDB says of a query, in one line, at its place, with the nearest name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping

from sqlglot import exp

from .llm_functions import LLM_ERROR, LLM_ERROR_HELP
from .parsing import function_name, place
from .spark import SPARK
from .spark_functions import GENERATORS, NAMES
from .sql_error import SqlError
from .table import HIDDEN_PREFIX, Table

Sources = Mapping[str, Table]
_FUNCTIONS = [name.lower() for name in SPARK.parser_class.FUNCTIONS]
_CAST = 'cast one of them, e.g. cast(x as double); load csv with inferSchema="true" makes numbers of digits'


_COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Between, exp.In)
_OPERATORS: Mapping[str, type[exp.Expression]] = {
    "+": exp.Add,
    "-": exp.Sub,
    "*": exp.Mul,
    "/": exp.Div,
    "%": exp.Mod,
    "||": exp.DPipe,
}


def explained(error: Exception, query: exp.Query, sources: Sources) -> SqlError:
    """Return DuckDB's error in the words of who wrote the query.

    Args:
        error: As DuckDB raised it.
        query: As it was written: its nodes know their places.
        sources: The tables that it reads.
    """
    kind, _, message = str(error).partition(": ")
    message = re.split(r"\n+LINE \d+:", message)[0].strip()
    for pattern, explain in _KNOWN:
        if match := re.search(pattern, message):
            return explain(match, query, sources)
    first, *rest = [line.strip() for line in message.splitlines() if line.strip()]
    return SqlError(
        first[:200],
        where=rest[0][:160] if rest and kind not in ("Binder Error", "Invalid Input Error") else "",
    )


def _no_column(match: re.Match[str], query: exp.Query, sources: Sources) -> SqlError:
    name = match["name"]
    if name.startswith(HIDDEN_PREFIX):
        what = f"{LLM_ERROR}, and {name.removeprefix(HIDDEN_PREFIX)!r} is none"
        return SqlError(what, do=LLM_ERROR_HELP, **place(_identifier(query, name)))
    columns = list(dict.fromkeys(column for table in sources.values() for column in table.column_names))
    columns += [alias.alias for alias in query.find_all(exp.Alias) if alias.alias not in columns]
    columns = [column for column in columns if not column.startswith("__")]  # stages of model calls
    return SqlError(
        f"no column {name!r}",
        do=_near(name, columns) or (f"columns: {_listed(columns)}" if columns else "name the tables after from"),
        **place(_identifier(query, name)),
    )


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:12])}{', …' * (len(names) > 12)}"


def _no_table(match: re.Match[str], query: exp.Query, sources: Sources) -> SqlError:
    name = match["name"]
    names = [table.alias_or_name for table in query.find_all(exp.Table, exp.Subquery) if table.alias_or_name]
    return SqlError(
        f"{name!r} is no table of this query",
        where=f"its tables: {', '.join(dict.fromkeys(names))}" if names else "",
        do=_near(name, names) or "write the name that from gives it",
        **place(_identifier(query, name)),
    )


def _no_function(match: re.Match[str], query: exp.Query, _sources: Sources) -> SqlError:
    name = match["name"].lower()
    return SqlError(
        f"no function {name!r}",
        do=_near(name, NAMES) or _near(name, _FUNCTIONS, 0.8) or "a deployed model is a function too: deploy it first",
        **place(_function(query, name)),
    )


def _no_overload(match: re.Match[str], query: exp.Query, _sources: Sources) -> SqlError:
    name, kinds = match["name"], match["kinds"].replace("_LITERAL", "")
    node = _operator(query, name) or _function(query, name)
    return SqlError(f"{name} does not take ({kinds})", do="cast the values, e.g. cast(x as double)", **place(node))


def _not_comparable(match: re.Match[str], query: exp.Query, _sources: Sources) -> SqlError:
    one, other = (match[name].replace("_LITERAL", "") for name in ("one", "other"))
    return SqlError(f"{one} and {other} cannot be compared", do=_CAST, **place(_only(query, *_COMPARISONS)))


def _ambiguous(match: re.Match[str], query: exp.Query, _sources: Sources) -> SqlError:
    return SqlError(
        f"column {match['name']!r} is in more than one table",
        do=f"write {match['use'].replace(chr(39), '')}",
        **place(_identifier(query, match["name"])),
    )


def _not_grouped(match: re.Match[str], query: exp.Query, _sources: Sources) -> SqlError:
    name = match["name"]
    return SqlError(
        f"column {name!r} is neither grouped nor aggregated",
        do=f"group by {name}, or take first({name})",
        **place(_identifier(query, name)),
    )


def _not_a_list(match: re.Match[str], query: exp.Query, _sources: Sources) -> SqlError:
    makers = (each for each in query.find_all(exp.Anonymous) if each.name.lower() in GENERATORS)
    is_map = match["kind"].startswith("MAP")
    return SqlError(
        f"explode takes an array, not {match['kind']}",
        do="name the columns of a map: explode(x) as (k, v)" if is_map else "split or array makes one",
        **place(next(makers, None)),
    )


_KNOWN: tuple[tuple[str, Callable[[re.Match[str], exp.Query, Sources], SqlError]], ...] = (
    (r'Referenced column "(?P<name>[^"]*)" not found', _no_column),
    (r'does not have a column named "(?P<name>[^"]*)"', _no_column),
    (r'Referenced table "(?P<name>[^"]*)" not found', _no_table),
    (r"Function with name \"?(?P<name>[^\s\"]+)\"? does not exist", _no_function),
    (r"argument types '(?P<name>[^(]+)\((?P<kinds>.*)\)'", _no_overload),
    (r'function call "(?P<name>[^("]+)\((?P<kinds>.*)\)"', _no_overload),
    (r"Cannot compare values of type (?P<one>.+?) and type (?P<other>.+?) - ", _not_comparable),
    (r"UNNEST\(\) can only be applied to lists.* not (?P<kind>.*)", _not_a_list),
    (r'Ambiguous reference to column name "(?P<name>[^"]*)" \(use: (?P<use>[^)]*)\)', _ambiguous),
    (r'column "(?P<name>[^"]*)" must appear in the GROUP BY', _not_grouped),
)


def _near(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    by_lower = {each.lower(): each for each in names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return f'did you mean "{by_lower[near[0]]}"?' if near else ""


def _identifier(query: exp.Query, name: str) -> exp.Expression | None:
    found = (each for each in query.find_all(exp.Identifier) if each.name.lower() == name.lower())
    return min(found, key=lambda each: each.meta.get("start", float("inf")), default=None)


def _operator(query: exp.Query, name: str) -> exp.Expression | None:
    return _only(query, _OPERATORS[name]) if name in _OPERATORS else None


def _only(query: exp.Query, *kinds: type[exp.Expression]) -> exp.Expression | None:
    """Return the node of these kinds, if there is one alone: which of several is meant is not known."""
    found = list(query.find_all(*kinds))
    return found[0] if len(found) == 1 else None


def _function(query: exp.Query, name: str) -> exp.Expression | None:
    return next((each for each in query.find_all(exp.Func) if function_name(each) == name.lower()), None)
