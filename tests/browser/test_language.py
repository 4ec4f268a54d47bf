"""The language in JupyterLab: completion in the cell, a script's last table, errors that point at the place."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

START = "%load_ext byzerllm_magics\nimport pandas as pd\nfruit = pd.DataFrame({'name': ['apple', 'plum'], 'n': [3, 5]})"
SCRIPT = """%%byzerllm
set least = "4";
select name, n * 2 as twice from fruit where n >= cast("${least}" as int) as many;
run many as TableRepartition.`` where partitionNum="3" as parted;
select * from parted as shown;"""
WRONG = """%%byzerllm
select name from fruti as a;
run command as LLM.`` where action="infer"，udfName="x";
select nam from fruit as b;"""


@pytest.fixture
def offered(lab, open_notebook):
    """What JupyterLab's completer offers behind a text that is typed into a cell."""
    lab.write("complete.ipynb", [f"{START}\nfriends = fruit", *[""] * 8])
    notebook = open_notebook("complete.ipynb")
    notebook.run(0)
    used = iter(range(1, 9))

    def offers(typed: str) -> list[str]:
        index = next(used)
        notebook.cell(index).locator(".cm-content").click()
        notebook.page.keyboard.insert_text(typed)
        notebook.page.keyboard.press("Tab")
        items = notebook.page.locator(".jp-Completer-item:visible .jp-Completer-match")
        items.first.wait_for(timeout=20_000)
        notebook.look(f"complete-{index}")
        words = items.all_inner_texts()
        notebook.page.keyboard.press("Escape")
        return words

    return offers


def test_completion_leads_through_a_cell(offered):
    assert {"action", "pretrainedModelType", "localModelDir"} <= set(offered('%%byzerllm run\nname="x" and '))
    assert set(offered('%%byzerllm run\naction="')) >= {"infer", "finetune"}
    assert offered('%%byzerllm run\ninputTable="fr') == ["friends", "fruit"]
    assert {"select", "set"} <= set(offered("%%byzerllm\nse"))
    assert {"json", "csv", "parquet", "text"} <= set(offered("%%byzerllm\nload "))
    assert {"num_gpus", "num_cpus"} <= set(offered("%%byzerllm setup\nnum_"))


def test_a_script_shows_its_last_table(lab, open_notebook):
    lab.write("script.ipynb", [START, SCRIPT, "type(many).__name__, parted.partitions"])
    notebook = open_notebook("script.ipynb")
    for cell in (0, 1, 2):
        notebook.run(cell)
    notebook.look("script")
    table = notebook.output(1).locator("table")
    assert table.count() == 1
    assert [text.strip() for text in table.locator("td").all_inner_texts()] == ["plum", "10"]
    assert "('Table', 3)" in notebook.output(2).inner_text()


def test_all_errors_of_a_script_point_at_their_places_at_once(lab, open_notebook):
    lab.write("wrong.ipynb", [START, WRONG])
    notebook = open_notebook("wrong.ipynb")
    notebook.run(0)
    notebook.run(1)
    notebook.look("errors")
    text = notebook.output(1).inner_text()
    assert "Traceback" not in text
    lines = text.strip().splitlines()
    assert lines[0].endswith("2 problems")
    assert lines[1] == "line 2, column 18: there is no table fruti → did you mean fruit?", "as the editor counts"
    assert lines[4].startswith("line 3, column 43: ， is full-width punctuation → type ,")
    assert [line.strip() for line in (lines[3], lines[6])] == ["^^^^^", "^^"]
    assert len(lines) == 7
