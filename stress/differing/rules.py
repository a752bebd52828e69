"""What explains a difference between ours and the original. Each rule quotes the facts document: the description, by
sections, of what the original does and of where a user expects otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .programs import Step

Outcome = list[Any]


@dataclass(frozen=True)
class Difference:
    """One step whose outcomes differ; `theirs` is None when the original did not live to answer."""

    steps: list[Step]  # up to and with this one
    ours: Outcome
    theirs: Outcome | None
    end: str  # how the original ended
    builtin: Outcome | None = None  # what the builtin collections come to

    @property
    def operation(self) -> str:
        return self.steps[-1].operation

    @property
    def source(self) -> str:
        return self.steps[-1].source

    @property
    def before(self) -> str:
        """All source before this step."""
        return "\n".join(step.source for step in self.steps[:-1])


@dataclass(frozen=True)
class Rule:
    """An explanation. `parts`: what comes after may differ as a consequence, so the comparison of the program ends."""

    name: str
    facts: str
    applies: Callable[[Difference], bool]
    parts: bool = True


def same(ours: Outcome, theirs: Outcome) -> bool:
    """Whether two outcomes agree: equal values, or an exception of ours that handlers of the original's catch."""
    if ours[0] != theirs[0]:
        return False
    if ours[0] == "raised":
        return theirs[1][0] in ours[1]
    return bool(ours == theirs)


def canonical(value: Any) -> Any:
    """A plain form with the kinds of tuples that keys and elements come back as made one, and unordered content sorted anew."""
    if not isinstance(value, list):
        return value
    value = [canonical(item) for item in value]
    if value and value[0] == "Tuple":
        value[0] = "tuple"
    if value and value[0] in ("set", "Set", "dict", "Dict", "query") and len(value) == 2 and isinstance(value[1], list):
        value[1] = sorted(value[1], key=repr)
    return value


BUILTIN_KINDS = {"List": "list", "Tuple": "tuple", "Dict": "dict", "Set": "set", "ByteArray": "bytearray"}


def builtin_form(value: Any) -> Any:
    """A plain form with collections as the builtin ones."""
    if not isinstance(value, list):
        return value
    value = canonical([builtin_form(item) for item in value])
    if value and isinstance(value[0], str):
        value[0] = BUILTIN_KINDS.get(value[0], value[0])
    if value and value[0] == "bytearray" and len(value) == 2:
        value[1] = str(value[1]).removeprefix("bytearray(").removesuffix(")")
    return value


def unordered(value: Any) -> Any:
    """A plain form in which the order of no list counts."""
    return sorted((unordered(item) for item in value), key=repr) if isinstance(value, list) else value


def raised(outcome: Outcome | None, kind: str, text: str = "") -> bool:
    """Whether an outcome is an exception of exactly that class, with a message in which the pattern is found."""
    return bool(outcome and outcome[0] == "raised" and outcome[1][0] == kind and re.search(text, outcome[2]))


def works(outcome: Outcome | None, value: Any = ...) -> bool:
    """Whether an outcome is a value (that one)."""
    return bool(outcome and outcome[0] == "value" and (value is ... or outcome[1] == value))


def op(*names: str) -> Callable[[Difference], bool]:
    """The step is one of these operations; a name that ends in a dot stands for the family."""
    return lambda d: any(d.operation == name or (name[-1] == "." and d.operation.startswith(name)) for name in names)


