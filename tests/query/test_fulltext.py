"""Full-text search: words, ranking, and that the postings follow the texts."""

from __future__ import annotations

import gc
import random
from collections import Counter
from math import log
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import dbzero as db0
from dbzero.model import scope
from dbzero.query.check import check_index
from dbzero.query.words import words


@db0.memo(id="fulltext-page")
@db0.fulltext("title", "body")
class Page:
    def __init__(self, title: Any = None, body: Any = None) -> None:
        self.title = title
        self.body = body


@db0.memo(id="fulltext-note")
class Note(Page):
    pass


def titles(*criteria: Any) -> list[str]:
    return [page.title for page in db0.find(*criteria)]


def reopen(root: str, mode: str = "rw") -> None:
    db0.close()
    db0.init(root, autocommit=False)
    db0.open("main", mode)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("The red-fox, it's 42!", ["the", "red", "fox", "it", "s", "42"]),
        ("Café CAFÉ cafe\u0301", ["cafe"] * 3),
        ("Straße STRASSE", ["strasse"] * 2),
        ("snake_case", ["snake", "case"]),
        ("ﬁne ½", ["fine", "1", "2"]),
        ("Ελλάδα Москва 東京", ["ελλαδα", "москва", "東京"]),
        ("x" * 150, ["x" * 100]),
    ],
)
def test_words(text: str, found: list[str]) -> None:
    assert words(text) == found


@given(st.text())
@example("ı")  # its upper case is I, whose lower case is i: another letter
def test_words_are_settled(text: str) -> None:
    for word in words(text):
        assert words(word) == [word] == words(word.casefold())
        if word.upper().casefold() == word:
            assert words(word.upper()) == [word]


def test_search(store: str) -> None:
    kept = db0.list(
        [
            Page("Foxes", "The quick red fox jumps over the lazy dog."),
            Page("Dogs", "A dog is no fox; a fox is no dog. Fox!"),
            Note("Mice", "Mäuse fürchten den Fuchs. Foxy, isn't it?"),
            Page("Nothing"),
        ]
    )
    db0.tags(kept[0], kept[2]).add("old")
    assert titles(db0.match("fox")) == ["Dogs", "Foxes"] and titles(Note, db0.match("fox")) == []
    assert set(titles(db0.match("FOX*"))) == {"Foxes", "Dogs", "Mice"}
    assert titles(Page, db0.match("mause"), "old") == ["Mice"] and titles(db0.match("fox"), db0.no("old")) == ["Dogs"]
    assert titles(db0.match("red dog")) == ["Foxes"] and set(titles(db0.match("red mice", any=True))) == {
        "Foxes",
        "Mice",
    }
    assert titles(db0.match('"red fox"')) == ["Foxes"] and titles(db0.match('"fox red"')) == []
    assert titles(db0.match("dogs", fields=["title"])) == ["Dogs"] and titles(db0.match("dogs", fields=["body"])) == []
    assert titles(db0.match("dogs fox")) == ["Dogs"], "the words may stand in different fields"
    assert titles(Page, db0.no(db0.match("fox"))) == ["Nothing", "Mice"]
    assert titles([db0.match("nothing"), db0.match("mice")], "old") == ["Mice"]
    query = db0.find(Page, db0.match("fox"))
    assert (
        len(query) == 2
        and bool(query)
        and query[0] is kept[1]
        and query[-1] is kept[0]
        and list(query[1:]) == [kept[0]]
    )
    assert kept[0] in query and kept[2] not in query and db0.find(query, "old").first() is kept[0]
    plan = str(query.explain())
    assert "the best for fox first" in plan and "match fox: 2 estimated, 2 found" in plan and "word fox" in plan
    assert list(db0.deserialize(db0.serialize(query))) == list(query)
    assert db0.getrefcount(kept[0]) == 2  # the list, and a tag
    kept[1].body = "no more"
    assert titles(db0.match("fox")) == ["Foxes"]
    del kept[0].body
    assert titles(db0.match("fox")) == [] and titles(db0.match("foxes")) == ["Foxes"]
    db0.delete(kept.pop())
    kept[1].title = None
    reopen(store, "r")
    assert titles(db0.match("nothing")) == [] and titles(db0.match("more")) == [None]


def test_refused(store: str) -> None:
    page = Page()
    for value in (5, ["a"], b"x"):
        with pytest.raises(TypeError, match="full-text"):
            page.title = value
    assert page.title is None
    for bad in ("", "...", '""'):
        with pytest.raises(db0.Error, match="word"):
            db0.match(bad)
    for wrong in (
        lambda: db0.match(5),
        lambda: db0.match("a", fields="title"),
        lambda: db0.fulltext(),
        lambda: db0.fulltext(5),
    ):
        with pytest.raises(TypeError):
            wrong()
    assert len(db0.find(db0.match("anything"))) == 0


