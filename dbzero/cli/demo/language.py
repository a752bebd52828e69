"""The query language of the demo: text to a syntax tree. Knows nothing of dbzero.

::

    query   = either clause*
    either  = both ("or" both)*
    both    = item (["and"] item)*
    item    = "not" item | "(" either ")" | FIELD OP VALUE | PREFIX ":" NAME | KIND | LABEL
    OP      = ">" | ">=" | "<" | "<=" | "="          "=" takes a range too: lines=100..200, name=read*
    clause  = "sort" FIELD ["asc" | "desc"] ("," FIELD ["asc" | "desc"])* | "limit" NUMBER | "explain"
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

NUMBERS = ("lines", "arguments", "methods", "size")
FIELDS = (*NUMBERS, "name")
KINDS = ("module", "class", "function")
LABELS = {
    "method": "a function that stands in a class",
    "async": "a coroutine function",
    "property": "a method that is called without parentheses",
    "static": "a static method",
    "classmethod": "a class method",
    "decorated": "has any decorator",
    "documented": "has a docstring",
    "private": "its name begins with one underscore",
    "dunder": "its name is between double underscores",
    "nested": "stands in another class or function",
    "derived": "a class with a base class",
    "package": "a module that holds other modules",
}
PREFIXES = {
    "in": "stands in that module or package",
    "imports": "a module that imports that module",
    "base": "a class with a base class written like that, its last part is enough",
}
CLAUSES = ("sort", "limit", "explain")
RESERVED = ("and", "or", "not", *CLAUSES)
PLURALS = {"modules": "module", "classes": "class", "functions": "function"}
PLURALS |= {f"{word}s": word for word in ("method", "dunder", "package")} | {"properties": "property"}
LIMIT = 20  # results shown when nothing else is asked for


class QueryError(ValueError):
    """The text is no query. The message shows where, and what could stand there."""

    def __init__(self, text: str, at: int, what: str) -> None:
        super().__init__(f"{what}\n  {text}\n  {'^'.rjust(at + 1)}")


@dataclass(frozen=True)
class Word:
    """A kind of object, a label, or a label with a value."""

    text: str


@dataclass(frozen=True)
class Range:
    """A field between two bounds, each included or not; None: no bound."""

    field: str
    low: int | str | None
    high: int | str | None
    low_included: bool = True
    high_included: bool = True


@dataclass(frozen=True)
class Not:
    """All but these."""

    item: Node


@dataclass(frozen=True)
class Both:
    """What all of the items find."""

    items: tuple[Node, ...]


@dataclass(frozen=True)
class Either:
    """What any of the items finds."""

    items: tuple[Node, ...]


Node = Word | Range | Not | Both | Either


@dataclass
class Request:
    """A whole query. `where` None: everything."""

    where: Node | None = None
    order: list[tuple[str, bool]] = field(default_factory=list)  # (field, descending), the weightiest first
    limit: int = LIMIT
    explain: bool = False


@dataclass(frozen=True)
class _Token:
    kind: Literal["word", "op", "mark", "end"]
    text: str
    at: int


_TOKEN = re.compile(r"\s*(?:(?P<op>>=|<=|>|<|=)|(?P<mark>[(),])|(?P<word>[^\s()<>=,]+))")


def parse(text: str) -> Request:
    """The query that a text is.

    Args:
        text: words of the language, in one line.

    Raises QueryError.

    >>> parse("function not documented lines>=200 sort lines desc limit 3")
    Request(where=Both(items=(Word(text='function'), Not(item=Word(text='documented')), \
Range(field='lines', low=200, high=None, low_included=True, high_included=True))), order=[('lines', True)], \
limit=3, explain=False)
    """
    return _Parser(" ".join(text.split())).request()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[_Token] = []
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            assert match is not None and match.lastgroup is not None  # every character begins some token
            self.tokens.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))  # type: ignore[arg-type]
            at = match.end()
        self.tokens.append(_Token("end", "", len(text)))
        self.place = 0

    @property
    def token(self) -> _Token:
        return self.tokens[self.place]

    def next(self) -> _Token:
        token = self.token
        if token.kind != "end":
            self.place += 1
        return token

    def take(self, *texts: str) -> bool:
        if self.token.text.lower() in texts and self.token.kind != "end":
            self.place += 1
            return True
        return False

    def error(self, token: _Token, what: str) -> QueryError:
        return QueryError(self.text, token.at, what)

    # --- the grammar --------------------------------------------------------------------------------------------------

    def request(self) -> Request:
        request = Request()
        if not self._at_clause():
            request.where = self._either()
        seen: set[str] = set()
        while self._at_clause():
            token = self.next()
            clause = token.text.lower()
            if clause in seen:
                raise self.error(token, f"there is a {clause!r} already")
            seen.add(clause)
            if clause == "sort":
                request.order = self._order()
            elif clause == "limit":
                request.limit = self._limit()
            else:
                request.explain = True
        token = self.token
        if token.text == ")":
            raise self.error(token, "this ')' closes nothing")
        if token.kind != "end":
            raise self.error(
                token, f"{token.text!r} cannot stand here: after the clauses {_list(CLAUSES)} comes nothing else"
            )
        return request

    def _at_clause(self) -> bool:
        token = self.token
        return token.kind == "word" and token.text.lower() in CLAUSES

    def _either(self) -> Node:
        items = [self._both()]
        while self.take("or"):
            items.append(self._both())
        return items[0] if len(items) == 1 else Either(tuple(items))

    def _both(self) -> Node:
        items = [self._item()]
        while True:
            joined = self.take("and")
            token = self.token
            ends = token.kind == "end" or token.text == ")" or self._at_clause() or token.text.lower() == "or"
            if ends and not joined:
                return items[0] if len(items) == 1 else Both(tuple(items))
            items.append(self._item())

    def _item(self) -> Node:
        token = self.next()
        word = token.text.lower()
        if token.text == "(":
            inner = self._either()
            if not self.take(")"):
                raise self.error(self.token, "a ')' is missing here")
            return inner
        if word == "not":
            item = self._item()
            return item.item if isinstance(item, Not) else Not(item)
        if token.kind != "word" or word in RESERVED:
            missing = "the query ends" if token.kind == "end" else f"{token.text!r} stands"
            raise self.error(token, f"{missing} where a word, a comparison or a '(' is expected")
        if self.token.kind == "op":
            return self._comparison(token)
        if ":" in token.text:
            return self._valued(token)
        return Word(self._known(token, PLURALS.get(word, word), (*KINDS, *LABELS), "word"))

    def _valued(self, token: _Token) -> Word:
        name, _, value = token.text.partition(":")
        known = self._known(token, name.lower(), PREFIXES, "word with a colon")
        if not value:
            raise self.error(token, f"a name is missing after {name + ':'!r}, as in in:asyncio")
        return Word(f"{known}:{value}")

    def _known(self, token: _Token, word: str, known: Iterable[str], what: str) -> str:
        names = list(known)
        if word in names:
            return word
        if word in FIELDS:
            raise self.error(
                token, f"{word!r} is a field: compare it, as in {word}{'=a*' if word == 'name' else '>100'}"
            )
        close = difflib.get_close_matches(word, names, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {_list(names)}"
        raise self.error(token, f"unknown {what} {word!r}: {hint}")

    def _field(self, token: _Token) -> str:
        word = token.text.lower()
        if token.kind == "word" and word in FIELDS:
            return word
        close = difflib.get_close_matches(word, FIELDS, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {_list(FIELDS)}"
        raise self.error(
            token, f"unknown field {token.text!r}: {hint}" if token.text else f"a field is missing: {hint}"
        )

    def _comparison(self, token: _Token) -> Range:
        name = self._field(token)
        op = self.next().text
        value = self.next()
        if value.kind != "word":
            raise self.error(value, f"a value is missing after {name}{op}")
        if op != "=":
            bound = self._value(name, value, value.text)
            if op[0] == ">":
                return Range(name, bound, None, low_included=op == ">=")
            return Range(name, None, bound, high_included=op == "<=")
        if ".." in value.text:
            low, high = [self._value(name, value, end) if end else None for end in value.text.split("..", 1)]
            return Range(name, low, high)
        if name == "name" and value.text.endswith("*"):
            stem = value.text[:-1]
            return Range(name, stem, stem + "\U0010ffff")
        bound = self._value(name, value, value.text)
        return Range(name, bound, bound)

    def _value(self, name: str, token: _Token, text: str) -> int | str:
        if name == "name":
            return text
        plain = text.replace("_", "")
        if not (plain.isascii() and plain.isdigit() and len(plain) <= 18):
            raise self.error(token, f"{name} is a number, and {text!r} is none")
        return int(plain)

    def _order(self) -> list[tuple[str, bool]]:
        order: list[tuple[str, bool]] = []
        while True:
            token = self.next()
            name = self._field(token)
            if name in [other for other, _ in order]:
                raise self.error(token, f"sorted by {name} already")
            descending = self.take("desc")
            if not descending:
                self.take("asc")
            order.append((name, descending))
            if not self.take(","):
                return order

    def _limit(self) -> int:
        token = self.next()
        plain = token.text.replace("_", "")
        if not (plain.isascii() and plain.isdigit() and len(plain) <= 9 and int(plain)):
            raise self.error(token, "limit needs a number of results, at least 1")
        return int(plain)


def _list(words: Sequence[str]) -> str:
    return ", ".join(words)
