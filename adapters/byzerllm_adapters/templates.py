"""A tokenizer's chat template: where it comes from, what it renders, what it writes around an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from byzerllm_adapters.contract import Message
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.rendering import Span, Tools, is_plain, render_any, render_plain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""What opens an assistant's turn in a template that marks them, as transformers looks for it."""

ROLE_KEYS = ("user_role", "assistant_role")
"""The variables by which a template of ours lets a request or a job name the two who talk."""


@dataclass(frozen=True)
class Frame:
    """What a template writes around an answer: white space before and after it, the end-of-turn token, white space.

    `end` and `end_id` are None when no added token of the tokenizer closes an answer. `opens_next`: the template
    leaves a last answer open, and the token that opens a user's turn is what ends an answer (GLM 4).
    """

    lead: str
    gap: str
    end: str | None
    end_id: int | None
    after: str = ""
    opens_next: bool = False


def ensure_template(tokenizer: PreTrainedTokenizerBase, default: str) -> None:
    """Give the tokenizer the adapter's default chat template where it has none.

    Raises:
        ByzerError: The tokenizer has no end-of-sequence token, which the default templates write.
    """
    if tokenizer.chat_template is not None:
        return
    if tokenizer.eos_token is None:
        raise ByzerError(
            "the tokenizer has neither a chat template nor an end-of-sequence token",
            do="set eos_token in its tokenizer_config.json",
        )
    tokenizer.chat_template = default


def roles_taken(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return which of `ROLE_KEYS` the template takes: none, unless it is one of ours that nobody trained on."""
    return _roles_taken(tokenizer, template_of(tokenizer))


def fix_roles(tokenizer: PreTrainedTokenizerBase, given: Mapping[str, str]) -> None:
    """Write the names of the two who talk into the template, so that the saved tokenizer serves as it was trained.

    Args:
        given: Values of `ROLE_KEYS`; the template's own names stay where it has none.

    Raises:
        ByzerError: A name is given, and the template has no place for it.
    """
    taken = roles_taken(tokenizer)
    if strange := [name for name in given if name not in taken]:
        raise ByzerError(
            f"{strange[0]} is without effect: the model's chat template names the roles itself",
            do=f"leave {' and '.join(strange)} out",
        )
    fixed = {name: given.get(name) for name in taken}
    # A name that is fixed to nothing is the template's own, whatever a request says later.
    tokenizer.chat_template = "".join(
        f"{{% set {name} = {json.dumps(value) if value else 'none'} %}}" for name, value in fixed.items()
    ) + template_of(tokenizer)


def template_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the template that the tokenizer renders conversations with.

    Raises:
        ByzerError: It has none.
    """
    if tokenizer.chat_template is None:
        raise ByzerError("the tokenizer has no chat template", do="load it by its family's load_tokenizer")
    return str(tokenizer.get_chat_template())


def has_markers(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the template marks what an assistant writes, by `{% generation %}` blocks."""
    return MARKER.search(template_of(tokenizer)) is not None


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    add_generation_prompt: bool,
    tools: Tools | None = None,
    roles: Mapping[str, str] | None = None,
) -> str:
    """Return the conversation as the tokenizer's chat template writes it.

    Raises:
        ByzerError: The template refuses the conversation, e.g. a role, or roles that do not alternate.
    """
    return _rendered(tokenizer, messages, tools, roles, prompt=add_generation_prompt, spans=False)[0]


def render_marked(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Tools | None = None
) -> tuple[str, list[Span]]:
    """Return a whole conversation and the spans of its `{% generation %}` blocks; errors as of `render`."""
    return _rendered(tokenizer, messages, tools, None, prompt=False, spans=True)


def frame(tokenizer: PreTrainedTokenizerBase) -> Frame:
    """Return what the tokenizer's template writes around an answer, found by rendering one."""
    return _frame(tokenizer, template_of(tokenizer))


def added_token_at(tokenizer: PreTrainedTokenizerBase, text: str) -> str | None:
    """Return the added token that a text begins with, the longest; None: none does."""
    return max((token for token in _added(tokenizer) if text.startswith(token)), key=len, default=None)


def ends_a_turn(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    """Return whether a text's last token, white space aside, is an added one."""
    return text.rstrip().endswith(_added_texts(tokenizer))


@lru_cache(maxsize=16)
def _frame(tokenizer: PreTrainedTokenizerBase, template: str) -> Frame:
    question, answer = Message(role="user", content="question"), Message(role="assistant", content="answer")
    prompt, text = render(tokenizer, [question], True), render(tokenizer, [question, answer], False)
    if not text.startswith(prompt) or answer["content"] not in text[len(prompt) :]:
        return Frame("", "", None, None)
    lead, _, tail = text[len(prompt) :].rpartition(answer["content"])
    opens_next = not tail.strip()
    if opens_next:
        tail = render(tokenizer, [question, answer, question], True)[len(text) - len(tail) :]
    added = _added(tokenizer)
    gap = tail[: len(tail) - len(tail.lstrip())]
    found = added_token_at(tokenizer, tail.lstrip())
    lead = lead if lead.isspace() else ""
    if found is None:
        return Frame(lead, "", None, None)
    rest = "" if opens_next else tail.lstrip().removeprefix(found)
    return Frame(lead, gap, found, added[found], rest[: len(rest) - len(rest.lstrip())], opens_next)


@lru_cache(maxsize=16)
def _roles_taken(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[str, ...]:
    question, probe = [Message(role="user", content="question")], "\ue000"
    return tuple(name for name in ROLE_KEYS if probe in render(tokenizer, question, True, None, {name: probe}))


@lru_cache(maxsize=16)
def _added(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    return {token.content: token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.content}


@lru_cache(maxsize=16)
def _added_texts(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    return tuple(_added(tokenizer))


def _rendered(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Tools | None,
    roles: Mapping[str, str] | None,
    *,
    prompt: bool,
    spans: bool,
) -> tuple[str, list[Span]]:
    from jinja2.exceptions import TemplateError

    template, variables = template_of(tokenizer), {**tokenizer.special_tokens_map, **(roles or {})}
    write = render_plain if tools is None and is_plain(messages) else render_any
    try:
        return write(template, messages, tools, prompt, variables, spans=spans)
    except (TemplateError, TypeError) as error:  # a type error: the template adds to what a turn leaves out
        raise ByzerError(
            f"the chat template refuses the conversation: {error}",
            do="correct the row, or put a template that takes it into the tokenizer's folder, as chat_template.jinja",
        ) from error
