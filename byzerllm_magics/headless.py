"""Execute a notebook without a browser, with its progress in the terminal: ``python -m byzerllm_magics.headless``.

Shows which cell runs and how its training jobs go, saves the executed notebook and an HTML page of it, and prints what
the cell tagged ``summary`` printed. Needs the extra ``byzerllm-magics[notebook]``.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

if TYPE_CHECKING:
    from nbformat import NotebookNode

REPORT_SECONDS = 5.0
"""How often the terminal hears of a running job."""


def execute(notebook: Path, output: Path, parameters: dict[str, Any]) -> NotebookNode:
    """Execute ``notebook`` in the folder ``output``, save it and its HTML there, and return it.

    Args:
        notebook: The notebook to run; it is not changed.
        output: Folder for the results; also the kernel's working folder.
        parameters: Replaces assignments of the cell tagged ``parameters``, as papermill does.

    Raises:
        ByzerError: a cell failed; the notebook is saved up to there.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError
    from nbconvert import HTMLExporter

    if not notebook.exists():
        raise ByzerError(f"no notebook {notebook}", do="check its path")
    content = nbformat.read(notebook, as_version=4)
    _inject(content, parameters)
    output.mkdir(parents=True, exist_ok=True)
    terminal = _Terminal(content)
    client = NotebookClient(
        content,
        timeout=None,
        kernel_name=content.metadata.kernelspec.name,
        extra_arguments=["--log-level=ERROR"],  # else it warns of a connection that does not leave this machine
        resources={"metadata": {"path": str(output)}},
        store_widget_state=False,  # code hosts cannot render a notebook that carries it
        on_cell_execute=terminal.begin,
        on_cell_executed=terminal.end,
    )
    failure: ByzerError | None = None
    try:
        client.execute()
    except CellExecutionError as error:
        what, *where = f"{error.ename}: {error.evalue}".splitlines()
        failure = ByzerError(what, where="\n".join(where[:2]), do=f"look at {output / notebook.name}")
    except (DeadKernelError, KeyboardInterrupt) as error:
        what = str(error) or "interrupted"
        failure = ByzerError(what, do=f"{output / notebook.name} has the cells up to there; jobs on the cluster go on")
    finally:
        terminal.close()
        nbformat.write(content, output / notebook.name)
        page, _ = HTMLExporter().from_notebook_node(content)
        (output / notebook.with_suffix(".html").name).write_text(page, encoding="utf-8")
    if failure:
        raise failure
    return content


def _inject(content: NotebookNode, parameters: dict[str, Any]) -> None:
    """Add assignments behind the cell tagged ``parameters``."""
    if not parameters:
        return
    from nbformat.v4 import new_code_cell

    tagged = [i for i, cell in enumerate(content.cells) if "parameters" in cell.metadata.get("tags", [])]
    if not tagged:
        raise ByzerError("the notebook has no cell tagged parameters")
    source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    content.cells.insert(tagged[0] + 1, new_code_cell(source, metadata={"tags": ["injected-parameters"]}))


class _Terminal:
    """Prints one line a cell and, while it runs, a line now and then for each of its jobs."""

    def __init__(self, content: NotebookNode) -> None:
        self._content = content
        self._code = [cell for cell in content.cells if cell.cell_type == "code"]
        self._begun, self._since = time.time(), time.time()
        self._closed = threading.Event()
        self._told: dict[str, str] = {}
        threading.Thread(target=self._report, name="terminal", daemon=True).start()

    def begin(self, cell: NotebookNode, **_: Any) -> None:
        """Name the cell that starts."""
        if cell.cell_type == "code":
            self._begun = time.time()
            number = self._code.index(cell) + 1
            title = " ".join(cell.source.split())[:70]
            print(f"[{number:2}/{len(self._code)}] {title}", flush=True)

    def end(self, cell: NotebookNode, **_: Any) -> None:
        """Say how long it took, if that was long."""
        if cell.cell_type == "code" and time.time() - self._begun > 2:
            print(f"        {time.time() - self._begun:.1f} s", flush=True)

    def close(self) -> None:
        """Stop reporting."""
        self._closed.set()

    def _report(self) -> None:
        from .cluster.job_watch import JobWatch
        from .cluster.jobs import listed

        watches: dict[str, JobWatch] = {}
        while not self._closed.wait(REPORT_SECONDS):
            for job in listed():
                request = job.folder.root / "job.json"
                if request.exists() and request.stat().st_mtime > self._since:
                    watches.setdefault(str(job.folder.root), JobWatch(job.folder))
            for watch in watches.values():
                state = watch.look()
                loss, speed = state.last("loss"), state.last("tokens_per_second")
                facts = [f"{state.name}: {state.state}", state.message]
                if loss is not None and speed is not None:
                    facts += [f"step {state.step} of {state.total_steps}", f"loss {loss:.3f}", f"{speed:,.0f} tokens/s"]
                line = ", ".join(fact for fact in facts if fact)
                if self._told.get(state.name) != line:
                    self._told[state.name] = line
                    print(f"        {line}", flush=True)


def summary(content: NotebookNode) -> str:
    """Return what the cell tagged ``summary`` printed; empty when there is none."""
    return "".join(
        output.text
        for cell in content.cells
        if "summary" in cell.metadata.get("tags", [])
        for output in cell.get("outputs", [])
        if output.output_type == "stream"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m byzerllm_magics.headless", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--output", type=Path, default=Path("out"), help="folder for the results (out)")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter")
    options = parser.parse_args(arguments)
    begun = time.time()
    try:
        content = execute(options.notebook, options.output, {name: _value(text) for name, text in options.p})
    except ImportError as error:
        print(f"missing: {error.name} (pip install 'byzerllm-magics[notebook]')", file=sys.stderr)
        return 1
    except ByzerError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\n{summary(content)}\n{time.time() - begun:.0f} s in all")
    print(f"executed notebook: {options.output / options.notebook.name}")
    print(f"HTML page:         {options.output / options.notebook.with_suffix('.html').name}")
    return 0


def _value(text: str) -> Any:
    """Read a parameter's value as JSON, else as text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


if __name__ == "__main__":
    sys.exit(main())
