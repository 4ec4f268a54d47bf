"""``action="evaluate"`` for a session: models found by name, evaluated on the cluster, compared in a table."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.parameters import read
from byzerllm_trainers.actions.action_parameters import EvaluateParameters

from .model_places import ModelPlace, find_job, model_place
from .tables.catalog import table_of

if TYPE_CHECKING:
    from byzerllm_trainers.actions.answers import Metric

    from .cluster.deployments import Deployment
    from .cluster.tasks import Reservation
    from .session import Session
    from .tables import Table

Record = dict[str, Any]
Tell = Callable[[str], None]

OWN_COLUMNS = ("loss", "perplexity", "token_accuracy", "tokens", "rows_cut", "seconds")
"""What a model's row says besides the metric, which may not have one of these names."""


@dataclass(frozen=True)
class Evaluation:
    """How models did on a table.

    Attributes:
        models: One row a model, the best first; what failed comes last, with its error.
        predictions: One row a model and row of the table: prediction, reference, score, error.
        name: The name that the statement gave (``outputTable``), if any.
    """

    models: Table
    predictions: Table
    name: str | None = None

    @property
    def tables(self) -> dict[str, Table]:
        """Both by the names under which SQL finds them: NAME and NAME_predictions."""
        return {self.name: self.models, f"{self.name}_predictions": self.predictions} if self.name else {}

    def _repr_html_(self) -> str:
        return str(self.models._repr_html_())

    def __repr__(self) -> str:
        return repr(self.models)


def evaluate(session: Session, raw: Mapping[str, object], tell: Tell) -> Evaluation:
    """Evaluate models on a table, on the cluster; a model that fails has its error in its row.

    Raises:
        ByzerError: bad input, or a name that stands for no model; nothing was started then.
    """
    import pyarrow as pa

    from byzerllm_adapters.registry import check_name
    from byzerllm_trainers.actions.evaluate import check_rows

    from .cluster import deployments
    from .cluster.connection import runs
    from .cluster.tasks import reservation

    given, wish = raw.get("inputTable"), raw.get("metric")
    # Python code has the DataFrame and the function themselves
    texts = {} if isinstance(given, str) or given is None else {"inputTable": f"a {type(given).__name__}"}
    texts |= {"metric": getattr(wish, "__name__", "metric")} if callable(wish) else {}
    keys = read(EvaluateParameters, {**raw, **texts})
    check_name(keys.pretrained_model_type)
    table = session.table(given).arrow()
    metric = (wish if callable(wish) else _metric(session, keys.metric)) if keys.asks else None
    checked = check_rows(table, metric)
    if checked is None and metric is not None and "metric" in raw:
        raise ByzerError("rows of plain text hold no answers to compare with", where="in metric", do="leave metric out")
    metric = checked
    may_be_deployed = any(not Path(name).expanduser().is_dir() and find_job(name) is None for name in keys.names)
    deployed = {}
    if may_be_deployed and runs(session.settings.ray_address):
        session.connect(start=False)
        deployed = {each.name: each for each in deployments.listed(session.settings.owner)}
    places = [model_place(name, deployed) for name in keys.names]
    session.connect()
    found = _Evaluator(table, keys, metric, reservation(session.settings), tell).all(places)
    measure = _column_of(metric)
    rows = [_row(place.name, result, measure) for place, result in zip(places, found, strict=True)]
    about = {"table": keys.input_table, "rows": table.num_rows, "time": round(time.time(), 3)}
    for place, row, result in zip(places, rows, found, strict=True):
        job = None if isinstance(result, ByzerError) else place.job
        if job is not None:
            job.append("evaluations.jsonl", [{**about, "metric": measure, **row}])
    rows.sort(key=lambda row: (row["error"] is not None, -(row[measure] or 0) if measure else 0, row["loss"] or 0))
    evaluation = Evaluation(table_of(pa.Table.from_pylist(rows)), _predictions(places, found), keys.output_table)
    session.tables.update(evaluation.tables)
    if failed := [row["model"] for row in rows if row["error"] is not None]:
        print(f"{len(failed)} of {len(rows)} models failed (column error): {', '.join(failed)}")
    return evaluation


