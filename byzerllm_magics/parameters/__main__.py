"""``python -m byzerllm_magics.parameters``: write what is made from declarations, below the working folder.

`docs/parameters.md`, and the table of statements in `README.md` between its two marks.
"""

from pathlib import Path

from ..language.forms import markdown
from .help import reference_page

BEGIN, END = "<!-- statements: made by `make docs` -->", "<!-- end of statements -->"


def with_statements(readme: str) -> str:
    """Return the README's text with the table of statements as it is now."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{markdown()}\n{END}{after}"


if __name__ == "__main__":
    Path("docs/parameters.md").write_text(reference_page(), encoding="utf-8")
    readme = Path("README.md")
    readme.write_text(with_statements(readme.read_text(encoding="utf-8")), encoding="utf-8")
