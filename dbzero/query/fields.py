"""What declared fields feed: tags, indexes and full text that follow the objects by themselves.

A change of a declared field is noted with the value before it; nothing stored changes at once. :meth:`FieldBuffer.flush`
makes the difference between the values then and now to the stored trees: before a commit, and before anything that has
to see it. So no state is kept for each object, and one that is changed ten times is looked at once.

Which fields a prefix follows stands in a root of its own (:mod:`dbzero.query.fieldrecords`). A class is *applied* in a
view before its first object is changed there: fields that were declared since are read from all its stored objects,
those that are declared no longer are dropped. All of it runs under the operation lock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from pyroaring import BitMap64

from dbzero.collections.nodes import corrupt, touch
from dbzero.collections.order import place, refuse
from dbzero.errors import MigrateError, UnsupportedTypeError
from dbzero.model import base, kinds
from dbzero.model.base import operation
from dbzero.model.catalog import NO_DEFAULT_TAGS, unpack_name
from dbzero.model.codec import decode_values, read_varint
from dbzero.model.declared import INDEXED, MISSING, TAG, TEXT, Plan, checks, plan_of
from dbzero.model.deferred import Deferred, resolved
from dbzero.model.enums import EnumValue, EnumValueRepr
from dbzero.model.instances import instances
from dbzero.model.memo import MemoObject, class_info
from dbzero.model.view import View
from dbzero.model.weak import is_handle, stored_identity
from dbzero.query.atoms import stored_key, tag_atom
from dbzero.query.fieldrecords import ROOT_OID, Field, FieldRoot, make_root, new_index
from dbzero.query.records import names as tag_names
from dbzero.query.records import passive_key
from dbzero.query.tagindex import EMPTY, TagIndex
from dbzero.query.textrecords import LENGTHS, MOST, Posting, TextIndex, new_text_index
from dbzero.query.words import frequencies

Values = dict[str, Any]


class FieldBuffer:
    """The declared fields of a view's objects."""

    def __init__(self, view: View) -> None:
        self.view = view
        view.fields = self
        self._pending: dict[int, tuple[Any, Values]] = {}  # id of an object -> it, values before
        self._applied: set[type] = set()
        self._families: dict[Field, str] = {}  # of keys that were assigned since the last look at the index
        self._lengths: dict[int, dict[int, int]] = {}
        self._root: FieldRoot | None = None
        self._fields_of: dict[int, list[Field]] = {}  # class OID -> fields of its objects that are followed

    # --- what changes -------------------------------------------------------------------------------------------------

    def note(self, obj: Any, name: str, old: Any) -> None:
        """A declared field of an object is about to change."""
        if type(obj) not in self._applied:
            self.apply(type(obj))
        entry = self._pending.get(id(obj))
        if entry is None:
            entry = self._pending[id(obj)] = (obj, {})
        entry[1].setdefault(name, old)

    def pending(self) -> bool:
        """Whether fields changed since the last flush."""
        return bool(self._pending) and any(not obj._p_flags & base.INIT for obj, _ in self._pending.values())

    def flush(self) -> None:
        """Make what was noted to the stored trees."""
        if not self._pending or not self.view.writable:
            return
        self._families.clear()
        waiting, self._pending = self._pending, {}
        changes = Changes(self)
        for key, (obj, old) in waiting.items():
            flags = obj._p_flags
            if flags & base.EXPIRED:
                continue  # its construction failed; what was deleted was told by removed()
            fields = base.state(obj)
            if flags & base.INIT or any(_unborn(fields.get(name)) for name in old):
                self._pending[key] = obj, old
                continue
            changes.change(obj._p_oid, self.fields_of(self.view.class_code(obj)), {**fields, **old}, fields)
        changes.make()

    def taken(self, objects: Sequence[Any]) -> None:
        """A commit has taken objects that were made after the flush before it."""
        self.flush()

    def removed(self, oids: Sequence[int]) -> Callable[[], None] | None:
        """Objects are being deleted: what their fields say goes. Returns what puts it back, if there is anything."""
        root = self.root()
        if root is None or not root._data:
            return None
        gone = Changes(self)
        back = Changes(self)
        for oid, code in self._classes(oids):
            fields = self.fields_of(code)
            if fields:
                values = self.values(oid)
                gone.change(oid, fields, values, {})
                back.change(oid, fields, {}, values)
        gone.make()
        return back.make if gone else None

    def _classes(self, oids: Sequence[int]) -> Iterator[tuple[int, int]]:
        """(OID, class OID) of those objects whose fields may be followed."""
        view = self.view
        index: TagIndex = view.tag_index
        catalogue = view.catalogue
        codes = [] if catalogue is None else [code for _, code in catalogue.items() if self.fields_of(code)]
        rest = BitMap64(oids)
        for code in codes:
            if not view.class_record(code).data.flags & NO_DEFAULT_TAGS:
                hits = rest & index.members(code)
                rest -= hits
                yield from [(oid, code) for oid in hits]
        if any(view.class_record(code).data.flags & NO_DEFAULT_TAGS for code in codes) or len(rest) <= 64:
            yield from [(oid, code) for oid in rest if (code := index.code_of(oid))]

    def discard(self) -> None:
        """The view's objects are those of an earlier state again, in which nothing was pending that was finished."""
        self._pending = {key: entry for key, entry in self._pending.items() if entry[0]._p_flags & base.INIT}
        self._forget()

    def changed(self, oids: Collection[int] | None) -> None:
        """The view moves to a state in which these records are others."""
        self._lengths.clear()
        if oids is None or ROOT_OID in oids:
            self._forget()

    def _forget(self) -> None:
        self._applied.clear()
        self._families.clear()
        self._fields_of.clear()
        self._lengths.clear()
        self._root = None

    # --- what is there ------------------------------------------------------------------------------------------------

    def root(self) -> FieldRoot | None:
        """The stored root, or None while the prefix has none."""
        found = self._root
        if found is None or found._p_flags & base.EXPIRED:
            view = self.view
            found = view.peek(ROOT_OID)
            if found is None:
                if view.records.read(ROOT_OID, view.state) is None:
                    return None
                found = view.ghost(FieldRoot, ROOT_OID)
            if type(found) is not FieldRoot:
                raise corrupt(found, "not the root of declared fields")
            self._root = found
        return found

    def passive(self) -> bool:
        """Whether any tags are given by fields."""
        root = self.root()
        return root is not None and any(sort == TAG for _, sort, _ in root._data)

    def find(self, field: Field) -> Any:
        """The index of a followed field, a field index or a text index; None: there is none."""
        root = self.root()
        return None if root is None else root._data.get(field)

    def follows(self, field: Field) -> bool:
        """Whether a field is followed here."""
        root = self.root()
        return root is not None and field in root._data

    def fields_of(self, code: int) -> list[Field]:
        """The followed fields of the objects of a class."""
        found = self._fields_of.get(code)
        if found is None:
            root = self.root()
            if root is None:
                return []
            codes = {code, *self.view.class_record(code).data.bases}
            found = self._fields_of[code] = [field for field in root._data if field[0] in codes]
        return found

    def lengths(self, tree: TextIndex) -> dict[int, int]:
        """The lengths in words of all texts of a text index, by OID. Not to be changed."""
        found = self._lengths.get(tree._p_oid)
        if found is None:
            found = self._lengths[tree._p_oid] = {}
            for leaf, k in tree.postings(LENGTHS):
                found.update(zip(leaf.oids[k], leaf.freqs[k], strict=True))
        return found

    def known_lengths(self, tree: TextIndex) -> dict[int, int] | None:
        """The same if they are in memory, to be kept right by who changes them."""
        return self._lengths.get(tree._p_oid)

    def values(self, oid: int) -> Values:
        """The attributes of an object as they are now; loads nothing."""
        view = self.view
        obj = view.peek(oid)
        if obj is not None and not obj._p_flags & (base.GHOST | base.EXPIRED):
            return dict(base.state(obj))
        found = view.records.read(oid, view.state)
        return {} if found is None else stored_values(view, oid, found[0])

    # --- applying what classes declare --------------------------------------------------------------------------------

    def apply(self, cls: type, forced: bool = False) -> None:
        """Follow what a class declares, and no more than that, from now on.

        Args:
            forced: also where that has to be done by ``migrate`` only.

        Raises MigrateError when a stored object has a value that the declaration does not allow.
        """
        view = self.view
        if not view.writable or cls in self._applied:
            return
        plan = plan_of(cls) or Plan({}, ())
        complete = True
        for parent in cls.__mro__:
            own = next((fields for owner, fields in plan.owners if owner is parent), ())
            if class_info(parent) is None or not (own or view.find_class(parent)):
                continue
            complete = self._apply(parent, own, forced) and complete
        if complete:
            self._applied.add(cls)

    def apply_stored(self) -> None:
        """Apply all classes that the prefix knows with text fields, declared or followed until now."""
        catalogue = self.view.catalogue
        root = self.root()
        followed = set() if root is None else {code for code, sort, _ in root._data if sort == TEXT}
        for key, code in () if catalogue is None else list(catalogue.items()):
            cls = kinds.classes.get(key)
            plan = plan_of(cls)
            if cls is not None and (code in followed or (plan is not None and plan.names[TEXT])):
                self.apply(cls)

    def _apply(self, cls: Any, own: Sequence[tuple[str, str]], forced: bool) -> bool:
        view = self.view
        root = self.root()
        record = view.find_class(cls)
        known = set() if root is None or record is None else {f[1:] for f in root._data if f[0] == record._p_oid}
        if known == set(own):
            return True
        code = view.layout(cls).oid
        there = [obj for obj in instances(view, code) if id(obj) not in self._pending] if record is not None else []
        if there and not (forced or view.auto_migrate):
            return False
        self.flush()
        if root is None:
            root = self._root = make_root(view)
        fresh = [field for field in own if field not in known]
        for sort, name in fresh:
            _check_stored(view, there, sort, name)
        stale = known.difference(own)
        self._drop(root, code, stale, [obj._p_oid for obj in there])
        state = touch(root)
        for sort, name in own:
            if (code, sort, name) not in state:
                state[code, sort, name] = _makers[sort](view)
        self._fields_of.clear()
        if any(sort == TAG for sort, _ in stale):
            fresh += [field for field in self._tags(root) if field not in fresh]
        changes = Changes(self)
        for obj in there:
            obj._p_activate()
            fields = [field for field in self.fields_of(view.class_code(obj)) if field[1:] in fresh]
            changes.change(obj._p_oid, fields, {}, base.state(obj))
        changes.make()
        return True

    def _tags(self, root: FieldRoot) -> list[tuple[str, str]]:
        return [(sort, name) for _, sort, name in root._data if sort == TAG]

    def _drop(self, root: FieldRoot, code: int, stale: set[tuple[str, str]], oids: list[int]) -> None:
        """Follow some fields no more."""
        if not stale:
            return
        for sort, name in stale:
            index = touch(root).pop((code, sort, name))
            if index is not None:
                index.clear()
        if any(sort == TAG for sort, _ in stale):
            index = self.view.tag_index
            tree = index.root()
            bits = BitMap64(oids)
            for key, _ in list(tag_names(tree._data.names if tree is not None else None)):
                if isinstance(key, bytes) and key[:1] == b"p" and (hits := bits & index.members(key)):
                    index.change(key, EMPTY, hits)

    # --- what may be assigned -----------------------------------------------------------------------------------------

    def check_key(self, obj: Any, name: str, value: Any) -> None:
        """Whether an indexed field may have a value. UnsupportedTypeError."""
        view = self.view
        family = place(view, value)[0]
        plan = plan_of(type(obj))
        with operation:
            for owner, own in plan.owners if plan is not None else ():
                if (INDEXED, name) not in own:
                    continue
                record = view.find_class(owner)
                field = (0 if record is None else record._p_oid, INDEXED, name)
                if self._families.get(field) == family:
                    continue
                self.flush()
                index = self.find(field)
                expected = None if index is None else index._data.family
                for other, _ in self._pending.values():  # under construction
                    if expected is None and other is not obj and isinstance(other, owner):
                        key = resolved(base.state(other).get(name))
                        expected = None if key is None else place(view, key)[0]
                if expected not in (None, family):
                    raise refuse(family, expected or "")
                if field[0]:
                    self._families[field] = family


