from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import recipe
from byzerllm_trainers.corpus import READ_AT_ONCE, data_format, keep_rows, rows, table_rows
from byzerllm_trainers.job_folder import JobFolder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_text("from the folder")
    return folder


def test_the_kept_table_wins_over_a_folder(folder: JobFolder, data: Path) -> None:
    assert list(rows(folder, str(data))) == [(f"{data}/a.txt", {"text": "from the folder", "file": f"{data}/a.txt"})]
    keep_rows(folder, pa.Table.from_pandas(pd.DataFrame({"messages": ["kept"]})))
    assert list(rows(folder, str(data))) == [("row 0", {"messages": "kept"})]
    assert data_format(folder, str(data), recipe.find("sft").format_of) == "messages"


def test_a_format_is_what_the_method_can_train_on(folder: JobFolder, data: Path) -> None:
    assert data_format(folder, str(data), recipe.find("sfft").format_of) == "text"
    with pytest.raises(ByzerError, match="plain text holds no conversation") as caught:
        data_format(folder, str(data), recipe.find("sft").format_of)
    assert caught.value.where == f"{data}/a.txt"
    (data / "a.txt").unlink()
    (data / "a.jsonl").write_text('{"instruction": "a", "output": "b"}')
    with pytest.raises(ByzerError, match='pretraining needs a column "text"'):
        data_format(folder, str(data), recipe.find("sfft").format_of)


def test_rows_of_a_table_are_counted_on_over_its_batches() -> None:
    table = pa.table({"n": range(READ_AT_ONCE + 2)})
    assert list(table_rows(table))[-1] == (f"row {READ_AT_ONCE + 1}", {"n": READ_AT_ONCE + 1})
