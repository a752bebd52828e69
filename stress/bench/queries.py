"""One run, one table: tags, find and indexes on dbzero, plain Python sets, SQLite, and another implementation of the API.

Each contender runs in a process of its own, by turns, several times over; the fastest figure of each row counts. SQLite has a file in WAL mode with
synchronous=FULL, the indexes that the queries want, and gives sqlite3.Row objects; its tables hold as many rows as there are objects and tags. The other
implementation is whatever `import dbzero` finds under the interpreter given:

    python3 -m venv /tmp/peer && /tmp/peer/bin/pip install dbzero==0.7.0
    python stress/bench/queries.py --peer-python /tmp/peer/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from typing import Any

try:
    from sortedcontainers import SortedList
except ImportError:  # under the interpreter of the other implementation, which does not need it
    SortedList = None

REPEATS = 5
LONGEST = 1200  # seconds of one run of one contender
ROWS = {  # row -> (operations it is divided by, unit)
    "tag one object, commit included": "ns",
    "find one tag": "ns a result",
    "find class and two tags": "ns a result",
    "find one or other": "ns a result",
    "find one and no other": "ns a result",
    "len(find one tag)": "us",
    "len(find two tags)": "us",
    "index add, commit included": "ns",
    "range of 100": "ns a result",
    "find a tag in a range, 1 in 20": "ns a result",
    "sort, first 20": "us",
    "sort descending, first 20": "us",
    "group_by a function of attributes, nothing changed": "us",
    "change 100 objects, commit, group_by": "us",
    "group_by a function that calls others": "ns an object",
    "add one text of 10 words, commit included": "ns",
    "search a word, 1 in 100, first 20 by rank": "us",
    "search a common and a rare word, first 20 by rank": "us",
    "len(search a word, 1 in 7)": "us",
}
WORDS = 20_000  # of the texts, with frequencies by Zipf's law; word 100 stands in 1 of 100 texts, word 5 in 1 of 7


def decade(thing: Any) -> int:
    """A key for group_by that can't be told from the code to depend on nothing else."""
    return int(thing.number // 10 % 10)


class Plain:
    """Ordinary objects, a dict of sets, and a list that sortedcontainers keeps sorted."""

    def __init__(self, root: str, n: int) -> None:
        class Thing:
            def __init__(self, number: int) -> None:
                self.number = number

        self.objects = [Thing(i) for i in range(n)]
        self.sets: dict[str, set[Any]] = {}
        self.sorted: Any = SortedList()  # of (key, number of an object)

    def tag(self, numbers: range, tag: str) -> None:
        chosen = self.sets.setdefault(tag, set())
        for number in numbers:
            chosen.add(self.objects[number])

    def index(self, keys: list[int]) -> None:
        for number, key in enumerate(keys):
            self.sorted.add((key, number))

    def ready(self) -> None:
        self.everything = set(self.objects)

    def close(self) -> None:
        pass

    def one(self) -> Any:
        return list(self.sets["ten"])

    def both(self) -> Any:
        return list(self.everything & self.sets["ten"] & self.sets["seven"])

    def either(self) -> Any:
        return list(self.sets["ten"] | self.sets["seven"])

    def without(self) -> Any:
        return list(self.sets["ten"] - self.sets["seven"])

    def count_one(self) -> int:
        return len(self.sets["ten"])

    def count_two(self) -> int:
        return len(self.sets["ten"] & self.sets["seven"])

    def span(self, low: int, high: int) -> Any:
        return [self.objects[number] for _, number in self.sorted.irange((low, -1), (high, 1 << 60))]

    def tag_in_span(self, low: int, high: int) -> Any:
        return list(self.sets["ten"].intersection(self.span(low, high)))

    def top(self, desc: bool) -> Any:
        found = []
        for _, number in reversed(self.sorted) if desc else self.sorted:
            if self.objects[number] in self.sets["ten"]:
                found.append(self.objects[number])
                if len(found) == 20:
                    break
        return found

    def grouped(self) -> Any:
        return Counter(thing.number // 10 % 10 for thing in self.sets["ten"])

    def change(self) -> None:
        for thing in self.objects[:1000:10]:
            thing.number += 10

    def grouped_freely(self) -> Any:
        return Counter(decade(thing) for thing in self.sets["ten"])


class DbZero:
    """Whatever `import dbzero` finds."""

    def __init__(self, root: str, n: int) -> None:
        import dbzero as db0

        @db0.memo
        class Thing:
            def __init__(self, number: int) -> None:
                self.number = number

        @db0.memo(singleton=True)
        class Root:
            def __init__(self) -> None:
                self.things = db0.list()
                self.index = db0.index()

        db0.init(root, autocommit=False)
        db0.open("bench", "rw")
        self.db0, self.cls, self.root = db0, Thing, Root()
        for i in range(n):
            self.root.things.append(Thing(i))
        db0.commit()
        self.objects = list(self.root.things)
        self.ix = self.root.index

    def tag(self, numbers: range, tag: str) -> None:
        tags, objects = self.db0.tags, self.objects
        for number in numbers:
            tags(objects[number]).add(tag)
        self.db0.commit()

    def index(self, keys: list[int]) -> None:
        add = self.ix.add
        for key, obj in zip(keys, self.objects, strict=True):
            add(key, obj)
        self.db0.commit()

    def texts(self, texts: list[str]) -> None:
        db0 = self.db0

        @db0.memo
        @db0.fulltext("text")
        class Text:
            def __init__(self, text: str) -> None:
                self.text = text

        self.text = Text
        self.kept = db0.list([Text(text) for text in texts])
        db0.commit()

    def search(self, words: str) -> Any:
        return list(self.db0.find(self.text, self.db0.match(words))[:20])

    def count_search(self, words: str) -> int:
        return len(self.db0.find(self.text, self.db0.match(words)))

    def ready(self) -> None:
        pass

    def close(self) -> None:
        self.db0.close()

    def one(self) -> Any:
        return list(self.db0.find("ten"))

    def both(self) -> Any:
        return list(self.db0.find(self.cls, "ten", "seven"))

    def either(self) -> Any:
        return list(self.db0.find(["ten", "seven"]))

    def without(self) -> Any:
        return list(self.db0.find("ten", self.db0.no("seven")))

    def count_one(self) -> int:
        return len(self.db0.find("ten"))

    def count_two(self) -> int:
        return len(self.db0.find("ten", "seven"))

    def span(self, low: int, high: int) -> Any:
        return list(self.ix.select(low, high))

    def tag_in_span(self, low: int, high: int) -> Any:
        return list(self.db0.find("ten", self.ix.select(low, high)))

    def top(self, desc: bool) -> Any:
        return list(self.ix.sort(self.db0.find("ten"), desc=desc)[:20])

    def grouped(self) -> Any:
        return self.db0.group_by(lambda thing: thing.number // 10 % 10, self.db0.find("ten"))

    def change(self) -> None:
        for thing in self.objects[:1000:10]:
            thing.number += 10
        self.db0.commit()

    def grouped_freely(self) -> Any:
        return self.db0.group_by(decade, self.db0.find("ten"))


class SQLite:
    """Two tables and three indexes."""

    def __init__(self, root: str, n: int) -> None:
        self.db = sqlite3.connect(os.path.join(root, "bench.sqlite"))
        self.db.row_factory = sqlite3.Row
        self.db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
            "CREATE TABLE thing (id INTEGER PRIMARY KEY, number INTEGER, rank INTEGER);"
            "CREATE TABLE tag (name TEXT, id INTEGER, PRIMARY KEY (name, id)) WITHOUT ROWID;"
            "CREATE INDEX tag_of ON tag (id);"
            "CREATE INDEX ranked ON thing (rank);"
        )
        self.db.executemany("INSERT INTO thing VALUES (?, ?, NULL)", ((i, i) for i in range(n)))
        self.db.commit()

    def tag(self, numbers: range, tag: str) -> None:
        for number in numbers:
            self.db.execute("INSERT INTO tag VALUES (?, ?)", (tag, number))
        self.db.commit()

    def index(self, keys: list[int]) -> None:
        for number, key in enumerate(keys):
            self.db.execute("UPDATE thing SET rank = ? WHERE id = ?", (key, number))
        self.db.commit()

    def texts(self, texts: list[str]) -> None:
        self.db.execute("CREATE VIRTUAL TABLE texts USING fts5(text)")
        self.db.executemany("INSERT INTO texts VALUES (?)", ((text,) for text in texts))
        self.db.commit()

    def search(self, words: str) -> Any:
        return self.rows("SELECT text FROM texts WHERE texts MATCH ? ORDER BY rank LIMIT 20", words)

    def count_search(self, words: str) -> int:
        return int(self.rows("SELECT COUNT(*) FROM texts WHERE texts MATCH ?", words)[0][0])

    def ready(self) -> None:
        self.db.execute("ANALYZE")

    def close(self) -> None:
        self.db.close()

    def rows(self, query: str, *values: Any) -> Any:
        return self.db.execute(query, values).fetchall()

    def one(self) -> Any:
        return self.rows("SELECT o.* FROM tag t JOIN thing o ON o.id = t.id WHERE t.name = 'ten'")

    def both(self) -> Any:
        return self.rows(
            "SELECT o.* FROM tag a JOIN tag b ON b.id = a.id AND b.name = 'seven' JOIN thing o ON o.id = a.id WHERE a.name = 'ten'"
        )

    def either(self) -> Any:
        return self.rows("SELECT * FROM thing WHERE id IN (SELECT id FROM tag WHERE name IN ('ten', 'seven'))")

    def without(self) -> Any:
        return self.rows(
            "SELECT o.* FROM tag t JOIN thing o ON o.id = t.id WHERE t.name = 'ten' AND NOT EXISTS "
            "(SELECT 1 FROM tag u WHERE u.name = 'seven' AND u.id = t.id)"
        )

    def count_one(self) -> int:
        return int(self.rows("SELECT COUNT(*) FROM tag WHERE name = 'ten'")[0][0])

    def count_two(self) -> int:
        query = "SELECT COUNT(*) FROM tag a JOIN tag b ON b.id = a.id AND b.name = 'seven' WHERE a.name = 'ten'"
        return int(self.rows(query)[0][0])

    def span(self, low: int, high: int) -> Any:
        return self.rows("SELECT * FROM thing WHERE rank BETWEEN ? AND ?", low, high)

    def tag_in_span(self, low: int, high: int) -> Any:
        return self.rows(
            "SELECT o.* FROM tag t JOIN thing o ON o.id = t.id WHERE t.name = 'ten' AND o.rank BETWEEN ? AND ?",
            low,
            high,
        )

    def top(self, desc: bool) -> Any:
        order = "DESC" if desc else "ASC"
        return self.rows(
            "SELECT o.* FROM thing o WHERE rank IS NOT NULL AND EXISTS (SELECT 1 FROM tag t WHERE t.name = 'ten' AND t.id = o.id) "
            f"ORDER BY rank {order} LIMIT 20"
        )

    def grouped(self) -> Any:
        query = (
            "SELECT o.number / 10 % 10, COUNT(*) FROM tag t JOIN thing o ON o.id = t.id WHERE t.name = 'ten' GROUP BY 1"
        )
        return self.rows(query)

    def change(self) -> None:
        self.db.execute("UPDATE thing SET number = number + 10 WHERE id < 1000 AND id % 10 = 0")
        self.db.commit()

    def grouped_freely(self) -> Any:
        return self.grouped()  # it has no functions to call


CONTENDERS: dict[str, Any] = {"plain": Plain, "dbzero": DbZero, "peer": DbZero, "sqlite": SQLite}


def measure(name: str, n: int) -> dict[str, float]:
    """All rows of one contender, once."""
    random.seed(1)
    keys = random.sample(range(10 * n), n)
    with tempfile.TemporaryDirectory() as root:
        api = CONTENDERS[name](root, n)
        rows: dict[str, float] = {}

        def once(row: str, operations: int, work: Callable[[], Any]) -> None:
            started = time.perf_counter()
            work()
            rows[row] = (time.perf_counter() - started) / operations * 1e9

        def best(row: str, work: Callable[[], Any], operations: int = 0) -> None:
            work()
            warm = time.perf_counter()
            size = work()  # to know how many there are, and how long it takes
            warm = time.perf_counter() - warm
            divisor = operations or max(len(size), 1)
            loops = max(1, min(2000 // divisor, int(0.2 / warm)))
            times = []
            for _ in range(REPEATS):
                started = time.process_time()
                for _ in range(loops):
                    work()
                times.append((time.process_time() - started) / loops)
            rows[row] = min(times) / divisor * (1e6 if ROWS[row] == "us" else 1e9)

        once("tag one object, commit included", n, lambda: api.tag(range(n), "all"))
        api.tag(range(0, n, 10), "ten")
        api.tag(range(0, n, 7), "seven")
        once("index add, commit included", n, lambda: api.index(keys))
        api.ready()
        best("find one tag", api.one)
        best("find class and two tags", api.both)
        best("find one or other", api.either)
        best("find one and no other", api.without)
        best("len(find one tag)", lambda: api.count_one(), 1)
        best("len(find two tags)", lambda: api.count_two(), 1)
        low = 3 * n
        best("range of 100", lambda: api.span(low, low + 1000))
        best("find a tag in a range, 1 in 20", lambda: api.tag_in_span(low, low + n // 2))
        best("sort, first 20", lambda: api.top(False), 1)
        best("sort descending, first 20", lambda: api.top(True), 1)
        best("group_by a function of attributes, nothing changed", api.grouped, 1)

        def regroup() -> Any:
            api.change()
            return api.grouped()

        best("change 100 objects, commit, group_by", regroup, 1)
        try:
            best("group_by a function that calls others", api.grouped_freely, n // 10)
        except Exception as error:  # the other implementation wants a lambda
            print(error, file=sys.stderr)
        if name in ("dbzero", "sqlite"):
            weights = list(accumulate(1 / (k + 1) for k in range(WORDS)))
            texts = [
                " ".join(f"word{k}" for k in random.choices(range(WORDS), cum_weights=weights, k=10)) for _ in range(n)
            ]
            once("add one text of 10 words, commit included", n, lambda: api.texts(texts))
            best("search a word, 1 in 100, first 20 by rank", lambda: api.search("word100"), 1)
            best("search a common and a rare word, first 20 by rank", lambda: api.search("word1 word50"), 1)
            best("len(search a word, 1 in 7)", lambda: api.count_search("word5"), 1)
        api.close()
        return rows


def run(python: str, name: str, n: int) -> dict[str, float]:
    """One run of one contender in a process of its own."""
    environment = None
    if python != sys.executable:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [python, os.path.abspath(__file__), "--child", name, "--objects", str(n)]
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        print(f"{name} took more than {LONGEST} s: left out", file=sys.stderr)
        return {}
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    rows: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", metavar="PATH", help="interpreter with another implementation of the API")
    parser.add_argument("--objects", type=int, default=100_000, help="how many objects there are")
    parser.add_argument("--runs", type=int, default=3, help="turns of each contender")
    parser.add_argument("--child", choices=sorted(CONTENDERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.objects)))
        return 0
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    contenders = {"plain": sys.executable, "dbzero": sys.executable, "sqlite": sys.executable}
    if options.peer_python:
        contenders["peer"] = options.peer_python
    found: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for _ in track(range(options.runs), description="Measuring", console=Console(stderr=True)):
        for name, python in contenders.items():
            found[name].append(run(python, name, options.objects))
    nan = float("nan")  # what a contender has nothing for
    results = {name: {row: min(one.get(row, nan) for one in runs) for row in ROWS} for name, runs in found.items()}
    table = Table(title=f"{options.objects:,} objects; rows that only compute are processor time", title_justify="left")
    for column in ("work", "unit", *results, *[f"{name} / dbzero" for name in results if name != "dbzero"]):
        table.add_column(column, justify="left" if column in ("work", "unit") else "right")
    for row, unit in ROWS.items():
        ours = results["dbzero"][row]
        cells = [
            "-"
            if figures[row] != figures[row]
            else f"{figures[row]:,.1f}"
            if figures[row] < 100
            else f"{figures[row]:,.0f}"
            for figures in results.values()
        ]
        ratios = [
            "-" if figures[row] != figures[row] else f"{figures[row] / ours:.2f}"
            for name, figures in results.items()
            if name != "dbzero"
        ]
        table.add_row(row, unit, *cells, *ratios)
    Console(width=max(130, Console().width)).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