class Changes:
    """Changes of declared fields, gathered by tag and made together."""

    def __init__(self, buffer: FieldBuffer) -> None:
        self.buffer = buffer
        self.tags: dict[bytes, tuple[list[int], list[int]]] = {}  # tag -> added, removed
        self.values: defaultdict[Field, list[tuple[int, Any, Any]]] = defaultdict(
            list
        )  # field -> OID, value before, value after

    def __bool__(self) -> bool:
        return bool(self.tags or self.values)

    def change(self, oid: int, fields: Sequence[Field], before: Values, after: Values) -> None:
        """An object's attributes were `before` and are `after`."""
        tags = []
        for field in fields:
            _, sort, name = field
            if sort == TAG:
                tags.append(name)
                continue
            old, new = before.get(name, MISSING), after.get(name, MISSING)
            if old is not new:
                self.values[field].append((oid, resolved(old), resolved(new)))
        if not tags:
            return
        old_tags = {key for name in tags if (key := self._key(before.get(name), False)) is not None}
        new_tags = {key for name in tags if (key := self._key(after.get(name), self.buffer.view.writable)) is not None}
        for place_, keys in ((0, new_tags - old_tags), (1, old_tags - new_tags)):
            for key in keys:
                self.tags.setdefault(key, ([], []))[place_].append(oid)

    def _key(self, value: Any, enter: bool) -> bytes | None:
        if value is None or value is MISSING:
            return None
        if type(value) is Deferred:
            identity = stored_identity(value)
            atom: Any = None if identity is None else ("object", *identity)
        elif isinstance(value, MemoObject) and value._p_oid:
            atom = ("object", value._p_view.uuid, value._p_oid)  # it may be gone by now
        else:
            atom = tag_atom(value)
        key = None if atom is None else stored_key(self.buffer.view, atom, enter)
        return None if key is None else passive_key(key)

    def make(self) -> None:
        """Make the changes to what is stored."""
        buffer = self.buffer
        index: TagIndex = buffer.view.tag_index
        for key, (added, removed) in self.tags.items():
            index.change(key, BitMap64(added), BitMap64(removed))
        for field, changes in self.values.items():
            tree = buffer.find(field)
            if field[1] == TEXT:
                _change_texts(tree, changes, buffer.known_lengths(tree))
                continue
            for oid, old, _ in changes:
                if old is not MISSING:
                    tree._p_take(old, oid)
            for oid, _, new in changes:
                if new is not MISSING:
                    tree._p_put(new, oid)


