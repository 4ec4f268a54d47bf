"""A text's tokens, split at `;`, each piece fed to the grammar; problems are collected, not raised."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from . import faults
from .errors import Problem
from .statements import Assignment, ModelCommand, RunLLM, Setup, SetVariable, Span, Statement

if TYPE_CHECKING:
    from lark import Lark, Token
    from lark.tree import Tree

_ESCAPED = {'"': '"', "'": "'", "\\": "\\", "n": "\n", "t": "\t"}


class Reader:
    """Reads one text. What is wrong with it is in `problems` afterwards."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.problems: list[Problem] = []
        self.tokens = list(_grammar().lex(text))
        self.pieces = self._split()

    def span(self, tokens: list[Token]) -> Span:
        """Return the span from the first to the last token, or of the whole text when there is none."""
        if not tokens:
            return Span.of(self.text, 0, len(self.text))
        return Span.of(self.text, *_offsets(tokens[0])[:1], *_offsets(tokens[-1])[1:])

    def statement(self, piece: list[Token]) -> Statement | None:
        """Return the statement of a piece, or None when it is none (`problems` says why)."""
        if fault := faults.not_a_statement(piece):
            self.problems.append((self.span(piece[:1]), *fault))
            return None
        tree = self._tree(piece, "statement")
        return None if tree is None else self._built(tree, self.span(piece))

    def nodes(self, start: str) -> list[Tree[Token] | Token]:
        """Return what stands in all pieces, each read by the start rule `setup_body` or `run_body`."""
        trees = [self._tree(piece, start) for piece in self.pieces]
        return [node for tree in trees if tree is not None for node in tree.children]

    def setup(self, nodes: list[Tree[Token] | Token], span: Span) -> Setup:
        """Return the setup of these modes and settings: at most one mode, before every setting."""
        mode: Token | None = None
        valued: Token | None = None  # the 2 of `num_gpus 2`, reported with its key
        settings: list[Tree[Token] | Token] = []
        for node, following in zip_longest(nodes, nodes[1:]):
            word = _mode_word(node)
            if word is None:
                settings.append(node)
                continue
            after = _mode_word(following)
            fault = faults.misplaced_mode(word, mode, bool(settings))
            if after is not None and after.line == word.line:
                fault, valued = faults.missing_equals(word, after), after
            elif word is valued:
                continue
            if fault:
                self.problems.append((self.span([word]), *fault))
            else:
                mode = word
        return Setup(
            mode=None if mode is None else str(mode),
            mode_span=None if mode is None else self.span([mode]),
            settings=self.assignments(settings),
            span=span,
        )

    def assignments(self, nodes: Iterable[Tree[Token] | Token]) -> tuple[Assignment, ...]:
        """Return the assignments of a clause, in order; a key that stands twice is a problem."""
        first: dict[str, Assignment] = {}
        for node in nodes:
            found = self._quoted_setting(node) if isinstance(node, str) else self._assignment(node)
            if found is None:
                continue
            if earlier := first.get(found.key):
                fault = faults.duplicate(found.key, earlier.key_span.line, found.key_span.line)
                self.problems.append((found.key_span, *fault))
            else:
                first[found.key] = found
        return tuple(first.values())

    def _split(self) -> list[list[Token]]:
        """Return the tokens between semicolons, without empty pieces."""
        pieces: list[list[Token]] = [[]]
        for token in self.tokens:
            if token.type != "SEMICOLON":
                pieces[-1].append(token)
                continue
            if fault := faults.of_token(token):
                self.problems.append((self.span([token]), *fault))
            pieces.append([])
        return [piece for piece in pieces if piece]

    def _tree(self, piece: list[Token], start: str) -> Tree[Token] | None:
        """Feed a piece to the grammar; a token that does not fit is reported and left out.

        Of several such tokens in a row the first is reported: the others are its consequence.
        """
        from lark.exceptions import UnexpectedToken

        parser: Any = _grammar().parse_interactive(start=start)  # lark's own annotations stop here
        skipping, already = False, len(self.problems)
        for index, token in enumerate(piece):
            fault = faults.of_token(token)
            before = skipping
            try:
                parser.feed_token(token)
                skipping = False
            except UnexpectedToken:
                fault = fault or faults.unexpected(piece, index, parser.accepts(), start)
                skipping = True
            if fault and not (before and skipping):
                self.problems.append((self.span([token]), *fault))
        try:
            return cast("Tree[Token]", parser.feed_eof(piece[-1]))
        except UnexpectedToken:
            if len(self.problems) == already:
                self.problems.append((self.span(piece[-1:]), *faults.ended_early(parser.accepts())))
            return None

    def _built(self, tree: Tree[Token], span: Span) -> Statement | None:
        children = [child for child in tree.children if not isinstance(child, str)]  # keywords are tokens
        match str(tree.data):
            case "setup":
                return self.setup(list(children[0].children), span)
            case "run_llm":
                return RunLLM(self.assignments(children), span)
            case "set_variable":
                found = self._assignment(children[0])
                return SetVariable(found.key, found.value, found.value_span, span) if found else None
            case _:
                verb, name = str(tree.children[0]).split()[-1].lower(), _value(_token(children[0]))
                return ModelCommand(cast('Literal["remove", "exists"]', verb), name, span)

    def _assignment(self, node: Tree[Token]) -> Assignment | None:
        key, *value = node.children
        assert isinstance(key, str), "an assignment begins with its key"
        name = key.strip("`")
        if not value:
            self.problems.append((self.span([key]), *faults.no_value(name)))
            return None
        assert not isinstance(value[0], str), "a value is a tree of one token"
        token = _token(value[0])
        return Assignment(name, _value(token), self.span([key]), self.span([token]))

    def _quoted_setting(self, token: Token) -> Assignment | None:
        """Read `"num_gpus=2"`, the original's way of one setting."""
        quote = 3 if token.startswith(("'''", '"""')) else 1
        inside = token[quote:-quote]
        key, equals, value = inside.partition("=")
        if not (equals and key.strip() and value.strip()):
            self.problems.append((self.span([token]), *faults.no_setting(inside)))
            return None
        start, end = _offsets(token)
        middle = start + quote + len(key)
        return Assignment(
            key.strip(),
            value.strip(),
            Span.of(self.text, start + quote, middle),
            Span.of(self.text, middle + 1, end - quote),
        )


@cache
def _grammar() -> Lark:
    from lark import Lark

    text = Path(__file__).with_name("language.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", lexer="basic", start=["statement", "setup_body", "run_body", "noise"])


def _offsets(token: Token) -> tuple[int, int]:
    assert token.start_pos is not None, "a token of the lexer has a place"
    assert token.end_pos is not None, "a token of the lexer has a place"
    return token.start_pos, token.end_pos


def _mode_word(node: Tree[Token] | Token | None) -> Token | None:
    return None if node is None or isinstance(node, str) or node.data != "mode" else _token(node)


def _token(node: Tree[Token]) -> Token:
    token = node.children[0]
    assert isinstance(token, str), "modes and values are trees of one token"
    return token


def _value(token: Token) -> str:
    """Return what a value's token means: quotes removed, and escapes read where the quote has them.

    Another backslash stands for itself, so that a Windows path or a regular expression may stand plainly.
    """
    if token.startswith(("'''", '"""')):
        return token[3:-3]
    if token.startswith(('"', "'")):
        return re.sub(r"\\(.)", lambda escape: _ESCAPED.get(escape[1], escape[0]), token[1:-1])
    return str(token)
