"""Spark's functions that make rows (explode, inline, stack, …), in select and in lateral views.

Each is a few columns that are lists of equal length; DuckDB's `unnest` puts lists of one select side by side. A lateral
view becomes such a select around what it follows: a join with it, as sqlglot writes it, would not keep the rows' order.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from .parsing import placed
from .spark_functions import GENERATORS, check_count
from .spark_operators import Types, is_map
from .sql_error import SqlError
from .sql_templates import filled

Columns = list[tuple[str, exp.Expression]]


def make_rows(query: exp.Query, types: Types) -> None:
    """Replace all that makes rows in a query.

    Raises:
        SqlError: it is called with something else, or names another number of columns.
    """
    aliases = {alias.alias.lower() for alias in query.find_all(exp.Alias)}
    for select in list(query.find_all(exp.Select)):
        _in_projections(select, types)
        _in_views(select, types, taken={*types, *aliases})
    for table in list(query.find_all(exp.Table)):
        if is_generator(table.this):
            table.replace(_as_table(table.this, table.args.get("alias"), types))
    for lateral in list(query.find_all(exp.Lateral)):
        if is_generator(lateral.this):
            alias = lateral.args.get("alias")
            lateral.replace(_beside(_columns_of(lateral.this, _names_in(alias), types), alias))


def is_generator(node: exp.Expression | None) -> bool:
    """Whether an expression makes rows."""
    return isinstance(node, exp.Anonymous) and node.name.lower() in GENERATORS


def _in_projections(select: exp.Select, types: Types) -> None:
    """Put the columns that a generator makes in its place."""
    projections: list[exp.Expression] = []
    made = []
    for projection in select.expressions:
        inner = projection.this if isinstance(projection, exp.Alias | exp.Aliases) else projection
        if not is_generator(inner) or inner.name.lower() == "range":
            projections.append(projection)
            continue
        made.append(inner)
        names = [projection.alias] if isinstance(projection, exp.Alias) else []
        names = [each.name for each in projection.expressions] if isinstance(projection, exp.Aliases) else names
        projections += _unnested(_columns_of(inner, names, types))
    if len(made) > 1:
        raise placed(SqlError("one explode or the like a select", do="use lateral view for the others"), made[1])
    if made:
        select.set("expressions", projections)


def _in_views(select: exp.Select, types: Types, *, taken: set[str]) -> None:
    """Put each lateral view around what it follows; beside it, where there is a column of such a name already."""
    views = select.args.get("laterals") or []
    select.set("laterals", [])
    for k, view in enumerate(views):
        if not is_generator(view.this):
            error = SqlError("a lateral view takes explode and its like", do="write lateral view explode(xs) e as x")
            raise placed(error, view)
        alias = view.args.get("alias")
        columns = _columns_of(view.this, _names_in(alias), types, outer=bool(view.args.get("outer")))
        source = _only_source(select)
        if source is None or taken & {name.lower() for name, _ in columns}:
            select.append("joins", exp.Join(this=_beside(columns, alias), kind="CROSS"))
            continue
        for part in (select, *views[k + 1 :]):
            _readdress(part, alias.name if alias else "", source.alias_or_name, [name for name, _ in columns])
        around = exp.select("*", *_unnested(columns)).from_(source.copy())
        source.replace(around.subquery(exp.to_identifier(source.alias_or_name, quoted=True), copy=False))


def _names_in(alias: exp.TableAlias | None) -> list[str]:
    return [column.name for column in alias.columns] if alias else []


def _beside(columns: Columns, alias: exp.TableAlias | None) -> exp.Lateral:
    """Return a view as something to join; inside it its columns have no names, which might mean others."""
    inner = [(f"byzer_{k}", lists) for k, (_, lists) in enumerate(columns)]
    names = [exp.to_identifier(name, quoted=True) for name, _ in columns]
    name = exp.to_identifier(alias.name if alias and alias.name else "byzer_view", quoted=True)
    rows = exp.Subquery(this=exp.select(*_unnested(inner)))
    return exp.Lateral(this=rows, alias=exp.TableAlias(this=name, columns=names))


def _only_source(select: exp.Select) -> exp.Expression | None:
    """Return what a select reads from, if that is one named thing."""
    clause = next((value for value in select.args.values() if isinstance(value, exp.From)), None)
    if clause is None or select.args.get("joins") or not clause.this.alias_or_name:
        return None
    return clause.this


def _readdress(part: exp.Expression, view: str, source: str, names: list[str]) -> None:
    """Let what names a view's columns name them where they are now; ``source.*`` stays without them."""
    for column in list(part.find_all(exp.Column)):
        star, table = isinstance(column.this, exp.Star), column.table.lower()
        of_view = bool(view) and table == view.lower()
        if of_view and star:
            error = SqlError(f"{view}.* is not known here", do=f"name its columns: {', '.join(names)}")
            raise placed(error, column)
        if of_view:
            column.set("table", exp.to_identifier(source, quoted=True))
        elif table == source.lower() and star:
            hidden = column.this.args.get("except_") or []
            column.this.set("except_", [*hidden, *(exp.to_identifier(name, quoted=True) for name in names)])


