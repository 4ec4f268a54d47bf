import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mistune import HTMLRenderer, Markdown

from byzerllm_magics.widgets.chat_twin import chat_bundle, inert_markdown


def render(markdown):
    """Render like nbconvert: HTML in the Markdown stays live."""
    return Markdown(renderer=HTMLRenderer(escape=False))(markdown)


def test_an_exchange_is_a_quotation_an_answer_and_a_footer():
    data, metadata = chat_bundle("two\nlines", "**four**", "1 token", "stopped")
    assert data["text/plain"] == "> two\n> lines\n\n**four**\n\nstopped · 1 token"
    assert data["text/markdown"].startswith("> two\n> lines\n\n**four**\n\n*stopped")
    assert metadata == {}


def test_html_of_a_model_is_text():
    shown = render(inert_markdown("a <script>x()</script> <b>c</b>\n\n<img src=x onerror=x()>"))
    assert re.findall(r"<(\w+)", shown) == ["p", "p"]
    assert "<script>x()</script>" in html.unescape(shown)


def test_pictures_do_not_load():
    assert "<img" not in render(inert_markdown("![a](http://x/y.png) ![b][r]\n\n[r]: http://x/z.png"))


def test_code_keeps_its_signs():
    shown = render(inert_markdown("x `a<b` y `c*d`\n\n```python\nif a < b: print('`')\n```\nend"))
    assert html.unescape(shown).count("<code>a<b</code>") == 1
    assert "<code>c*d</code>" in shown
    assert "if a < b: print('`')" in html.unescape(shown)


def test_a_fence_that_never_closes_is_closed():
    shown = render(chat_bundle("q", "```html\n<script>x()</script>", "ok", "done")[0]["text/markdown"])
    assert "<script" not in shown
    assert "<em>ok</em>" in shown


PARTS = [
    "```",
    "~~~",
    "````",
    "`",
    "``",
    "\n",
    "\n\n",
    "    ",
    "   ",
    "> ",
    "- ",
    "<script>",
    "</code>",
    "<!--",
    "-->",
    "$$",
    "![",
    "](x)",
    "\\",
    "a",
    " ",
    "python",
    "|",
    "<pre>",
    "&lt;",
    "\u2028",
    "\r",
    "\x0b",
    "[",
    "]: <",
    "1. ",
]


@given(st.lists(st.sampled_from(PARTS), max_size=25).map("".join))
def test_no_answer_makes_a_live_tag(text):
    shown = render(inert_markdown(text))
    tags = {tag.lower() for tag in re.findall(r"<(/?\w+|!--)", shown)}
    assert not tags & {"script", "/script", "!--", "img"}


@given(st.text(alphabet=st.sampled_from("`~<>*_ \n\\ab"), max_size=60))
def test_outside_fences_the_only_tags_are_ours(text):
    fence = None
    for line in inert_markdown(text).splitlines():
        mark = re.fullmatch(r"(`{3,})[\w+#.-]*", line)
        if fence is None and mark:
            fence = mark[1]
        elif fence is not None:
            fence = None if line == fence else fence
        else:
            assert "<" not in line.replace("<code>", "").replace("</code>", "")


@pytest.mark.parametrize("text", ["", "\n\n", "plain"])
def test_plain_text_stays(text):
    assert inert_markdown(text) == text.strip("\n")
