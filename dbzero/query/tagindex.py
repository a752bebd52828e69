"""The inverted index of one prefix as one view shows it: which objects have a tag, and which are of a class.

Stored are posting trees (:mod:`dbzero.query.records`) below a root with a fixed OID. Changes are gathered in memory
and made to the trees by :meth:`TagIndex.flush`, before a commit and before anything that must see them: tags as they
were given and taken, new objects as the view's dirty list has them, so that creating an object costs nothing here.

In memory a posting list that was used is one bitmap. A writer's flush changes it in place. When a reader's view moves,
it is told which records changed, and the leaves among them are read again at the next use; the others are not. The
bitmaps take up a share of the view's memory limit at most, the least recently used go first.

A view holds its index and an index its view; nothing here is shared between views.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Any

from pyroaring import BitMap64

from dbzero.collections.nodes import corrupt, touch
from dbzero.errors import ClosedError
from dbzero.model import base, kinds
from dbzero.model.catalog import ENUM, NO_DEFAULT_TAGS
from dbzero.model.codec import read_varint
from dbzero.model.memo import class_info
from dbzero.model.view import View
from dbzero.query.records import (
    ROOT_OID,
    IndexRecord,
    Key,
    Root,
    add_members,
    find_name,
    is_counted,
    make_root,
    parts,
    passive_key,
    remove_members,
    remove_name,
    set_name,
)

Where = Key | int
"""A posting list: tag key, or class OID."""

Change = tuple[Key, BitMap64, BitMap64]
"""Members that were added to a tag, and removed from it."""

_SHARE = 4  # bitmaps take at most this part of the view's limit
_FRESH = base.MEMO | base.NEW
_FEW = 64  # deleted objects whose records are asked for their classes
_MOST_CHANGED = 50_000  # changed records remembered for a reader's bitmaps; beyond, all are read again


class Posting:
    """A posting list in memory: its bitmap, which may be read and not changed, and which leaf said what."""

    __slots__ = ("bits", "bounds", "generation", "weight")

    def __init__(self) -> None:
        self.bits = BitMap64()
        self.bounds: dict[int, tuple[int | None, int | None]] | None = None  # leaf OID -> its bounds; None: unknown
        self.generation = -1
        self.weight = 0


EMPTY = BitMap64()
"""No members. Not to be changed."""


class TagIndex:
    """The index of a view. All of its methods run under the operation lock."""

    def __init__(self, view: View) -> None:
        self.view = view
        view.tag_index = self
        self.generation = 0  # of what is stored: grows when a reader moves
        self.changes: list[Change | None] | None = (
            None  # of tags, where somebody wants to know; None: all may be others
        )
        self._root: IndexRecord | None = None
        self._pending: dict[Key, dict[int, bool]] = {}  # tag key -> OID -> added or removed
        self._joining: dict[int, BitMap64] = {}  # class OID -> new members
        self._unfinished: list[Any] = []  # objects under construction that something stored refers to
        self._early: list[tuple[Any, Key, bool]] = []  # tags of objects under construction
        self._early_kept = 0  # of these, how many a flush has met
        self._postings: OrderedDict[Where, Posting] = OrderedDict()
        self._weight = 0
        self._changed: dict[int, int] = {}  # OID of a record -> generation that changed it
        self._listed: set[type] = set()  # classes whose objects are members of them without further ado
        self._closures: dict[Any, tuple[int, int, list[int]]] = {}

    # --- what changes -------------------------------------------------------------------------------------------------

    def pending(self) -> bool:
        """Whether tags were given or taken since the last flush."""
        if self._pending or self._joining:
            return True
        return bool(self._early) and any(not o._p_flags & base.INIT for o, _, _ in self._early)

    def note(self, key: Key, obj: Any, added: bool) -> None:
        """An object of the view was given a tag, or lost it."""
        _, oid, flags = base.identify(obj)
        if flags & base.INIT:
            self._early.append((obj, key, added))
            return
        if self._early:
            self._take_early()  # what an object's construction said of its tags comes before what is said now
        self._note(key, obj, oid, added)

    def _note(self, key: Key, obj: Any, oid: int, added: bool) -> None:
        ops = self._pending.get(key)
        if ops is None:
            ops = self._pending[key] = {}
        ops[oid] = added
        if type(obj) not in self._listed and added:
            info = type(obj)._p_class
            if info.flags & NO_DEFAULT_TAGS:
                self._join(self.view.layout(type(obj)).oid, (oid,))
            else:
                self._listed.add(type(obj))

    def flush(self) -> None:
        """Make what is pending to the stored trees."""
        view = self.view
        if not view.writable:
            return
        if view.dirty_count:
            self._take_new()
        if self._early:
            self._take_early()
        self._early_kept = len(self._early)
        while self._joining:
            code, bits = next(iter(self._joining.items()))
            self.change(code, bits, EMPTY)
            del self._joining[code]
        while self._pending:
            key, ops = next(iter(self._pending.items()))
            added = BitMap64([oid for oid, kept in ops.items() if kept])
            removed = BitMap64([oid for oid, kept in ops.items() if not kept]) if len(added) < len(ops) else EMPTY
            self.change(key, added, removed)
            del self._pending[key]

    def taken(self, objects: Sequence[Any]) -> None:
        """A commit has taken objects that were made after the flush before it: they enter their classes in it, too."""
        fresh = [obj for obj in objects if obj._p_flags & _FRESH == _FRESH]
        if fresh:
            self._take_each(fresh)
            self.flush()

    def _take_each(self, objects: list[Any]) -> None:
        for obj in objects:
            if obj._p_flags & base.INIT:
                self._unfinished.append(obj)
            elif not obj._p_flags & base.EXPIRED:
                layout = self.view.layout(type(obj))
                if not layout.record.data.flags & NO_DEFAULT_TAGS:
                    self._join(layout.oid, (obj._p_oid,))

    def _take_new(self) -> None:
        view = self.view
        groups, unfinished = base.take_new(view)
        if self._unfinished or unfinished:
            waiting, self._unfinished = self._unfinished + unfinished, []
            self._take_each(waiting)
        for cls, words in groups.items():
            layout = view.layout(cls)
            if not layout.record.data.flags & NO_DEFAULT_TAGS:
                self._join(layout.oid, memoryview(words).cast("Q"))

    def _join(self, code: int, oids: Any) -> None:
        bits = self._joining.get(code)
        if bits is None:
            self._joining[code] = BitMap64(oids)
        else:
            bits |= BitMap64(oids)

    def _take_early(self) -> None:
        """The tags of objects whose construction has ended in the meantime are those of any object."""
        kept, waiting = 0, []
        for place, entry in enumerate(self._early):
            obj, key, added = entry
            _, oid, flags = base.identify(obj)
            if flags & base.INIT:
                waiting.append(entry)
                kept += place < self._early_kept
            elif not flags & base.EXPIRED:  # its construction failed: no tag remains
                self._note(key, obj, oid, added)
        self._early, self._early_kept = waiting, kept

    def change(self, where: Where, added: BitMap64, removed: BitMap64) -> None:
        """Add members to the stored tree of a posting list, and remove some."""
        if self.changes is not None and not isinstance(where, int):
            self.changes.append((where, added.copy(), removed.copy()))
        root = self.root()
        if root is None:
            if not added:
                return
            root = self._root = make_root(self.view)
        old = self._tree(where)
        tree = old
        if removed and tree is not None:
            tree = remove_members(tree, removed)
        if added:
            tree = add_members(self.view, tree, added, is_counted(where))
        if tree is not old:
            self._set_tree(root, where, tree)
        posting = self._postings.get(where)
        if posting is not None:
            posting.bits |= added
            posting.bits -= removed
            posting.bounds = None
            if tree is None:
                self._drop(where)

    def _set_tree(self, root: IndexRecord, where: Where, tree: IndexRecord | None) -> None:
        if isinstance(where, int):
            state = touch(root)
            if tree is None:
                del state.classes[where]
            else:
                state.classes[where] = tree
            return
        old: IndexRecord | None = root._data.names
        if tree is not None:
            new: IndexRecord | None = set_name(self.view, old, where, tree)
        else:
            new = None if old is None else remove_name(old, where)
        if new is not old:
            touch(root).names = new

    def removed(self, oids: Sequence[int]) -> Callable[[], None] | None:
        """Objects are being deleted: they leave their classes. Returns what puts them back, if there is anything."""
        if self.root() is None:
            return None
        done: list[tuple[int, BitMap64]] = []
        for code, bits in self._by_class(oids):
            waiting = self._joining.get(code)
            if waiting is not None:
                waiting -= bits
            if self._tree(code) is not None:
                self.change(code, EMPTY, bits)
                done.append((code, bits))
        if not done:
            return None

        def put_back() -> None:
            for code, bits in done:
                self.change(code, bits, EMPTY)

        return put_back

    def _by_class(self, oids: Sequence[int]) -> list[tuple[int, BitMap64]]:
        """The memo objects among `oids`, by class: few by what each of them says, many by what the classes have."""
        if len(oids) > _FEW:
            every = BitMap64(oids)
            return [(code, hits) for code in self.classes() if (hits := every & self.members(code))]
        groups: dict[int, BitMap64] = {}
        for oid in oids:
            code = self.code_of(oid)
            if code:
                groups.setdefault(code, BitMap64()).add(oid)
        return list(groups.items())

    def code_of(self, oid: int) -> int:
        """The class OID of a memo object; 0 for every other object."""
        view = self.view
        obj = view.peek(oid)
        if obj is not None:
            if not obj._p_flags & base.MEMO:
                return 0
            if type(obj) is kinds.unknown:
                return view.class_code(obj)
            record = view.find_class(type(obj))
            return 0 if record is None else int(record._p_oid)
        found = view.records.read(oid, view.state)
        if found is None or found[0][:1] != bytes((kinds.MEMO,)):
            return 0
        try:
            return read_varint(found[0], 1)[0]
        except ValueError as error:
            raise view.corrupt(oid, error) from None

    def discard(self) -> None:
        """The view's objects are those of an earlier state again: drop what is pending, and every bitmap."""
        self._pending.clear()
        self._joining.clear()
        self._unfinished.clear()
        del self._early[self._early_kept :]
        if self.changes is not None:
            self.changes.append(None)
        base.rescan(self.view)
        self._root = None
        self._closures.clear()
        self._drop_all()

    def changed(self, oids: Collection[int] | None) -> None:
        """The view moves to a state in which these records are others (None: unknown which)."""
        self.generation += 1
        self._closures.clear()
        if oids is None or len(self._changed) + len(oids) > _MOST_CHANGED:
            self._drop_all()
        elif self._postings:
            self._changed.update(dict.fromkeys(oids, self.generation))

    # --- what is there ------------------------------------------------------------------------------------------------

    def root(self) -> IndexRecord | None:
        """The stored root, or None while the prefix has none."""
        view = self.view
        found = self._root
        if found is None or found._p_flags & base.EXPIRED:
            found = view.peek(ROOT_OID)
            if found is None:
                if view.closed:
                    raise ClosedError(f"prefix {view.name!r} was closed; open it again")
                if view.records.read(ROOT_OID, view.state) is None:
                    return None
                found = view.ghost(IndexRecord, ROOT_OID)
            if type(found) is not IndexRecord or type(found._data) is not Root:
                raise corrupt(found, "not the root of the tag index")
            self._root = found
        return found

    def _tree(self, where: Where) -> IndexRecord | None:
        root = self.root()
        if root is None:
            return None
        found: IndexRecord | None = (
            root._data.classes.get(where) if isinstance(where, int) else find_name(root._data.names, where)
        )
        return found

    def members(self, where: Where) -> BitMap64:
        """The OIDs of a posting list. Not to be changed, and good until anything else is called."""
        posting = self._postings.get(where)
        if posting is not None and posting.generation == self.generation:
            self._postings.move_to_end(where)
            return posting.bits
        tree = self._tree(where)
        if tree is None:
            self._drop(where)
            return EMPTY
        if posting is None:
            posting = Posting()
        self._read(posting, tree)
        self._keep(where, posting)
        return posting.bits

    def holders(self, key: Key) -> BitMap64:
        """The OIDs of the objects that have a tag, be it given to them or by one of their fields. As :meth:`members`."""
        given = self.members(key)
        if not self.view.fields.passive():
            return given
        passive = self.members(passive_key(key))
        return passive | self.members(key) if passive else given

    def _read(self, posting: Posting, tree: IndexRecord) -> None:
        """Bring a posting list up to the state of the view, reading the leaves that it doesn't know."""
        known = posting.bounds
        bits = BitMap64() if known is None else posting.bits
        posting.bounds = None  # until all is read
        bounds: dict[int, tuple[int | None, int | None]] = {}
        for part in parts(tree):
            oid = part.leaf._p_oid
            here = (part.low, part.high)
            if known is None:
                bits |= part.leaf._data.bits
            elif known.get(oid) != here or self._changed.get(oid, -1) > posting.generation:
                bits.remove_range(part.low or 0, 1 << 48 if part.high is None else part.high)
                bits |= part.leaf._data.bits
            bounds[oid] = here
        posting.bits = bits
        posting.bounds = bounds
        posting.generation = self.generation

    def _keep(self, where: Where, posting: Posting) -> None:
        self._weight -= posting.weight
        posting.weight = 500 + 3 * len(posting.bits) + 150 * len(posting.bounds or ())
        self._weight += posting.weight
        self._postings[where] = posting
        self._postings.move_to_end(where)
        limit = self.view.limit // _SHARE
        while limit and self._weight > limit and len(self._postings) > 1:
            self._drop(next(iter(self._postings)))

    def _drop(self, where: Where) -> None:
        posting = self._postings.pop(where, None)
        if posting is not None:
            self._weight -= posting.weight

    def _drop_all(self) -> None:
        self._postings.clear()
        self._changed.clear()
        self._weight = 0

    # --- classes ------------------------------------------------------------------------------------------------------

    def classes(self) -> list[int]:
        """The class OIDs that have members."""
        root = self.root()
        return [] if root is None else list(root._data.classes)

    def subclasses(self, cls: type) -> list[int]:
        """The class OIDs of a class and of what derives from it: by its Python classes where this process knows them,
        by what is recorded of them where it does not."""
        view = self.view
        catalogue = view.catalogue
        if catalogue is None:
            return []
        size = len(catalogue._data)
        found = self._closures.get(cls)
        if found is not None and found[:2] == (size, kinds.version):
            return found[2]
        if cls is kinds.unknown:
            return self.classes()
        info = class_info(cls)
        own = 0 if info is None else catalogue.find(info.key)
        codes = []
        for key, code in catalogue.items():
            data = view.class_record(code).data
            if data.flags & ENUM:
                continue
            known = kinds.classes.get(key)
            if code == own or (issubclass(known, cls) if known is not None else own and own in data.bases):
                codes.append(code)
        self._closures[cls] = (size, kinds.version, codes)
        return codes

    def instances(self, codes: Sequence[int]) -> BitMap64:
        """The members of some classes together. Not to be changed, and good until anything else is called."""
        if len(codes) == 1:
            return self.members(codes[0])
        union = BitMap64()
        for code in codes:
            union |= self.members(code)
        return union


def tag_index(view: View) -> TagIndex:
    """The index of a view. ClosedError when the view is closed."""
    index: TagIndex | None = view.tag_index
    if index is not None:
        return index
    raise ClosedError(f"Prefix {view.name!r} was closed, it is no longer accessible; open it again")


def flushed(view: View) -> TagIndex:
    """The index of a view with everything pending made. Inside an operation."""
    index = tag_index(view)
    if view.writable:
        view.fields.flush()
        index.flush()
    return index


kinds.buffers.append(TagIndex)

__all__ = ["EMPTY", "TagIndex", "Where", "flushed", "tag_index"]
