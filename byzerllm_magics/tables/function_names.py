"""Whether a model may have a name: SQL calls it as a function."""

from __future__ import annotations

from byzerllm_adapters.errors import ByzerError


def check_model_name(name: str) -> None:
    """Refuse a name under which SQL would never call the model.

    Raises:
        ByzerError: it is a function of SQL, or a word of its grammar.
    """
    if _is_free(name):
        return
    raise ByzerError(
        f"a model cannot be called {name}: {name.lower()}(…) means something else in SQL",
        do=f'write another name, e.g. udfName="{name}_model"',
    )


def _is_free(name: str) -> bool:
    """Whether a call of that name is one of a function that SQL does not know."""
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    from .llm_functions import is_llm_function
    from .spark import SPARK
    from .spark_functions import NAMES

    known = (*SPARK.parser_class.FUNCTIONS, *SPARK.parser_class.FUNCTION_PARSERS)
    if is_llm_function(name) or name.lower() in NAMES or name.upper() in known:
        return False
    try:
        [query] = SPARK.parse(f"select {name}(x)")
    except SqlglotError:  # a word of the grammar
        return False
    called = query.selects[0]
    return isinstance(called, exp.Anonymous) and called.name.lower() == name.lower()
