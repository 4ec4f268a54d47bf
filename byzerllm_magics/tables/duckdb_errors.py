"""What DuckDB says of a query, in one line, at its place, with the nearest name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping

from sqlglot import exp

from .llm_functions import FUNCTIONS as LLM_FUNCTIONS
from .llm_functions import LLM_ERROR, LLM_ERROR_HELP
from .parsing import function_name, place
from .spark import SPARK
from .spark_functions import GENERATORS, NAMES, REFUSED
from .sql_error import SqlError
from .table import HIDDEN_PREFIX, Table

Sources = Mapping[str, Table]
_FUNCTIONS = [name.lower() for name in SPARK.parser_class.FUNCTIONS]
_OURS = [*(name for name in sorted(NAMES) if name not in REFUSED), *LLM_FUNCTIONS]
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
    written = _identifier(query, name)
    columns = _columns(query, written, sources)
    return SqlError(
        f"no column {name!r}",
        do=_near(name, columns) or (f"columns: {_listed(columns)}" if columns else "name the tables after from"),
        **place(written),
    )


def _columns(query: exp.Query, written: exp.Expression | None, sources: Sources) -> list[str]:
    """Return what a name could have meant: columns of the tables and of inner queries.

    What the query itself makes is known to `order by` and the like alone.
    """
    clause = written.find_ancestor(exp.Order, exp.Group, exp.Having, exp.Select) if written else None
    own = [] if clause and not isinstance(clause, exp.Select) else query.selects
    made = [alias.alias for alias in query.find_all(exp.Alias) if not any(alias is each for each in own)]
    read = [column for table in sources.values() for column in table.column_names]
    return [column for column in dict.fromkeys([*read, *made]) if not column.startswith("__")]  # stages of model calls


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
    near = _near(name, _OURS, 0.75) or _near(name, _FUNCTIONS, 0.8)
    if name in _FUNCTIONS:  # one of Spark's
        return SqlError(f"{name} does not exist here", do=near, **place(_function(query, name)))
    do = near or "a deployed model is a function too: deploy it first"
    return SqlError(f"no function {name!r}", do=do, **place(_function(query, name)))


def _not_an_answer(match: re.Match[str], query: exp.Query, _sources: Sources) -> SqlError:
    written = (node for node in query.walk() if node.meta.get("function") == match["name"])
    return SqlError(match[0], **place(next(written, None)))


def _no_overload(match: re.Match[str], query: exp.Query, _sources: Sources) -> SqlError:
    name, kinds = match["name"], match["kinds"].replace("_LITERAL", "")
    node = _operator(query, name) or _function(query, name)
    return SqlError(f"{name} does not take ({kinds})", do="cast the values, e.g. cast(x as double)", **place(node))


def _not_comparable(match: re.Match[str], query: exp.Query, _sources: Sources) -> SqlError:
    one, other = (match[name].replace("_LITERAL", "") for name in ("one", "other"))
    return SqlError(f"{one} and {other} cannot be compared", do=_CAST, **place(_only(query, *_COMPARISONS)))


def _not_joined(match: re.Match[str], query: exp.Query, _sources: Sources) -> SqlError:
    """Say it of the columns of one name that `natural join` and `using` compare."""
    joins = (join for join in query.find_all(exp.Join) if join.method or join.args.get("using"))
    joined = next((join.this.args.get("alias") or join.this for join in joins), None)
    what = f"the columns {match['name']!r} have types that cannot be compared" if joined else match[0]
    return SqlError(what, do=_CAST, **place(joined))


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
    (r"(?:Type|Could not convert) .* when casting from source column (?P<name>\w+)", _not_joined),
    (r"UNNEST\(\) can only be applied to lists.* not (?P<kind>.*)", _not_a_list),
    (r'Ambiguous reference to column name "(?P<name>[^"]*)" \(use: (?P<use>[^)]*)\)', _ambiguous),
    (r'column "(?P<name>[^"]*)" must appear in the GROUP BY', _not_grouped),
    (r"(?P<name>llm_\w+) (?:takes an answer|continues) .*", _not_an_answer),
)


def _near(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    by_lower = {each.lower(): each for each in names}
    by_lower.pop(name.lower(), None)
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
