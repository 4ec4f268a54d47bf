"""`%byzerllm jobs`: what was trained, how far it is, how good it is; a DataFrame underneath."""

import html
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.cluster import jobs
from byzerllm_magics.language.errors import display_width
from byzerllm_magics.leaderboard import leaderboard
from byzerllm_trainers.job_folder import JobFolder, write_json
from byzerllm_trainers.job_request import JobRequest

SERIES = {"learning_rate": 1e-4, "grad_norm": 0.5, "tokens_per_second": 99.0, "tokens": 10, "seconds": 0.1}


@pytest.fixture
def make(tmp_path: Path, own_state: Path) -> Any:
    """Makes a job that this user started: finished after its losses."""

    def make_job(
        name: str, losses: list[float], eval_losses: dict[int, float] | None = None, **final: Any
    ) -> JobFolder:
        parameters = {"pretrainedModelType": "sft/llama", "localModelDir": "/models/deep/down/tiny-llama"}
        folder = JobFolder(tmp_path / "jobs" / name)
        folder.create(JobRequest(parameters, "me", 1, False, 1, 1).as_record())
        records = [{"attempt": 1, "step": s, "loss": loss, **SERIES} for s, loss in enumerate(losses, 1)]
        for step, loss in (eval_losses or {}).items():
            records[step - 1]["eval_loss"] = loss
        folder.append("metrics.jsonl", records)
        running = {"event": "running", "time": 100.0, "attempt": 1, "total_steps": 8}
        folder.append("events.jsonl", [running, {"event": "finished", "time": 130.0, "attempt": 1, **final}])
        jobs.remember(folder)
        return folder

    return make_job


def evaluated(folder: JobFolder, table: str, **found: Any) -> None:
    folder.append("evaluations.jsonl", [{"table": table, "rows": 4, "time": 1.0, "model": folder.name, **found}])


def rows_of(board: pd.DataFrame) -> dict[str, dict[str, Any]]:
    return {str(row["name"]): dict(row) for row in board.to_dict("records")}


def test_a_row_says_what_was_trained_and_how_good_it_is(make: Any) -> None:
    folder = make("one", [3.0, 2.0, 1.5], {1: 2.5, 2: 2.25, 3: 2.4}, model_step=2)
    [row] = rows_of(leaderboard([jobs.Job(folder)])).values()
    assert (row["method"], row["base"], row["state"]) == ("sft", "/models/deep/down/tiny-llama", "finished")
    assert (row["step"], row["of"], row["loss"], row["seconds"]) == (3, 8, 1.5, 30.0)
    assert row["eval_loss"] == 2.25, "of the step whose weights it ended with"
    assert row["folder"].endswith("one")


def test_evaluations_are_columns_by_table_and_metric_the_latest_of_each(make: Any) -> None:
    one, other = make("one", [1.0]), make("other", [1.0])
    evaluated(one, "test", metric="exact_match", exact_match=0.25, loss=2.0, perplexity=7.4)
    evaluated(one, "test", metric="exact_match", exact_match=0.5, loss=1.0, perplexity=2.7)
    evaluated(one, "hard", metric=None, loss=3.0, perplexity=20.1)
    rows = rows_of(leaderboard([jobs.Job(one), jobs.Job(other)]))
    assert (rows["one"]["test.exact_match"], rows["one"]["test.loss"], rows["one"]["hard.perplexity"]) == (
        0.5, 1.0, 20.1,
    )  # fmt: skip
    assert pd.isna(rows["other"]["test.exact_match"])