def _change_texts(tree: TextIndex, changes: list[tuple[int, Any, Any]], lengths: dict[int, int] | None) -> None:
    by_word: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    number = total = 0
    for oid, old, new in changes:
        before, after = frequencies(old), frequencies(new)
        sizes = min(sum(before.values()), MOST), min(sum(after.values()), MOST)
        if sizes[0] != sizes[1]:
            by_word[LENGTHS].append((oid, sizes[1]))
            number += (sizes[1] > 0) - (sizes[0] > 0)
            total += sizes[1] - sizes[0]
            if lengths is not None:
                lengths[oid] = sizes[1]
        if not before:
            for word, n in after.items():
                by_word[word].append((oid, n))
            continue
        for word, n in after.items():
            if before.get(word) != n:
                by_word[word].append((oid, n))
        for word in before.keys() - after.keys():
            by_word[word].append((oid, 0))
    postings: list[Posting] = [
        (word, oid, min(n, MOST)) for word in sorted(by_word) for oid, n in sorted(by_word[word])
    ]
    if postings:
        tree.change(postings)
        tree.add_texts(number, total)


def stored_values(view: View, oid: int, payload: bytes) -> Values:
    """The attributes in the record of a memo object. CorruptError."""
    try:
        code, at = read_varint(payload, 1)
        number, at = read_varint(payload, at)
        values = decode_values(view, payload[at:])
        if number:
            return dict(zip(view.class_record(code).shape(number), values, strict=True))
        n = values[0]
        return dict(zip(map(unpack_name, values[1 : n + 1]), values[n + 1 :], strict=True))
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise view.corrupt(oid, error) from None


