"""Full-text search: ``match`` as a criterion of ``find``, and how its results are ranked.

Ranking: Okapi BM25 (Robertson and Zaragoza, *The Probabilistic Relevance Framework: BM25 and Beyond*, 2009), with
k1 = 1.2, b = 0.75 and an idf that is never negative; each full-text field is a corpus of its own, and an object's score
is the sum over fields. A phrase, or all words with one beginning, count as one word.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from math import log
from typing import Any, NamedTuple

from pyroaring import BitMap64

from dbzero.errors import Error
from dbzero.model.declared import TEXT
from dbzero.model.deferred import resolved
from dbzero.query.expressions import All, Any_, Expression, Run, Step
from dbzero.query.fieldrecords import Field
from dbzero.query.textrecords import Postings, TextIndex
from dbzero.query.words import words

K1, B = 1.2, 0.75

_PARTS = re.compile(r'"([^"]*)"|([^\s"]+)')


class Term(NamedTuple):
    """One thing that a text must have: words one behind the other, the last of them only begun if `prefix`."""

    words: tuple[str, ...]
    prefix: bool

    def __str__(self) -> str:
        text = " ".join(self.words) + ("*" if self.prefix else "")
        return f'"{text}"' if len(self.words) > 1 else text


class Match:
    """What ``match`` returns: words to search for."""

    __slots__ = ("any", "fields", "terms")

    def __init__(self, terms: tuple[Term, ...], any: bool, fields: tuple[str, ...] | None) -> None:
        self.terms = terms
        self.any = any
        self.fields = fields

    def __repr__(self) -> str:
        return f"<match {' '.join(map(str, self.terms))}>"


def match(text: str, /, *, any: bool = False, fields: Collection[str] | None = None) -> Match:
    """A criterion of ``find``: the objects whose full-text fields (see ``fulltext``) have some words. The results come
    the best first (BM25) unless they are asked for in another order.

    Args:
        text: words, in any order and any of the fields. ``"in quotes"``: words one behind the other in one field;
            ``begin*``: words with that beginning. Case and accents make no difference.
        any: whether one of them is enough.
        fields: names of the fields to search in; None: in all.

    Raises:
        TypeError: `text` is no str, or `fields` no collection of str. Error: there is no word in it.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... @db0.fulltext("title", "body")
    ... class Page:
    ...     def __init__(self, title, body):
    ...         self.title, self.body = title, body
    >>> pages = db0.list([Page("Foxes", "The red fox eats mice."), Page("Mice", "A mouse fears every fox, and red foxes.")])
    >>> [page.title for page in db0.find(Page, db0.match("fox"))]
    ['Foxes', 'Mice']
    >>> [page.title for page in db0.find(db0.match('"red fox"'))], len(db0.find(db0.match("fox* mouse")))
    (['Foxes'], 1)
    >>> pages[0].body = "Nothing is left."
    >>> len(db0.find(db0.match("red fox")))
    1
    >>> db0.close()
    """
    if not isinstance(text, str):
        raise TypeError(f"match() takes a str, not {type(text).__name__}")
    if fields is not None and (isinstance(fields, str) or not all(isinstance(name, str) for name in fields)):
        raise TypeError("match() argument fields must be a collection of names")
    terms: list[Term] = []
    for quoted, plain in _PARTS.findall(text):
        found = words(quoted or plain)
        begun = plain.endswith("*")
        if quoted:
            terms.append(Term(tuple(found), False))
        else:
            terms += [Term((word,), begun and k == len(found) - 1) for k, word in enumerate(found)]
    terms = [term for term in dict.fromkeys(terms) if term.words]
    if not terms:
        raise Error(f"match() needs at least one word, there is none in {text!r}")
    return Match(tuple(terms), any, None if fields is None else tuple(sorted(set(fields))))


class Hits:
    """The texts of one field that have a term: OIDs, and how often."""

    __slots__ = ("bits", "chunks", "distinct")

    def __init__(self, chunks: list[tuple[Any, Any]], bits: BitMap64, distinct: bool = True) -> None:
        self.chunks = chunks  # (OIDs, ascending; frequencies) as they are stored
        self.distinct = distinct  # whether no OID comes twice
        self.bits = bits  # the OIDs


class Matched(Expression):
    """The objects whose texts match."""

    __slots__ = ("match",)
    operation = "match"

    def __init__(self, match: Match) -> None:
        self.match = match

    def form(self, exact: bool = True) -> tuple[Any, ...]:
        terms = tuple(sorted((term.words, term.prefix) for term in self.match.terms))
        return ("match", terms, self.match.any, () if self.match.fields is None else (self.match.fields,))

    def fields(self, run: Run) -> list[tuple[Field, TextIndex]]:
        """The text indexes to be searched in."""
        root = run.view.fields.root()
        names = self.match.fields
        return [
            (field, index)
            for field, index in ({} if root is None else root._data).items()
            if field[1] == TEXT and (names is None or field[2] in names)
        ]

    def hits(self, run: Run) -> list[list[Hits]]:
        """For each term, for each field, what was found. Kept with the run."""
        found: list[list[Hits]] | None = run.notes.get(id(self))
        if found is None:
            fields = self.fields(run)
            found = run.notes[id(self)] = [
                [_find(run, index, field, term) for field, index in fields] for term in self.match.terms
            ]
        return found

    def estimate(self, run: Run) -> int:
        counts = [sum(len(some.bits) for some in hits) for hits in self.hits(run)]
        return sum(counts) if self.match.any else min(counts)

    def evaluate(self, run: Run) -> BitMap64:
        unions = [BitMap64.union(BitMap64(), *[some.bits for some in hits]) for hits in self.hits(run)]
        combine: Callable[..., BitMap64] = BitMap64.union if self.match.any else BitMap64.intersection
        return unions[0] if len(unions) == 1 else combine(*unions)

    def scores(self, run: Run, wanted: BitMap64) -> dict[int, float]:
        """The scores of those of `wanted` that have any of the words."""
        scores: dict[int, float] = {}
        fields = self.fields(run)
        for hits in self.hits(run):
            for (_, index), some in zip(fields, hits, strict=True):
                n = len(some.bits)
                if not n or some.bits.isdisjoint(wanted):
                    continue
                state = index._data
                lengths = run.view.fields.lengths(index)
                idf = log(1 + (state.texts - n + 0.5) / (n + 0.5))
                flat, slope = K1 * (1 - B), K1 * B * state.texts / max(state.total, 1)
                top, length = idf * (K1 + 1), lengths.get
                gains = {
                    oid: top * freq / (freq + flat + slope * length(oid, 0))
                    for oid, freq in _frequencies(some, wanted).items()
                }
                if not scores:
                    scores = gains
                else:
                    for oid, gain in gains.items():
                        scores[oid] = scores.get(oid, 0.0) + gain
        return scores

    def step(self, run: Run) -> Step:
        made = super().step(run)
        for term, hits in zip(self.match.terms, self.hits(run), strict=True):
            n = len(BitMap64.union(BitMap64(), *[some.bits for some in hits]))
            kind = "phrase" if len(term.words) > 1 else "words from" if term.prefix else "word"
            made.steps.append(Step(kind, str(term), n, n, []))
        return made

    def detail(self) -> str:
        where = "" if self.match.fields is None else f" in {', '.join(self.match.fields)}"
        return ("any of " if self.match.any else "") + " ".join(map(str, self.match.terms)) + where


def rankings(expression: Expression) -> Iterator[Matched]:
    """The searches that have a say in the order of what an expression finds."""
    if type(expression) is Matched:
        yield expression
    elif isinstance(expression, (All, Any_)):
        for member in expression.members:
            yield from rankings(member)


def _find(run: Run, index: TextIndex, field: Field, term: Term) -> Hits:
    if len(term.words) == 1:
        leaves = list(index.postings(term.words[0], term.prefix))
        return Hits([(leaf.oids[k], leaf.freqs[k]) for leaf, k in leaves], _union(leaves), not term.prefix)
    candidates = BitMap64.intersection(*[_union(index.postings(word)) for word in term.words])
    counts = {oid: _count(resolved(run.view.fields.values(oid).get(field[2])), term.words) for oid in candidates}
    found = {oid: n for oid, n in counts.items() if n}
    return Hits([(list(found), list(found.values()))] if found else [], BitMap64(list(found)))


def _union(leaves: Iterable[tuple[Postings, int]]) -> BitMap64:
    return BitMap64.union(BitMap64(), *[leaf.bits_of(k) for leaf, k in leaves])


def _count(text: Any, phrase: Sequence[str]) -> int:
    """How often a phrase occurs in a text."""
    if not isinstance(text, str):
        return 0
    found = words(text)
    n = len(phrase)
    return sum(1 for k in range(len(found) - n + 1) if found[k] == phrase[0] and tuple(found[k : k + n]) == phrase)


def _frequencies(hits: Hits, wanted: BitMap64) -> dict[int, int]:
    """How often the term occurs in those of `wanted` that have it."""
    found: dict[int, int] = {}
    whole = hits.bits.issubset(wanted)
    targets = (hits.bits & wanted).to_array().tolist()
    for oids, freqs in hits.chunks:
        if whole:
            chosen = dict(zip(oids, freqs, strict=True))
        else:
            here = targets[bisect_left(targets, oids[0]) : bisect_right(targets, oids[-1])]
            if 4 * len(here) < len(oids):
                places = [bisect_left(oids, oid) for oid in here]
                chosen = {oid: freqs[at] for oid, at in zip(here, places, strict=True) if oids[at] == oid}
            else:
                every = dict(zip(oids, freqs, strict=True))
                chosen = {oid: every[oid] for oid in here if oid in every}
        if hits.distinct:
            found.update(chosen)
        else:
            for oid, freq in chosen.items():
                found[oid] = found.get(oid, 0) + freq
    return found