def test_ranking_is_bm25(store: str) -> None:
    rng = random.Random(5)
    vocabulary = [f"w{n}" for n in range(30)]
    texts = [" ".join(rng.choices(vocabulary, k=rng.randint(1, 30))) for _ in range(150)]
    kept = db0.list([Page(str(n), text) for n, text in enumerate(texts)])
    counts = [Counter(text.split()) for text in texts]
    mean = sum(map(len, map(str.split, texts))) / len(texts)

    def score(n: int, query: str) -> float:
        total = 0.0
        for word in query.split():
            df = sum(1 for some in counts if word in some)
            tf = counts[n][word]
            idf = log(1 + (len(texts) - df + 0.5) / (df + 0.5))
            total += idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * counts[n].total() / mean))
        return total

    for query in ("w1", "w2 w3", "w4 w5 w6"):
        should = [n for n in range(len(texts)) if all(word in counts[n] for word in query.split())]
        should.sort(key=lambda n: (-round(score(n, query), 9), -n))
        found = [int(page.title) for page in db0.find(Page, db0.match(query, fields=["body"]))]
        assert found == should
        assert [int(page.title) for page in db0.find(db0.match(query, fields=["body"]))[:3]] == should[:3]
    assert len(kept) == 150


def test_blocks_and_snapshots(store: str) -> None:
    page = Page("one", "red fox")
    kept = db0.list([page])
    db0.commit()
    past = db0.snapshot()
    with pytest.raises(ZeroDivisionError), db0.atomic():
        page.body = "blue bird"
        kept.append(Page("two", "red bird"))
        assert titles(db0.match("bird red")) == ["two"] and titles(db0.match("fox")) == []
        raise ZeroDivisionError
    assert titles(db0.match("fox")) == ["one"] and titles(db0.match("bird")) == []
    page.body = "green fox"
    db0.commit()
    assert titles(db0.match("red")) == []
    assert [found.body for found in past.find(Page, db0.match("red fox"))] == ["red fox"]
    assert len(past.find(db0.match("green"))) == 0
    past.close()


def test_fields_declared_later(root: str) -> None:
    def declare(*names: str) -> Any:
        class Plain:
            def __init__(self, title: Any, body: Any) -> None:
                self.title, self.body = title, body

        return db0.memo(id="fulltext-later")(db0.fulltext(*names)(Plain) if names else Plain)

    db0.init(root, autocommit=False)
    db0.open("main")
    plain = declare()
    kept = db0.list([plain("red fox", "blue bird"), plain("white bear", None)])
    db0.tags(kept[0], kept[1]).add("all")
    reopen(root)
    both = declare("title", "body")
    assert titles(db0.match("fox bird")) == ["red fox"] and titles(both, db0.match("bear")) == ["white bear"]
    reopen(root)
    one = declare("title")
    assert titles(one, db0.match("bird")) == [] and titles(one, db0.match("fox")) == ["red fox"]
    reopen(root)
    none = declare()
    assert titles(db0.match("fox")) == [] == titles(none, db0.match("fox"))
    reopen(root)
    assert titles(declare("title"), db0.match("fox")) == ["red fox"]


vocabulary = ("a", "ab", "abc", "b", "ba", "c", "Ä", "é", "straße", "word")
texts = st.one_of(st.none(), st.lists(st.sampled_from(vocabulary), max_size=12).map(" ".join))
steps = st.lists(
    st.tuples(
        st.sampled_from(("add", "title", "body", "unset", "remove", "commit", "reopen", "revert", "many")),
        st.integers(0, 200),
        texts,
        texts,
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(steps=steps)
def test_programs(tmp_path_factory: pytest.TempPathFactory, steps: list[Any]) -> None:
    root = str(tmp_path_factory.mktemp("fulltext"))
    db0.init(root, autocommit=False)
    db0.open("main")
    model: dict[int, list[Any]] = {}
    kept: Any = db0.dict()
    holder = Holder(kept)
    number = 0
    for kind, which, first, second in steps:
        place = sorted(model)[which % len(model)] if model else None
        if kind == "add" or place is None:
            number += 1
            kept[number] = Page(first, second)
            model[number] = [first, second]
        elif kind == "many":
            for k in range(which):
                number += 1
                kept[number] = Page(first, f"{second} n{k % 7} x{k}")
                model[number] = [first, f"{second} n{k % 7} x{k}"]
        elif kind in ("title", "body"):
            setattr(kept[place], kind, first)
            model[place][kind == "body"] = first
        elif kind == "unset" and hasattr(kept[place], "title"):
            del kept[place].title
            model[place][0] = None
        elif kind == "remove":
            del model[place], kept[place]
            gc.collect()
            db0.commit()
        elif kind == "commit":
            db0.commit()
        elif kind == "reopen":
            reopen(root)
            holder = Holder(None)
            kept = holder.kept
        elif kind == "revert":
            with pytest.raises(ZeroDivisionError), db0.atomic():
                kept[place].title = first
                kept[place].body = second
                kept[0] = Page(second, first)
                assert db0.find(Page, db0.match("a")) is not None and len(db0.find(db0.match("a b"))) >= 0
                raise ZeroDivisionError
        for query in ("a", "ab b", "a*", '"a b"', "strasse A", "n3"):
            assert {page for page in db0.find(Page, db0.match(query))} == {
                kept[n] for n, fields in model.items() if matches(fields, query)
            }, query
    db0.commit()
    assert check_index(scope.current_view(True)) == []
    db0.close()


@db0.memo(id="fulltext-holder", singleton=True)
class Holder:
    def __init__(self, kept: Any) -> None:
        self.kept = kept


def matches(fields: list[Any], query: str) -> bool:
    found = [words(text or "") for text in fields]
    if query.startswith('"'):
        wanted = words(query)
        return any(some[k : k + len(wanted)] == wanted for some in found for k in range(len(some)))
    if query.endswith("*"):
        return any(word.startswith(query[:-1]) for some in found for word in some)
    return all(any(word in some for some in found) for word in words(query))
