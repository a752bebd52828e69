"""Random programs: lists of steps in Python source, deterministic from a seed.

An operation is a name, a weight and a template. In the template ``{L}`` is a variable that holds a list, ``{=L}`` a new
one, ``{-L}`` one that is forgotten afterwards; ``{v}`` a value, ``{k}`` a key, and so on: see ``Program.fill``. To try
more of the interface, add operations, and a letter for each new kind of variable.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

# Kinds of variables: O memo object, P one with dynamic attributes, E an object with __eq__, L list, T tuple, D dict, S set,
# X index, B bytearray, W weak set, U uuid of an object, N a name of an object that U tells of.

OPERATIONS: list[tuple[str, int, str]] = [
    # --- memo objects
    ("memo.new", 6, "{=O} = Thing({n})"),
    ("memo.new.fields", 4, "{=O} = Thing({n}, {a}={v}, {a2}={v})"),
    ("memo.new.part", 2, "{=O} = Part({n}, {a}={v})"),
    ("memo.new.record", 2, "{=O} = Record({n}, {s})"),
    ("memo.new.record.bad", 1, "Record()"),
    ("memo.new.bad", 1, "Thing()"),
    ("memo.new.equal", 2, "{=O} = Equal({n}, {i})"),
    ("memo.set", 8, "{O}.{a} = {v}"),
    ("memo.set.bad", 1, "{O}.{a} = {bad}"),
    ("memo.get", 6, "{O}.{a}"),
    ("memo.del", 2, "del {O}.{a}"),
    ("memo.hasattr", 2, "hasattr({O}, '{a}')"),
    ("memo.vars", 2, "vars({O})"),
    ("memo.dict", 1, "{O}.__dict__"),
    ("memo.dir", 1, "sorted(name for name in dir({O}) if not name.startswith('__'))"),
    ("memo.method", 2, "{O}.double()"),
    ("memo.class", 2, "type({O})"),
    ("memo.isinstance", 1, "isinstance({O}, Thing)"),
    ("memo.classattr", 1, "{O}.kind"),
    ("memo.eq", 2, "{O} == {O}"),
    ("memo.ne", 1, "{O} != {O}"),
    ("memo.lt", 1, "{O} < {O}"),
    ("memo.is", 2, "{O}.{a} is {O}.{a}"),
    ("memo.hash", 1, "hash({O}) == hash({O})"),
    ("memo.pyset", 1, "len({{{O}, {O}}})"),
    ("memo.augment", 2, "{O}.n += 1"),
    ("memo.is_memo", 1, "db0.is_memo({any})"),
    ("memo.assign", 1, "db0.assign({O}, {O}, {a}={v})"),
    ("memo.touch", 1, "db0.touch({O})"),
    ("memo.touch.bad", 1, "db0.touch({any})"),
    ("memo.private", 1, "{O}._X__lock = object()"),
    ("memo.private.get", 1, "hasattr({O}, '_X__lock')"),
    ("memo.copy", 1, "__import__('copy').copy({O})"),
    ("memo.pickle", 1, "__import__('pickle').dumps({O})"),
    # --- identity, lifetime
    ("uuid", 2, "{=U} = db0.uuid({O})"),
    ("uuid.len", 1, "len(db0.uuid({O}))"),
    ("uuid.other", 1, "len(db0.uuid({any}))"),
    ("fetch", 2, "db0.fetch({U})"),
    ("fetch.is", 2, "db0.fetch(db0.uuid({O})) is {O}"),
    ("fetch.type", 1, "db0.fetch(db0.uuid({O}), {cls})"),
    ("fetch.bad", 1, "db0.fetch({s})"),
    ("exists", 3, "db0.exists({U})"),
    ("exists.type", 1, "db0.exists({U}, {cls})"),
    ("exists.bad", 1, "db0.exists({s})"),
    ("refcount", 4, "db0.getrefcount({O})"),
    ("refcount.bad", 1, "db0.getrefcount({any})"),
    ("forget", 3, "del {-any}"),
    ("delete", 1, "db0.delete({O})"),
    ("keep", 4, "keep('{any}')"),
    ("commit", 5, "db0.commit()"),
    ("collect", 1, "collect() is None"),
    ("reopen", 1, "reopen()"),
    ("state", 1, "db0.get_state_num()"),
    ("singleton", 2, "Config({i})"),
    ("singleton.none", 1, "Config()"),
    ("singleton.exists", 1, "db0.exists(Config)"),
    ("singleton.fetch", 1, "db0.fetch(Config)"),
    ("singleton.find", 1, "db0.find_singleton(Config)"),
    ("clear_cache", 1, "db0.clear_cache()"),
    # --- weak references
    ("weak.set", 2, "{O}.{a} = db0.weak_proxy({O})"),
    ("weak.append", 1, "{L}.append(db0.weak_proxy({O}))"),
    ("expired", 2, "db0.expired({O}.{a})"),
    ("expired.any", 1, "db0.expired({any})"),
    ("weakset.new", 1, "{=W} = db0.weak_set([{O}, {O}])"),
    ("weakset.add", 1, "{W}.add({O})"),
    ("weakset.add.bad", 1, "{W}.add({v})"),
    ("weakset.discard", 1, "{W}.discard({O})"),
    ("weakset.remove", 1, "{W}.remove({O})"),
    ("weakset.contains", 1, "{O} in {W}"),
    ("weakset.len", 1, "len({W})"),
    ("weakset.list", 1, "set({W})"),
    ("weakset.clear", 1, "{W}.clear()"),
    # --- lists
    ("list.new", 4, "{=L} = db0.list({q})"),
    ("list.new.bad", 1, "db0.list({i})"),
    ("list.show", 4, "{L}"),
    ("list.append", 5, "{L}.append({v})"),
    ("list.append.bad", 1, "{L}.append({bad})"),
    ("list.extend", 2, "{L}.extend({q})"),
    ("list.get", 3, "{L}[{i}]"),
    ("list.set", 2, "{L}[{i}] = {v}"),
    ("list.del", 2, "del {L}[{i}]"),
    ("list.pop", 1, "{L}.pop()"),
    ("list.pop.at", 1, "{L}.pop({i})"),
    ("list.remove", 2, "{L}.remove({v})"),
    ("list.insert", 1, "{L}.insert({i}, {v})"),
    ("list.index", 2, "{L}.index({v})"),
    ("list.count", 2, "{L}.count({v})"),
    ("list.contains", 2, "{v} in {L}"),
    ("list.len", 2, "len({L})"),
    ("list.bool", 1, "bool({L})"),
    ("list.slice", 2, "{L}[{i}:{i}]"),
    ("list.slice.step", 1, "{L}[::{step}]"),
    ("list.slice.set", 1, "{L}[{i}:{i}] = {q}"),
    ("list.slice.del", 1, "del {L}[{i}:{i}]"),
    ("list.picks", 1, "{L}[({i}, {i})]"),
    ("list.iter", 2, "[item for item in {L}]"),
    ("list.reversed", 1, "list(reversed({L}))"),
    ("list.clear", 1, "{L}.clear()"),
    ("list.copy", 1, "{=L} = {L}.copy()"),
    ("list.add", 1, "{L} + {q}"),
    ("list.add.type", 1, "type({L} + {L})"),
    ("list.mul", 1, "{L} * 2"),
    ("list.iadd", 1, "{L} += {q}"),
    ("list.eq", 1, "{L} == {q}"),
    ("list.eq.list", 1, "{L} == list({L})"),
    ("list.eq.other", 1, "{L} == {any}"),
    ("list.sort", 1, "{L}.sort()"),
    ("list.reverse", 1, "{L}.reverse()"),
    ("list.repr", 1, "repr(db0.list({atoms}))"),
    ("list.hash", 1, "hash({L})"),
    ("list.nested", 2, "{L}.append({L}[:])"),
    ("list.shared", 2, "{O}.{a} = {L}"),
    ("list.shared.is", 1, "{O}.{a} is {L}"),
    # --- tuples
    ("tuple.new", 2, "{=T} = db0.tuple({q})"),
    ("tuple.new.bad", 1, "db0.tuple({i})"),
    ("tuple.show", 2, "{T}"),
    ("tuple.get", 2, "{T}[{i}]"),
    ("tuple.count", 1, "{T}.count({v})"),
    ("tuple.index", 1, "{T}.index({v})"),
    ("tuple.contains", 1, "{v} in {T}"),
    ("tuple.len", 1, "len({T})"),
    ("tuple.iter", 1, "[item for item in {T}]"),
    ("tuple.set", 1, "{T}[{i}] = {v}"),
    ("tuple.eq", 1, "{T} == {q}"),
    ("tuple.eq.tuple", 1, "{T} == tuple({T})"),
    ("tuple.slice", 1, "{T}[{i}:{i}]"),
    ("tuple.add", 1, "{T} + (1,)"),
    ("tuple.hash", 1, "hash({T})"),
    ("tuple.repr", 1, "repr(db0.tuple({atoms}))"),
    # --- dicts
    ("dict.new", 4, "{=D} = db0.dict({m})"),
    ("dict.new.kw", 1, "{=D} = db0.dict({a}={v}, {a2}={v})"),
    ("dict.new.bad", 1, "db0.dict({i})"),
    ("dict.show", 4, "{D}"),
    ("dict.set", 5, "{D}[{k}] = {v}"),
    ("dict.set.badkey", 1, "{D}[{unhashable}] = {v}"),
    ("dict.set.bad", 1, "{D}[{k}] = {bad}"),
    ("dict.get", 3, "{D}[{k}]"),
    ("dict.get.default", 2, "{D}.get({k}, {atom})"),
    ("dict.del", 2, "del {D}[{k}]"),
    ("dict.pop", 2, "{D}.pop({k})"),
    ("dict.pop.default", 1, "{D}.pop({k}, {atom})"),
    ("dict.popitem", 1, "{D}.popitem()"),
    ("dict.setdefault", 2, "{D}.setdefault({k}, {v})"),
    ("dict.update", 2, "{D}.update({m})"),
    ("dict.contains", 2, "{k} in {D}"),
    ("dict.contains.bad", 1, "{unhashable} in {D}"),
    ("dict.len", 2, "len({D})"),
    ("dict.keys", 2, "sorted({D}.keys(), key=repr)"),
    ("dict.values", 1, "sorted({D}.values(), key=repr)"),
    ("dict.items", 1, "len(list({D}.items()))"),
    ("dict.items.in", 1, "({k}, {v}) in {D}.items()"),
    ("dict.copy", 1, "{=D} = {D}.copy()"),
    ("dict.fromkeys", 1, "{D}.fromkeys({atoms}, {v})"),
    ("dict.clear", 1, "{D}.clear()"),
    ("dict.eq", 1, "{D} == {m}"),
    ("dict.eq.dict", 1, "{D} == dict({D}.items())"),
    ("dict.eq.self", 1, "{D} == {D}"),
    ("dict.or", 1, "{D} | {m}"),
    ("dict.hash", 1, "hash({D})"),
    ("dict.shared", 2, "{O}.{a} = {D}"),
    ("dict.order", 1, "list({D})"),
    # --- sets
    ("set.new", 3, "{=S} = db0.set({ks})"),
    ("set.new.bad", 1, "db0.set({i})"),
    ("set.show", 3, "{S}"),
    ("set.add", 4, "{S}.add({k})"),
    ("set.add.bad", 1, "{S}.add({unhashable})"),
    ("set.remove", 2, "{S}.remove({k})"),
    ("set.discard", 1, "{S}.discard({k})"),
    ("set.pop", 1, "{S}.pop() is None"),
    ("set.contains", 2, "{k} in {S}"),
    ("set.len", 2, "len({S})"),
    ("set.iter", 1, "sorted({S}, key=repr)"),
    ("set.clear", 1, "{S}.clear()"),
    ("set.copy", 1, "{=S} = {S}.copy()"),
    ("set.update", 1, "{S}.update({ks})"),
    ("set.union", 1, "{S}.union({ks})"),
    ("set.difference", 1, "{S}.difference({ks})"),
    ("set.intersection", 1, "{S}.intersection({ks})"),
    ("set.symmetric", 1, "{S}.symmetric_difference({ks})"),
    ("set.or", 1, "{S} | set({ks})"),
    ("set.and", 1, "{S} & set({ks})"),
    ("set.sub", 1, "{S} - set({ks})"),
    ("set.xor", 1, "{S} ^ set({ks})"),
    ("set.or.bad", 1, "{S} | {ks}"),
    ("set.ior", 1, "{S} |= set({ks})"),
    ("set.issubset", 1, "{S}.issubset({ks})"),
    ("set.issuperset", 1, "{S}.issuperset({ks})"),
    ("set.isdisjoint", 1, "{S}.isdisjoint({ks})"),
    ("set.le", 1, "{S} <= set({ks})"),
    ("set.eq", 1, "{S} == set({ks})"),
    ("set.eq.set", 1, "{S} == set({S})"),
    ("set.hash", 1, "hash({S})"),
    ("set.shared", 1, "{O}.{a} = {S}"),
    # --- indexes
    ("index.new", 3, "{=X} = db0.index()"),
    ("index.add", 6, "{X}.add({i}, {O})"),
    ("index.add.none", 1, "{X}.add(None, {O})"),
    ("index.add.bad", 1, "{X}.add({i}, {atom})"),
    ("index.add.str", 1, "{X}.add({s}, {O})"),
    ("index.remove", 2, "{X}.remove({i}, {O})"),
    ("index.len", 2, "len({X})"),
    ("index.select", 3, "{X}.select({i}, {i})"),
    ("index.select.low", 1, "{X}.select({i}, None)"),
    ("index.select.high", 1, "{X}.select(None, {i}, null_first={b})"),
    ("index.select.all", 2, "set({X}.select())"),
    ("index.sort", 2, "[item.n for item in {X}.sort({X}.select({i}, {i}))]"),
    ("index.sort.desc", 1, "[item.n for item in {X}.sort({X}.select(), desc=True, null_first={b})]"),
    ("index.iter", 1, "[key for key, item in {X}]"),
    ("index.clear", 1, "{X}.clear()"),
    ("index.shared", 1, "{O}.{a} = {X}"),
    # --- bytearrays
    ("bytes.new", 2, "{=B} = db0.bytearray({y})"),
    ("bytes.show", 1, "{B}"),
    ("bytes.get", 1, "{B}[{i}]"),
    ("bytes.set", 1, "{B}[{i}] = {i}"),
    ("bytes.append", 1, "{B}.append({i})"),
    ("bytes.extend", 1, "{B}.extend([1, 2, {i}])"),
    ("bytes.len", 1, "len({B})"),
    ("bytes.find", 1, "{B}.find({y})"),
    ("bytes.count", 1, "{B}.count({y})"),
    ("bytes.upper", 1, "{B}.upper()"),
    ("bytes.replace", 1, "{B}.replace({y}, {y})"),
    ("bytes.split", 1, "len({B}.split({y}))"),
    ("bytes.startswith", 1, "{B}.startswith({y})"),
    ("bytes.strip", 1, "{B}.strip()"),
    ("bytes.eq", 1, "{B} == db0.bytearray({y})"),
    ("bytes.eq.bytes", 1, "{B} == {y}"),
    ("bytes.iter", 1, "list({B})"),
    ("bytes.shared", 1, "{O}.{a} = {B}"),
    # --- load, compare, hash, questions
    ("load", 3, "db0.load({any})"),
    ("load.exclude", 1, "db0.load({O}, exclude=['n'])"),
    ("load.exclude.bad", 1, "db0.load({O}, exclude={atom})"),
    ("load_all", 1, "db0.load_all({O})"),
    ("compare", 2, "db0.compare({O}, {O})"),
    ("compare.bad", 1, "db0.compare({O}, {atom})"),
    ("hash", 2, "type(db0.hash({hashed}))"),
    ("hash.equal", 1, "db0.hash({k}) == db0.hash({k})"),
    ("hash.bad", 1, "db0.hash({unhashable})"),
    ("prefix", 1, "db0.get_prefix_of({any}).name"),
    ("prefix.bad", 1, "db0.get_prefix_of({atom})"),
    ("get_type", 1, "db0.get_type({O})"),
    ("getattr_as", 1, "db0.getattr_as({O}, '{a}', Thing)"),
    ("is_singleton", 1, "db0.is_singleton({O})"),
    ("schema", 1, "sorted(db0.get_schema(Thing))"),
    ("attributes", 1, "sorted(item[0] for item in db0.get_attributes(Thing))"),
    # --- enums
    ("enum.member", 1, "Color[{i}]"),
    ("enum.eq", 1, "Color.RED == {v}"),
    ("enum.str", 1, "str({enum})"),
    ("enum.values", 1, "Color.values()"),
    ("enum.load", 1, "db0.load({enum})"),
    ("enum.hash", 1, "db0.hash({enum}) == db0.hash({enum})"),
    ("enum.set", 2, "{O}.{a} = {enum}"),
    ("enum.missing", 1, "Color.PINK"),
    ("enum.missing.item", 1, "Color['PINK']"),
    ("enum.callable", 1, "Color()"),
    ("enum.is", 1, "db0.is_enum_value({any})"),
]

PLACEHOLDER = re.compile(r"\{([=-]?)(\w+)\}")
KINDS = "OLTDSXBWU"
BIG = (1 << 63) - 1


@dataclass(frozen=True)
class Step:
    """One step: the operation it came from and its source."""

    operation: str
    source: str


class Program:
    """A random program under construction: which variables hold what."""

    def __init__(self, seed: int, length: int) -> None:
        self.rng = random.Random(seed)
        self.variables: dict[str, list[str]] = {kind: [] for kind in KINDS}
        self.kept: set[str] = set()
        self.count = 0
        self.objects = 0
        self.steps: list[Step] = []
        # What the original is known not to get right in ways that change all that follows stands in few programs.
        self.negative = self.rng.random() < 0.1
        self.misused = self.rng.random() < 0.1
        # A program keeps to a few families of operations, so that it gets somewhere.
        families = sorted({name.split(".")[0] for name, _, _ in OPERATIONS})
        common = {"memo", "commit", "keep", "refcount", "forget", "reopen", "uuid", "exists"}
        chosen = common | set(self.rng.sample(families, 4))
        self.operations = [
            op for op in OPERATIONS if op[0].split(".")[0] in chosen and (self.misused or "{unhashable}" not in op[2])
        ]
        weights = [weight for _, weight, _ in self.operations]
        while len(self.steps) < length:
            name, _, template = self.rng.choices(self.operations, weights)[0]
            self.add(name, template)

    # --- steps --------------------------------------------------------------------------------------------------------

    def add(self, name: str, template: str) -> None:
        """Append a step, preceded by what makes the variables that it needs."""
        for mark, what in PLACEHOLDER.findall(template):
            if mark != "=" and what in KINDS and not self.variables[what]:
                self.make(what)
            if what == "any" and not any(self.variables.values()):
                self.make("O")
        made: list[tuple[str, str]] = []
        gone: list[str] = []

        def fill(match: re.Match[str]) -> str:
            mark, what = match.groups()
            if mark == "=":
                self.count += 1
                made.append((what, f"v{self.count}"))
                return made[-1][1]
            text = self.fill(what)
            if mark == "-":
                gone.append(text)
            return text

        source = PLACEHOLDER.sub(fill, template).replace("{{", "{").replace("}}", "}")
        self.steps.append(Step(name, source))
        for kind, variable in made:
            self.variables[kind].append(variable)
        if name == "keep":
            self.kept.add(source[6:-2])
        if name == "reopen":
            for variables in self.variables.values():
                variables[:] = [variable for variable in variables if variable in self.kept]
        for variable in gone:
            for variables in self.variables.values():
                if variable in variables:
                    variables.remove(variable)

    def make(self, kind: str) -> None:
        """A step that makes a variable of a kind."""
        made = [op for op in OPERATIONS if f"{{={kind}}}" in op[2] and f"{{{kind}}}" not in op[2]]
        name, _, template = self.rng.choice(made)
        self.add(name, template)

    # --- what stands in a template ------------------------------------------------------------------------------------

    def fill(self, what: str) -> str:
        """Source for a placeholder."""
        if what in self.variables:
            # Mostly a recent one: programs go on with what they made.
            variables = self.variables[what]
            return self.rng.choice(variables[-4:])
        makers: dict[str, Callable[[], str]] = {
            "any": lambda: self.rng.choice([v for k, vs in self.variables.items() if k != "U" for v in vs] or ["R"]),
            "n": self.number,
            "i": lambda: repr(self.rng.choice([0, 0, 1, 1, 2, 3, 5, 8, -1, -2, 100])),
            "step": lambda: repr(self.rng.choice([1, 2, -1, -2, 3])),
            "b": lambda: repr(self.rng.random() < 0.5),
            "a": lambda: self.rng.choice("abc"),
            "a2": lambda: self.rng.choice("xyz"),
            "s": lambda: self.rng.choice(["''", "'a'", "'b'", "'text'", "'Żółw'", "'x' * 300"]),
            "y": lambda: repr(self.rng.choice([b"", b"a", b"abc", b" ab c ", b"aaa"])),
            "cls": lambda: self.rng.choice(["Thing", "Part", "Record", "Config"]),
            "enum": lambda: f"Color.{self.rng.choice(['RED', 'GREEN', 'BLUE'])}",
            "atom": self.atom,
            "atoms": lambda: self.several(self.atom, "[]"),
            "v": lambda: self.value(2),
            "bad": lambda: self.rng.choice(
                ["object()", "Plain()", "(i for i in ())", "lambda: 0", "len", "ValueError()", "[Plain()]"]
            ),
            "q": lambda: self.several(lambda: self.value(1), "[]"),
            "k": self.key,
            "ks": lambda: self.several(self.key, "[]"),
            "m": self.mapping,
            "unhashable": lambda: self.rng.choice(["[1]", "{}", "{1}", "db0.list()", "db0.dict()"]),
            "hashed": lambda: self.rng.choice([self.key(), self.atom(), f"({self.key()}, 1)"]),
        }
        return makers[what]()

    def number(self) -> str:
        self.objects += 1
        return str(self.objects)

    def several(self, make: Callable[[], str], brackets: str) -> str:
        return brackets[0] + ", ".join(make() for _ in range(self.rng.choice([0, 1, 2, 3, 3, 5]))) + brackets[1]

    def atom(self) -> str:
        pick = self.rng.randrange(12)
        if pick < 5:
            return repr(self.rng.choice([0, 1, 2, 3, 7, 100, BIG, -BIG, -5]))
        if pick < 8:
            return self.fill("s")
        return self.rng.choice(
            [
                *("None", "True", "False", "1.5", "-0.0", "float('inf')", "b'abc'", "b'\\x00a'"),
                *("Decimal('1.50')", "datetime.date(2020, 2, 29)", "datetime.datetime(2020, 1, 2, 3, 4, 5, 678901)"),
                *("datetime.time(1, 2, 3, 4)", "int", "Plain", "function", "Thing"),
            ]
        )

    def value(self, depth: int) -> str:
        pick = self.rng.randrange(20)
        if pick < 11 or depth <= 0:
            return self.atom()
        if pick < 14 and self.variables["O"]:
            return self.fill("O")
        if pick < 15:
            return self.fill("enum")
        if pick < 17:
            return self.several(lambda: self.value(depth - 1), "[]")
        if pick < 18:
            return f"({self.value(depth - 1)}, {self.value(depth - 1)})"
        if pick < 19:
            return self.mapping(depth - 1)
        return "set(" + self.several(self.key, "[]") + ")"

    def key(self) -> str:
        pick = self.rng.randrange(20)
        if pick < 8:
            return repr(self.rng.choice([0, 1, 2, 3, 7, 100]))
        if pick < 13:
            return self.fill("s")
        if pick < 15:
            return f"({self.rng.randrange(3)}, {self.fill('s')})"
        if pick < 16 and self.variables["O"]:
            return self.fill("O")
        return self.rng.choice(
            [
                "None",
                "True",
                "1.5",
                "b'abc'",
                "datetime.date(2020, 2, 29)",
                "Color.RED",
                "Color.BLUE",
                "-3" if self.negative else "4",
            ]
        )

    def mapping(self, depth: int = 1) -> str:
        items = [f"{self.key()}: {self.value(depth)}" for _ in range(self.rng.choice([0, 1, 2, 3]))]
        return "{" + ", ".join(items) + "}"


def program(seed: int, length: int = 25) -> list[Step]:
    """The program of a seed."""
    return Program(seed, length).steps
