"""A real JupyterLab on loopback, and Debian's Chromium driven by Playwright."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@dataclass
class Lab:
    """A JupyterLab server."""

    url: str
    token: str
    folder: Path

    def write(self, name: str, cells: list[str]) -> Path:
        """Put a notebook of code cells into the server's folder."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        path = self.folder / name
        nbformat.write(notebook, path)
        return path


@dataclass
class Notebook:
    """A notebook that is open in a page."""

    page: Page
    messages: list[str] = field(default_factory=list)

    def cell(self, index: int) -> Locator:
        """Return the code cell with this index."""
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(index)

    def output(self, index: int) -> Locator:
        """Return a cell's output area."""
        return self.cell(index).locator(".jp-Cell-outputArea")

    def run(self, index: int, *, wait: float | None = 60) -> None:
        """Run a cell by keyboard, as a user does, and wait until it has ended (``wait`` seconds at most)."""
        self.cell(index).locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        if wait:
            self.ended(index, wait)

    def ended(self, index: int, seconds: float = 60) -> None:
        """Wait until a cell has a number again in front of it."""
        prompt = self.cell(index).locator(".jp-InputPrompt").first
        deadline = time.monotonic() + seconds
        while not prompt.inner_text().strip("[]: ").isdigit():
            if time.monotonic() > deadline:
                self.look("failed")
                pytest.fail(f"cell {index} still runs: {self.output(index).inner_text()[:500]}")
            self.page.wait_for_timeout(100)

    def glimpse(self, index: int, css_class: str) -> dict[str, Any] | None:
        """Return the data-* attributes and the text of a view at this moment; None when it is not there (any more)."""
        seen: dict[str, Any] | None = self.output(index).evaluate(
            "(area, css) => { const e = area.querySelector(css); return e && {...e.dataset, text: e.innerText}; }",
            f".{css_class}",
        )
        return seen

    def look(self, name: str) -> None:
        """Keep a picture of the page, when $SCREENSHOTS names a folder: for people to look at."""
        if os.environ.get("SCREENSHOTS"):
            self.page.screenshot(path=f"{os.environ['SCREENSHOTS']}/{name}.png")

    def save(self) -> None:
        """Save the notebook and wait until the page says that it is saved."""
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("Control+s")
        self.page.wait_for_timeout(1500)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    if not CHROMIUM:
        pytest.skip("chromium is not installed: `make browser` says how")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, state: Path) -> Iterator[Lab]:
    """JupyterLab in a folder and with settings of its own; its kernels share the tests' cluster."""
    folder = tmp_path_factory.mktemp("lab")
    config = tmp_path_factory.mktemp("jupyter")
    news = config / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false"}')  # its question would cover the cells
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(8)
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(config),
        "JUPYTERLAB_SETTINGS_DIR": str(config / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(config / "workspaces"),
        "JUPYTER_DATA_DIR": str(config / "data"),
        "BYZERLLM_STATE": str(state),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    with (folder.parent / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{url}/api?token={token}", timeout=1)
            break
        except OSError:
            time.sleep(0.2)
    yield Lab(url, token, folder)
    server.terminate()
    server.wait(20)


@pytest.fixture
def open_notebook(browser: Browser, lab: Lab) -> Iterator[Any]:
    """Return a function that opens a notebook of the lab in a fresh page, in the light or the dark theme."""
    contexts = []

    def opened(name: str, *, width: int = 1100, height: int = 1400) -> Notebook:
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        notebook = Notebook(page)
        page.on("console", lambda message: notebook.messages.append(f"{message.type}: {message.text}"))
        page.goto(f"{lab.url}/lab/workspaces/w{secrets.token_hex(4)}/tree/{name}?token={lab.token}")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
        page.wait_for_timeout(1500)
        return notebook

    yield opened
    for context in contexts:
        context.close()