@pytest.mark.parametrize(
    ("by", "first"), [("eval_loss", "low"), ("test.exact_match", "high"), ("name", "high"), ("test.perplexity", "high")]
)
def test_the_best_by_a_column_comes_first_and_who_has_none_last(make: Any, by: str, first: str) -> None:
    low, high, none = make("low", [1.0], {1: 1.0}), make("high", [1.0], {1: 2.0}), make("none", [1.0])
    evaluated(low, "test", metric="exact_match", exact_match=0.25, perplexity=7.4)
    evaluated(high, "test", metric="exact_match", exact_match=0.5, perplexity=2.7)
    names = [row["name"] for row in leaderboard([jobs.Job(f) for f in (none, low, high)], by).to_dict("records")]
    assert names[0] == first
    assert names[-1] == "none"


def test_an_unknown_column_is_an_error_with_the_nearest(make: Any) -> None:
    with pytest.raises(ByzerError, match="no column 'evalloss'") as caught:
        leaderboard([jobs.Job(make("one", [1.0]))], "evalloss")
    assert caught.value.do == "did you mean eval_loss?"


def test_it_is_shown_in_600_pixels(make: Any) -> None:
    """A character of a notebook's table takes about 6.5 px, a cell 10 px around it, and a header may be broken."""
    for number in range(3):
        folder = make(f"sft-finetune-{number}", [1.23456789], {1: 2.3456789})
        evaluated(folder, "test", metric="exact_match", exact_match=1 / 3, loss=1.0, perplexity=2.7)
    board = leaderboard(jobs.listed())
    page = board._repr_html_()
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)][1:]
    widths = [max(display_width(html.unescape(cell)) for cell in column) for column in zip(*rows, strict=True)]
    heads = re.findall(r"<th(?: [^>]*)?>(.*?)</th>", page)
    widths = [max(width, *map(len, re.split("<wbr>", head))) for width, head in zip(widths, heads, strict=True)]
    assert sum(6.5 * width + 10 for width in widths) < 600
    assert [head.replace("<wbr>", "") for head in heads] == [
        "name", "method", "base", "state", "step", "loss", "eval_loss", "test.exact_match", "disk",
    ]  # fmt: skip
    assert rows[0][2:6] == ["tiny-llama", "finished", "1/8", "1.235"]
    assert max(map(len, repr(board).splitlines())) <= 95
    assert "/models/deep" not in page


def test_names_are_text_and_not_markup(make: Any) -> None:
    folder = make("one", [1.0])
    evaluated(folder, "<b>test", metric="f", f=1.0)
    assert "<b>test" not in leaderboard([jobs.Job(folder)])._repr_html_()


def test_the_magic_needs_no_cluster_and_binds_a_dataframe(run: Any, shell: Any, make: Any) -> None:
    import ray

    make("one", [1.0], {1: 2.0})
    make("two", [1.0], {1: 1.0})
    ran = run("%byzerllm jobs --by eval_loss -o board")
    assert ran.error is None, ran.text
    assert isinstance(shell.user_ns["board"], pd.DataFrame)
    assert shell.user_ns["board"]["name"].tolist() == ["two", "one"]
    assert type(shell.user_ns["board"].sort_values("name")) is pd.DataFrame
    assert not ray.is_initialized()


def test_no_job_is_an_empty_table(run: Any, own_state: Path) -> None:
    ran = run("%byzerllm jobs")
    assert len(ran.value) == 0
    assert "no job yet" in ran.value._repr_html_()
    assert "folder" in ran.value.columns


def test_the_column_that_it_is_sorted_by_is_shown(make: Any) -> None:
    board = leaderboard([jobs.Job(make("one", [1.0])), jobs.Job(make("two", [1.0]))], "seconds")
    assert "<th>seconds</th>" in board._repr_html_()
    assert "seconds" not in leaderboard([jobs.Job(make("three", [1.0]))])._repr_html_()


def test_a_base_that_is_another_jobs_result_is_shown_as_such(make: Any) -> None:
    folder = make("second", [1.0])
    record = folder.request()
    record["parameters"]["localModelDir"] = "/jobs/first/model"
    write_json(folder.root / "job.json", record)
    assert "first/model" in leaderboard([jobs.Job(folder)])._repr_html_()