@dataclass(frozen=True)
class _Evaluator:
    """Evaluates models on a table: folders in tasks of their own, deployed models where they are."""

    table: Any
    keys: EvaluateParameters
    metric: Metric | None
    takes: Reservation
    tell: Tell

    def all(self, places: Sequence[ModelPlace]) -> list[Record | ByzerError]:
        """Return each model's record or error, in their order."""
        from byzerllm_trainers.actions.evaluate import Evaluating, evaluate_folder

        from .cluster.tasks import run_tasks

        keys = self.keys
        how = Evaluating(
            family=keys.pretrained_model_type,
            max_seq_length=keys.max_seq_length,
            max_new_tokens=keys.max_new_tokens,
            rows=keys.per_device_eval_batch_size,
            dtype=keys.dtype,
            trust_remote_code=keys.trust_remote_code,
        )
        works = [
            (place.name, partial(evaluate_folder, place.folder, self.table, how, self.metric))
            for place in places
            if place.folder is not None
        ]
        in_folders = iter(run_tasks(works, self.takes, self.tell))
        return [
            next(in_folders) if place.deployment is None else self._deployed(place.name, place.deployment)
            for place in places
        ]

    def _deployed(self, name: str, deployment: Deployment) -> Record | ByzerError:
        """Return a deployed model's record, which has no loss, or its error; the metric is computed in a task."""
        from byzerllm_trainers.actions.answers import Answers, questions_of
        from byzerllm_trainers.actions.evaluate import score_only

        from .cluster.answers import answer_all
        from .cluster.tasks import run_tasks

        if self.metric is None:
            return ByzerError("a deployed model gives answers, and no loss", do="give its folder, or a metric")
        begun = time.monotonic()
        questions = questions_of(self.table.to_pylist())
        requests = [question.as_request(self.keys.max_new_tokens) for question in questions]
        said = answer_all(
            deployment, requests, lambda done: self.tell(f"{name}: {done:,} of {len(requests):,} answers")
        )
        answers = Answers([each.get("text") for each in said], [each.get("error") for each in said])
        work = partial(score_only, answers, questions, self.metric)
        [found] = run_tasks([(name, work)], self.takes, self.tell)
        return found if isinstance(found, ByzerError) else {**found, "seconds": round(time.monotonic() - begun, 3)}


def _column_of(metric: Metric | None) -> str | None:
    """Return the name of the metric's column."""
    if metric is None:
        return None
    name = str(getattr(metric, "__name__", "metric"))
    return f"{name}_metric" if name in (*OWN_COLUMNS, "model", "unanswered", "error") else name


def _row(name: str, found: Record | ByzerError, measure: str | None) -> Record:
    """Return a model's row of the result."""
    known: Record = {} if isinstance(found, ByzerError) else found
    scores = {measure: known.get("score"), "unanswered": known.get("unanswered")} if measure else {}
    return {
        "model": name,
        **scores,
        **{key: known.get(key) for key in OWN_COLUMNS},
        "error": str(found) if isinstance(found, ByzerError) else None,
    }


def _predictions(places: Sequence[ModelPlace], found: Sequence[Record | ByzerError]) -> Table:
    """Return a row for each model and question."""
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    schema = pa.schema(
        [
            ("model", text),
            ("row", pa.int64()),
            ("prediction", text),
            ("reference", text),
            ("score", number),
            ("error", text),
        ]
    )
    rows = [
        {"model": place.name, "row": row, "prediction": p, "reference": r, "score": s, "error": e}
        for place, result in zip(places, found, strict=True)
        if not isinstance(result, ByzerError) and "predictions" in result
        for row, (p, r, s, e) in enumerate(
            zip(result["predictions"], result["references"], result["scores"], result["errors"], strict=True)
        )
    ]
    return table_of(pa.Table.from_pylist(rows, schema))


def _metric(session: Session, name: str) -> Metric:
    """Return exact match, a function of the notebook, or one of a module: ``module:function``.

    Raises:
        ByzerError: there is none of that name, or it is no function.
    """
    from byzerllm_trainers.actions.answers import exact_match

    if name == exact_match.__name__:
        return exact_match
    module, _, function = name.replace(":", ".").rpartition(".")
    if module:
        try:
            found = getattr(importlib.import_module(module), function, None)
        except ImportError as error:
            raise ByzerError(f"metric={name!r}: {error}", do="write module:function, or define it in a cell") from None
    else:
        found = session.variable(name)
    if not callable(found):
        raise ByzerError(
            f"there is no function {name}",
            where="in metric",
            do=f"define {name}(prediction, reference) in a cell, or write exact_match, none or module:function",
        )
    metric: Metric = found
    return metric
