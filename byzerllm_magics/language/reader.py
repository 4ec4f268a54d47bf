"""A text's tokens, split at `;`, each piece fed to the grammar; problems are collected, not raised."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING, Any, Literal, cast

from . import faults
from .errors import Problem
from .faults import Fault
from .places import Lines, Span
from .secrets import without_secrets
from .statements import (
    Assignment,
    Load,
    ModelCommand,
    Note,
    Repartition,
    RunLLM,
    Setup,
    SetVariable,
    Statement,
)
from .tokens import Tokens, grammar

if TYPE_CHECKING:
    from lark import Token
    from lark.tree import Tree

_ESCAPED = {'"': '"', "'": "'", "\\": "\\", "n": "\n", "t": "\t"}


class Reader:
    """Reads one text. What is wrong with it is in `problems` afterwards."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = Lines(text)
        self.problems: list[Problem] = []
        found = Tokens(self.lines)
        self.tokens, self.queries = found.tokens, found.queries
        self.pieces = self._split()

    def span(self, tokens: list[Token]) -> Span:
        """Return the span from the first to the last token, or of the whole text when there is none."""
        if not tokens:
            return self.lines.span(0, len(self.text))
        return self.lines.span(_start(tokens[0]), _end(tokens[-1]))

    def statements(self) -> list[Statement]:
        """Return the statements of all pieces; one that is none is left out (`problems` says why)."""
        # A piece in which another statement begins is cut there, and its rest added at the end of the list.
        found = [self.statement(piece) for piece in self.pieces]
        return [statement for statement in found if statement is not None]

    def statement(self, piece: list[Token]) -> Statement | None:
        """Return the statement of a piece, or None when it is none (`problems` says why)."""
        if piece[0].type == "SQL":
            reading = self.queries[_start(piece[0])]
            self.problems += reading.problems
            return reading.select
        if fault := faults.not_a_statement(piece):
            self._problem(piece[:1], faults.not_a_statement(self._shown(piece)) or fault)
            return None
        tree = self._tree(piece, "statement")
        return None if tree is None else self._built(tree, piece)

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
                shown, value = self._shown([word, after])
                fault, valued = faults.missing_equals(shown, value), after
            elif word is valued:
                continue
            elif fault:
                fault = faults.misplaced_mode(self._shown([word])[0], mode, bool(settings))
            if fault:
                self._problem([word], fault)
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
                key = without_secrets(self.text)[found.key_span.start : found.key_span.end]
                fault = faults.duplicate(key, earlier.key_span.line, found.key_span.line)
                self.problems.append((found.key_span, *fault))
            else:
                first[found.key] = found
        return tuple(first.values())

    def notes(self, tokens: list[Token]) -> tuple[Note, ...]:
        """Return a note where `and` follows `where` at once, as in the original's documents."""
        return tuple(
            Note(self.span([token]), "`and` directly after `where` is left out")
            for before, token in pairwise(tokens)
            if (before.type, token.type) == ("_WHERE", "_AND")
        )

    def _split(self) -> list[list[Token]]:
        """Return the tokens between semicolons, without empty pieces; SQL has taken its semicolon along."""
        pieces: list[list[Token]] = [[]]
        for token in self.tokens:
            if token.type != "SEMICOLON":
                pieces[-1].append(token)
            elif fault := faults.of_token(token):
                self._problem([token], fault)
            if token.type in ("SEMICOLON", "SQL"):
                pieces.append([])
        return [piece for piece in pieces if piece]

    def _tree(self, piece: list[Token], start: str) -> Tree[Token] | None:
        """Feed a piece to the grammar; a token that does not fit is reported and left out.

        Of several such tokens in a row the first is reported: the others are its consequence. A token that begins
        another statement ends the piece, and what follows is read for itself.
        """
        from lark.exceptions import UnexpectedToken

        parser: Any = grammar().parse_interactive(start=start)  # lark's own annotations stop here
        already = len(self.problems)
        expected: set[str] = set()  # what would fit, as long as nothing does
        for index, token in enumerate(piece):
            fault = faults.of_token(token)
            try:
                parser.feed_token(token)
            except UnexpectedToken:
                first, expected = not expected, expected or parser.accepts()
                if faults.begins_another(piece, index, expected, first):
                    self._problem([token], faults.another(piece, index, expected, start))
                    if start == "statement":
                        self.pieces.append(piece[index:])
                        del piece[index:]
                    return None
                if first:
                    self._problem([token], fault or faults.unexpected(self._shown(piece), index, expected))
            else:
                expected = set()
                if fault:
                    self._problem([token], fault)
        try:
            return cast("Tree[Token]", parser.feed_eof(piece[-1]))
        except UnexpectedToken:
            if len(self.problems) == already:
                self._problem(piece[-1:], faults.ended_early(piece, parser.accepts()))
            return None

    def _built(self, tree: Tree[Token], piece: list[Token]) -> Statement | None:
        span = self.span(piece)
        children = [child for child in tree.children if not isinstance(child, str)]  # keywords are tokens
        match str(tree.data):
            case "setup":
                return self.setup(list(children[0].children), span)
            case "load":
                return self._load(_token(tree), children, piece)
            case "repartition":
                source, *options, table = children
                return Repartition(
                    source=self._name(source),
                    options=self.assignments(options),
                    table=self._name(table),
                    source_span=self.span([_token(source)]),
                    table_span=self.span([_token(table)]),
                    span=span,
                    notes=self.notes(piece),
                )
            case "run_llm":
                self._name(children[0])  # a table that nobody reads, but it is one
                return RunLLM(self.assignments(children[1:]), span, self.notes(piece))
            case "set_variable":
                found = self._assignment(children[0])
                if found and not re.fullmatch(r"[^\W\d]\w*", found.key):
                    self.problems.append((found.key_span, *faults.not_a_variable(found.key)))
                return SetVariable(found.key, found.value, found.value_span, span) if found else None
            case _:
                verb, name = str(tree.children[0]).split()[-1].lower(), _value(_token(children[0]))
                return ModelCommand(cast('Literal["remove", "exists"]', verb), name, span)

    def _load(self, source: Token, children: list[Tree[Token]], piece: list[Token]) -> Load:
        """Return the load whose source is `` format.`path` ``."""
        *options, table = children
        start, path = _start(source), source.index("`") + 1
        name = re.match(r"\w+", source)
        assert name is not None, "a source begins with its format"
        if path == len(source) - 1:
            self._problem([source], faults.no_path(name[0]))
        return Load(
            format=name[0],
            path=source[path:-1],
            options=self.assignments(options),
            table=self._name(table),
            format_span=self.lines.span(start, start + len(name[0])),
            path_span=self.lines.span(start + path, _end(source) - 1),
            table_span=self.span([_token(table)]),
            span=self.span(piece),
            notes=self.notes(piece),
        )

    def _name(self, node: Tree[Token]) -> str:
        """Return the name of a table; what is no name is a problem."""
        token = _token(node)
        if fault := faults.not_a_name(token):
            self._problem([token], faults.not_a_name(self._shown([token])[0]) or fault)
        return token.strip("`")

    def _assignment(self, node: Tree[Token]) -> Assignment | None:
        key, *value = node.children
        assert isinstance(key, str), "an assignment begins with its key"
        name = key.strip("`")
        if not value:
            self._problem([key], faults.no_value(self._shown([key])[0].strip("`")))
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
            self._problem([token], faults.no_setting(self._shown([token])[0][quote:-quote]))
            return None
        start, end = _start(token), _end(token)
        middle = start + quote + len(key)
        return Assignment(
            key.strip(),
            value.strip(),
            self.lines.span(start + quote, middle),
            self.lines.span(middle + 1, end - quote),
        )

    def _shown(self, tokens: list[Token]) -> list[Token]:
        """Return the tokens as a message may quote them: those that belong to a secret's value are starred."""
        shown = without_secrets(self.text)
        return [token.update(value=shown[_start(token) : _end(token)]) for token in tokens]

    def _problem(self, tokens: list[Token], fault: Fault) -> None:
        self.problems.append((self.span(tokens), *fault))


def _start(token: Token) -> int:
    assert token.start_pos is not None, "a token of the lexer has a place"
    return token.start_pos


def _end(token: Token) -> int:
    assert token.end_pos is not None, "a token of the lexer has a place"
    return token.end_pos


def _mode_word(node: Tree[Token] | Token | None) -> Token | None:
    return None if node is None or isinstance(node, str) or node.data != "mode" else _token(node)


def _token(node: Tree[Token]) -> Token:
    token = node.children[0]
    assert isinstance(token, str), "modes, values, names and sources are trees of one token"
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