RULES = [
    Rule(
        "the original ends the process",
        "general rule: upstream aborts the whole interpreter (SIGABRT, SIGSEGV) in several places, or hangs; DEFECT",
        lambda d: d.theirs is None,
    ),
    Rule(
        "tuples as keys and elements",
        "6, 7: keys and elements that are tuples come back as db0 Tuple and compare equal to builtin tuples",
        lambda d: canonical(d.ours) == canonical(d.theirs),
        parts=False,
    ),
    Rule(
        "methods that are missing",
        "4, 5, 6, 7, 7a: methods missing upstream, EXPECT provided (all standard operations are supported)",
        lambda d: raised(
            d.theirs, "AttributeError", r"'(dbzero\.)?(List|Tuple|Dict|Set|ByteArray)' object has no attribute"
        ),
    ),
    Rule(
        "slices that are missing",
        "4, 5: slice assignment and deletion, slices of tuples missing upstream, EXPECT supported",
        lambda d: (
            op("list.slice", "list.slice.step", "list.slice.set", "list.slice.del", "tuple.slice")(d)
            and raised(d.theirs, "TypeError", "sequence index must be integer")
        ),
    ),
    Rule(
        "operators that are missing",
        "5, 6, 7: + and slices of tuples, | of dicts missing upstream, EXPECT supported",
        lambda d: (
            op("tuple.add", "dict.or", "list.add", "list.iadd", "set.")(d)
            and raised(d.theirs, "TypeError", "unsupported operand type")
        ),
    ),
    Rule(
        "an index is not iterable",
        "8: iteration in order of keys is required by the seed, 0.7.0 does not implement it",
        lambda d: op("index.iter")(d) and raised(d.theirs, "TypeError", "not iterable"),
        parts=False,
    ),
    Rule(
        "negative ints as keys",
        "6: negative ints raise as keys upstream; 10.9: db0.hash of negative ints raises OverflowError; DEFECT, EXPECT work",
        lambda d: raised(d.theirs, "OverflowError", "negative int") or raised(d.theirs, "TypeError", "negative int"),
    ),
    Rule(
        "dicts that are equal",
        "6: db0 dicts compare unequal with db0 dicts and with tuple keys upstream, EXPECT equal",
        lambda d: (
            op("dict.eq", "dict.eq.self", "dict.eq.dict", "list.eq.", "list.eq", "tuple.eq.", "tuple.eq")(d)
            and works(d.ours, ["bool", "True"])
            and works(d.theirs, ["bool", "False"])
        ),
        parts=False,
    ),
    Rule(
        "entries of an index count at once",
        "8, 9.1: 0.7.0 counts an index entry's reference only after flush, query or commit; EXPECT at once",
        lambda d: (
            op("refcount")(d)
            and re.search(r"\.(add|remove)\(|\.clear\(", d.before) is not None
            and "db0.index" in d.before
        ),
    ),
    Rule(
        "bytes out of range",
        "7a: values outside 0..255 wrap upstream, EXPECT ValueError",
        lambda d: op("bytes.")(d) and raised(d.ours, "ValueError", "range") and works(d.theirs),
    ),
    Rule(
        "positions of a bytearray",
        "7a: index out of range is RuntimeError upstream, which also breaks iteration; EXPECT IndexError",
        lambda d: (
            op("bytes.")(d) and raised(d.theirs, "RuntimeError") and (raised(d.ours, "IndexError") or works(d.ours))
        ),
    ),
    Rule(
        "bytearrays that are equal",
        "7a: 0.7.0 returns False against bytes and bytearray, EXPECT True",
        lambda d: (
            op("bytes.eq.bytes", "bytes.eq")(d)
            and works(d.ours, ["bool", "True"])
            and works(d.theirs, ["bool", "False"])
        ),
        parts=False,
    ),
    Rule(
        "negative ints as keys, later",
        "6: negative ints as keys upstream; in a constructor the OverflowError shows as SystemError (2), and the entry is lost; DEFECT, EXPECT work",
        lambda d: "-3" in d.before + d.source,
    ),
    Rule(
        "unhashable elements",
        "7: 0.7.0 add([1]) raises yet inserts the list; nothing must be added",
        lambda d: re.search(r"\.add\((\[1\]|\{\}|\{1\}|db0\.list\(\)|db0\.dict\(\))\)", d.before) is not None,
    ),
    Rule(
        "missing in a list or tuple",
        "4, 5: list.remove, list.index and tuple.index of what is missing raise RuntimeError upstream, EXPECT ValueError",
        lambda d: (
            op("list.remove", "list.index", "tuple.index")(d)
            and raised(d.ours, "ValueError")
            and raised(d.theirs, "RuntimeError", "not in a list")
        ),
        parts=False,
    ),
    Rule(
        "missing in a dict",
        "6: del of a missing key is silent upstream; DEFECT, EXPECT KeyError",
        lambda d: op("dict.del")(d) and raised(d.ours, "KeyError") and works(d.theirs),
        parts=False,
    ),
    Rule(
        "order of a dict",
        "6: upstream orders by key hash, EXPECT insertion order",
        lambda d: (
            op("dict.order", "dict.popitem")(d)
            and works(d.ours)
            and works(d.theirs)
            and sorted(map(repr, d.ours[1][1])) == sorted(map(repr, d.theirs[1][1]))
        ),
        parts=False,
    ),
    Rule(
        "pop at a place",
        "4: pop(i) moves the last element into slot i and rejects negative i; DEFECT, EXPECT Python order",
        lambda d: op("list.pop.at")(d) or re.search(r"\.pop\(-?\d+\)", d.before) is not None,
    ),
    Rule(
        "text of a short collection",
        "3: one-element tuple prints (1), empty set prints {}; DEFECT, EXPECT builtin text",
        lambda d: op("tuple.repr", "set.repr")(d) and works(d.ours) and works(d.theirs),
        parts=False,
    ),
    Rule(
        "what an update returns",
        "7: update works as of the builtin, which returns None (the same behaviours as the builtin)",
        lambda d: op("set.update")(d) and works(d.ours, ["NoneType", "None"]) and works(d.theirs),
        parts=False,
    ),
    Rule(
        "instances of derived classes",
        "1.9, 10.2, 10.3: an expected type is that class or a base of the object's",
        lambda d: op("exists.type", "fetch.type")(d) and works(d.ours),
        parts=False,
    ),
    Rule(
        "wrong index types",
        "4: wrong index type is RuntimeError upstream, EXPECT TypeError",
        lambda d: op("list.", "tuple.")(d) and raised(d.ours, "TypeError") and raised(d.theirs, "RuntimeError"),
        parts=False,
    ),
    Rule(
        "operators with what is no set",
        "7: operators need set-like operands (TypeError for list); 0.7.0 lets |= with a list pass",
        lambda d: op("set.or.bad")(d) and raised(d.ours, "TypeError"),
        parts=False,
    ),
    Rule(
        "deleting a missing attribute",
        "1.4: 0.7.0 silently accepts a second del of an attribute, EXPECT AttributeError",
        lambda d: op("memo.del")(d) and raised(d.ours, "AttributeError") and works(d.theirs),
        parts=False,
    ),
    Rule(
        "user-defined hashes",
        "1.5: 0.7.0 keeps the identity hash even if the class defines its own, EXPECT it honoured",
        lambda d: op("memo.pyset", "memo.hash")(d) and "Equal(" in d.before,
        parts=False,
    ),
    Rule(
        "deep comparison",
        "10.7: 0.7.0 compares members by storage cell; DEFECT, EXPECT deep comparison of values",
        lambda d: op("compare")(d) and works(d.ours, ["bool", "True"]) and works(d.theirs, ["bool", "False"]),
        parts=False,
    ),
    Rule(
        "loading bytes",
        "10.8: 0.7.0 raises RuntimeError for bytes, EXPECT bytes returned",
        lambda d: op("load", "load_all", "load.exclude")(d) and raised(d.theirs, "RuntimeError", "bytes"),
        parts=False,
    ),
    Rule(
        "times with microseconds",
        "2: datetimes lose precision upstream; EXPECT exact",
        lambda d: "678901" in d.before + d.source and repr(d.ours).replace("678901", "678000") == repr(d.theirs),
        parts=False,
    ),
    Rule(
        "strings and bytes with NUL, decimals",
        "2: upstream truncates str at NUL and alters decimals; EXPECT exact round trip",
        lambda d: works(d.ours) and works(d.theirs) and ("\\\\x00" in repr(d.ours) or "Decimal" in repr(d.ours)),
        parts=False,
    ),
    Rule(
        "references that were not released",
        "9.2: list.pop, list.remove, set.pop and replacing a dict value do not release the reference in 0.7.0; 1.3: nor does a failed constructor; DEFECT",
        lambda d: (
            op("refcount", "exists", "exists.type", "fetch", "expired", "weakset.", "memo.get", "delete")(d)
            and re.search(
                r"\.(pop|remove|setdefault|update)\(|\]\s*=|Thing\(\d+, .*(object|Plain|lambda|len|Error)\(?", d.before
            )
            is not None
        ),
    ),
    Rule(
        "sets with tuples",
        "3, 7: elements that are tuples come back as db0 Tuple, which Python cannot hash; so upstream's operators lose them or raise",
        lambda d: (
            op("set.")(d)
            and re.search(r"\(\d, '", d.before + d.source) is not None
            and (works(d.ours) or raised(d.theirs, "TypeError", "Tuple"))
        ),
        parts=False,
    ),
    Rule(
        "negative numbers of any size as keys",
        "6: negative ints raise TypeError as keys; DEFECT, EXPECT work",
        lambda d: raised(d.theirs, "TypeError", "hash function for key of type: int") and "-" in d.source,
    ),
    Rule(
        "attributes that were never stored",
        "10.6: attributes ever used by (stored) instances of the class; one that was deleted before its first commit was not stored",
        lambda d: op("attributes")(d) and "del " in d.before and works(d.ours) and works(d.theirs),
        parts=False,
    ),
    Rule(
        "copies",
        "1.5: copy, deepcopy and pickle of a memo raise TypeError",
        lambda d: op("memo.copy", "memo.pickle")(d) and raised(d.ours, "TypeError"),
        parts=False,
    ),
    Rule(
        "enum values out of range",
        "11: E[i] by position, out of range an error",
        lambda d: op("enum.member")(d) and raised(d.ours, "IndexError"),
        parts=False,
    ),
    Rule(
        "missing enum values",
        "11: E['X'] is RuntimeError if absent, EXPECT KeyError-like",
        lambda d: op("enum.missing.item")(d) and raised(d.ours, "UnknownEnumValueError"),
        parts=False,
    ),
    Rule(
        "keys of an index",
        "8: 0.7.0 takes int, date, datetime, time and Decimal only; EXPECT float, str and bytes too",
        lambda d: (
            op("index.add.str")(d)
            and works(d.ours)
            and raised(d.theirs, "RuntimeError", "key type|Expected an integer")
        ),
    ),
    Rule(
        "which element a set pops",
        "7: sets are unordered",
        lambda d: ".pop() is None" in d.before and (op("set.")(d) or works(d.ours)),
    ),
    Rule(
        "identity of plain values",
        "2: values are read back as new equal objects (bytes, str, numbers); only None, bool, containers and objects are the same",
        lambda d: op("memo.is")(d) and works(d.ours, ["bool", "True"]),
        parts=False,
    ),
    Rule(
        "as the builtin does",
        "4 to 7a: behaviour of the builtin counterparts; the seed: all standard operations are supported",
        lambda d: (
            op("list.", "tuple.", "dict.", "set.", "bytes.")(d)
            and d.builtin is not None
            and same(builtin_form(d.ours), builtin_form(d.builtin))
        ),
    ),
    Rule(
        "lists that are extended in place",
        "4: += and *= rebind to a new list upstream; in place is fine (7: so do the in-place operators of sets)",
        lambda d: re.search(r"v\d+ (\+|\*|\|)= ", d.before) is not None and works(d.ours),
    ),
    Rule(
        "order of a loaded set",
        "10.8: a set is loaded as a list; 7: sets are unordered",
        lambda d: (
            op("load", "load_all", "load.exclude")(d)
            and works(d.ours)
            and works(d.theirs)
            and unordered(d.ours) == unordered(d.theirs)
        ),
        parts=False,
    ),
    Rule(
        "gone after the next commit",
        "9.2: what loses its last reference is gone after the next commit; upstream drops it earlier",
        lambda d: (
            op("exists", "exists.type", "fetch", "fetch.type")(d)
            and works(d.ours)
            and (raised(d.theirs, "ReferenceError") or works(d.theirs, ["bool", "False"]))
            and ("clear()" in d.before or "= None" in d.before or "del " in d.before)
        ),
    ),
    Rule(
        "schemas follow deletions",
        "10.6: counts follow updates and deletions of objects and attributes",
        lambda d: (
            op("schema")(d) and works(d.ours) and works(d.theirs) and ("del " in d.before or "reopen()" in d.before)
        ),
        parts=False,
    ),
    Rule(
        "classes that were never stored",
        "10.6: a class that was never stored: RuntimeError; 1.3: what fails in its constructor creates nothing",
        lambda d: op("schema", "attributes")(d) and raised(d.ours, "ClassNotFoundError"),
        parts=False,
    ),
    Rule(
        "comparing deleted objects",
        "9.3: == of a deleted object works",
        lambda d: (
            op("memo.eq", "memo.ne", "memo.pyset", "memo.hash")(d)
            and works(d.ours)
            and raised(d.theirs, "ReferenceError")
        ),
        parts=False,
    ),
    Rule(
        "states without changes",
        "4.1 (processes): a commit without changes does not advance; the quirk with unreferenced objects is not to be copied",
        lambda d: op("state")(d) and d.before.count("db0.commit()") > 1,
        parts=False,
    ),
    Rule(
        "setting attributes of deleted objects",
        "9.3: setting an attribute of a deleted object is an AttributeError",
        lambda d: op("memo.private", "memo.set", "memo.augment")(d) and raised(d.ours, "ExpiredError"),
        parts=False,
    ),
    Rule(
        "attributes of any type at any time",
        "1.4: any attribute may be changed at any time and its type may change freely; 1.3: it may be the object itself",
        lambda d: (
            op("memo.")(d)
            and d.builtin is not None
            and works(d.ours)
            and "db0.commit()" in d.before
            and (same(builtin_form(d.ours), builtin_form(d.builtin)) or op("memo.assign")(d))
        ),
    ),
    Rule(
        "prefixes of collections",
        "10.5: get_prefix_of takes memo instances, collections, enum values, queries",
        lambda d: op("prefix")(d) and works(d.ours, ["str", "'main'"]),
        parts=False,
    ),
    Rule(
        "hashes that collide",
        "10.9: equal content has equal hashes; that different content collides is not promised",
        lambda d: op("hash.equal")(d) and works(d.ours, ["bool", "False"]),
        parts=False,
    ),
    Rule(
        "members of weak sets that are gone",
        "9.6: len, iteration and in skip expired members; upstream takes what stands at their address by now for them",
        lambda d: (
            op("weakset.list", "weakset.len", "weakset.contains")(d)
            and works(d.ours)
            and ("reopen()" in d.before or "del " in d.before or "db0.delete" in d.before)
        ),
        parts=False,
    ),
    Rule(
        "deleted objects are expired",
        "9.3, 9.4: a deleted object has expired; expired() is False for live objects",
        lambda d: op("expired.any", "expired")(d) and "db0.delete" in d.before and works(d.ours, ["bool", "True"]),
        parts=False,
    ),
    Rule(
        "what a dropped collection held",
        "9.2: what loses its last reference is gone after the next commit, and then what it referred to; upstream drops it earlier",
        lambda d: (
            op("refcount", "refcount.bad")(d)
            and works(d.ours)
            and works(d.theirs)
            and int(d.ours[1][1]) > int(d.theirs[1][1])
            and re.search(r"\.\w = |del |clear|pop|remove|^\s*v\d+ [*+] ", d.before, re.MULTILINE) is not None
        ),
    ),
    Rule(
        "deleted objects are of no use",
        "9.3: afterwards attribute reads, storing, tagging and whatever else is done with a deleted object raise",
        lambda d: (
            op("memo.touch", "memo.touch.bad", "index.add", "memo.isinstance", "weakset.discard")(d)
            and "db0.delete" in d.before
            and (
                raised(d.ours, "ExpiredError")
                or raised(d.theirs, "ReferenceError", "expired")
                or raised(d.theirs, "RuntimeError", "not initialized")
            )
        ),
    ),
    Rule(
        "attributes that were deleted and set again",
        "1.4: vars gives the stored attributes, re-assignment after a deletion is allowed; upstream's vars misses such ones",
        lambda d: op("memo.dict")(d) and works(d.ours) and works(d.theirs) and "del " in d.before,
        parts=False,
    ),
    Rule(
        "attributes that one side does not have",
        "10.7: adding an attribute on one side makes them differ; upstream overlooks it (members by storage cell, DEFECT)",
        lambda d: op("compare")(d) and works(d.ours, ["bool", "False"]) and works(d.theirs, ["bool", "True"]),
        parts=False,
    ),
    Rule(
        "deleted attributes are not loaded",
        "1.4, 10.8: load gives the stored attributes; one that was deleted is none of them",
        lambda d: (
            op("load", "load_all", "load.exclude")(d)
            and works(d.ours)
            and raised(d.theirs, "AttributeError", "has no attribute")
            and "del " in d.before
        ),
        parts=False,
    ),
    Rule(
        "internal errors of the original's schema",
        "10.6: get_schema is computed from the instances; general rule: do not reproduce internal errors",
        lambda d: (
            op("schema")(d) and works(d.ours) and raised(d.theirs, "RuntimeError", r"Index \(\d+,\d+\) not found")
        ),
        parts=False,
    ),
    Rule(
        "internal errors of the original's uuid",
        "general rule: do not reproduce internal errors (1.6: upstream runs truncated copies of bytecode)",
        lambda d: raised(d.theirs, "ValueError", "co_code is malformed"),
    ),
    Rule(
        "hash of what is not listed",
        "10.9: hash supports the values listed there, others raise RuntimeError; functions are none of them",
        lambda d: op("hash")(d) and raised(d.ours, "Error", "function") and works(d.theirs, ["class", "int"]),
        parts=False,
    ),
    Rule(
        "several keys of one object, sorted",
        "8: one output per occurrence in the input",
        lambda d: (
            op("index.sort", "index.sort.desc")(d)
            and works(d.ours)
            and works(d.theirs)
            and len(d.ours[1][1]) < len(d.theirs[1][1])
            and {repr(item) for item in d.ours[1][1]} == {repr(item) for item in d.theirs[1][1]}
        ),
        parts=False,
    ),
    Rule(
        "what nothing referred to at the end goes with a commit of its own",
        "4.6, 9.2: after reopening it can be found until the next commit that collects it, which makes a state",
        lambda d: (
            op("state")(d)
            and "reopen()" in d.before
            and works(d.ours)
            and works(d.theirs)
            and int(d.ours[1][1]) == int(d.theirs[1][1]) + 1
        ),
        parts=False,
    ),
]


def explain(difference: Difference) -> Rule | None:
    """The first rule that applies."""
    return next((rule for rule in RULES if rule.applies(difference)), None)