def _as_table(generator: exp.Anonymous, alias: exp.TableAlias | None, types: Types) -> exp.Subquery:
    """Return a generator that stands for a table as a query."""
    select = exp.select(*_unnested(_columns_of(generator, _names_in(alias), types)))
    return select.subquery(alias.name if alias and alias.name else "byzer_rows", copy=False)


def _columns_of(node: exp.Anonymous, names: Sequence[str], types: Types, *, outer: bool = False) -> Columns:
    """Return the columns that a generator makes: names and lists.

    Args:
        node: The function's call.
        names: What its columns are called; Spark's names where there are none.
        types: Columns of the tables.
        outer: Whether an empty list gives a row of NULLs.

    Raises:
        SqlError: it makes another number of columns, or is called with something else.
    """
    try:
        return _columns(node, names, types, outer=outer)
    except SqlError as error:
        raise placed(error, node) from None


def _columns(node: exp.Anonymous, names: Sequence[str], types: Types, *, outer: bool) -> Columns:
    name, arguments = node.name.lower(), node.expressions
    check_count(name, len(arguments))
    outer = outer or name.endswith("_outer")
    kind = name.removesuffix("_outer")
    if kind == "stack":
        columns = _stack(arguments)
    elif kind == "range":
        columns = [("id", exp.Anonymous(this="range", expressions=arguments))]
    else:
        columns = _of_list(kind, arguments[0], names, types, outer=outer)
    if names and len(names) != len(columns):
        raise SqlError(f"{name} makes {len(columns)} columns, and {len(names)} names are given")
    return [(new or old, lists) for new, (old, lists) in zip(names or [""] * len(columns), columns, strict=True)]


def _of_list(kind: str, value: exp.Expression, names: Sequence[str], types: Types, *, outer: bool) -> Columns:
    if kind == "inline":
        if not names:
            raise SqlError("inline needs names for its columns", do="write inline(x) as (a, b)")
        fields = [
            f"list_transform(:a, lambda byzer_s : struct_extract_at(byzer_s, {k}))" for k in range(1, len(names) + 1)
        ]
        columns = [(name, filled(field, value)) for name, field in zip(names, fields, strict=True)]
    elif len(names) == 2 + (kind == "posexplode") or is_map(value, types):
        columns = [("key", filled("map_keys(:a)", value)), ("value", filled("map_values(:a)", value))]
    else:
        columns = [("col", value)]
    if kind == "posexplode":
        columns.insert(0, ("pos", filled("range(len(:a))", columns[0][1])))
    if outer:
        columns = [(name, filled("case when len(:a) > 0 then :a else [null] end", each)) for name, each in columns]
    return columns


def _stack(arguments: Sequence[exp.Expression]) -> Columns:
    number, *values = arguments
    if not number.is_int or int(number.name) < 1:
        raise SqlError("stack begins with the number of rows", do="write e.g. stack(2, 'a', 1, 'b', 2)")
    width = -(-len(values) // int(number.name))
    values += [exp.null()] * (width * int(number.name) - len(values))
    return [(f"col{k}", exp.Array(expressions=[v.copy() for v in values[k::width]])) for k in range(width)]


def _unnested(columns: Columns) -> list[exp.Expression]:
    """Return projections that give a row for each element of the lists."""
    return [exp.alias_(exp.Anonymous(this="unnest", expressions=[each]), name, quoted=True) for name, each in columns]