def _unborn(value: Any) -> bool:
    """Whether a value is an object that has no identity yet."""
    return isinstance(value, MemoObject) and not value._p_oid


def _check_stored(view: View, objects: list[Any], sort: str, name: str) -> None:
    """MigrateError when stored objects have values that the declaration of a field does not allow."""
    first = ""
    for obj in objects:
        obj._p_activate()
        value = resolved(base.state(obj).get(name))
        try:
            if sort != INDEXED:
                checks[sort](obj, name, value)
            elif value is not None:
                family = place(view, value)[0]
                first = first or family
                if family != first:
                    raise refuse(family, first)
        except TypeError as error:
            raise MigrateError(
                f"{type(obj).__qualname__}.{name} cannot become a declared {sort} field in prefix {view.name!r}: object "
                f"{obj._p_oid} has {value!r} there ({error}); change its value first"
            ) from error


def _check_tag(obj: Any, name: str, value: Any) -> None:
    if value is None or type(value) in (str, EnumValue, EnumValueRepr):
        return
    if not (isinstance(value, MemoObject) or is_handle(value)):
        raise UnsupportedTypeError(
            f"{type(obj).__qualname__}.{name} is a tag field: it takes a str, an enum value, a memo object or None, not "
            f"{type(value).__name__}"
        )


def _check_key(obj: Any, name: str, value: Any) -> None:
    if value is None:
        return
    fields = getattr(obj._p_view, "fields", None)
    if fields is not None:
        fields.check_key(obj, name, value)


def _check_text(obj: Any, name: str, value: Any) -> None:
    if value is not None and type(value) is not str:
        raise UnsupportedTypeError(
            f"{type(obj).__qualname__}.{name} is a full-text field: it takes a str or None, not {type(value).__name__}"
        )


_makers: dict[str, Callable[[View], Any]] = {TAG: lambda view: None, INDEXED: new_index, TEXT: new_text_index}

checks[TAG] = _check_tag
checks[TEXT] = _check_text
checks[INDEXED] = _check_key
kinds.buffers.insert(0, FieldBuffer)  # before the tag index, which forgets the classes of what is deleted
