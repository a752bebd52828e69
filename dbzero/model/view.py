"""A view: the live objects of one prefix at one state, and the way between objects and records.

The identity map, the dirty list and eviction are C (:class:`dbzero.model.base.ViewCore`); here is what they call:
loading, conversion, refusal, OIDs; and what a commit needs of the objects.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NoReturn, Protocol, cast

from dbzero.errors import (
    ClosedError,
    CorruptError,
    ExpiredError,
    ForkedError,
    ImmutableError,
    OutsideTransactionError,
    ReadOnlyError,
    ReferenceError,
)
from dbzero.model import base, kinds, scope
from dbzero.model.base import ViewCore, operation, snapshot
from dbzero.model.catalog import Catalogue, ClassData, ClassRecord, pack_name, unpack_name
from dbzero.model.codec import decode_values, encode_plain, encode_values, make_decoder, read_varint, varint
from dbzero.model.migration import migrate_instance
from dbzero.model.values import convert_attribute

OID_BATCH = 64, 4096  # OIDs reserved at first, and at most, at a time
CLASS_OID_NAME = "_X__dbzero_class_oid"  # on instances of unknown classes: which class it is


class Records(Protocol):
    """Where a view reads from: one prefix."""

    @property
    def name(self) -> str:
        """The prefix's name."""

    @property
    def uuid(self) -> int:
        """The prefix's uuid, 64 bits."""

    @property
    def writable(self) -> bool:
        """Whether this process may commit to it."""

    def read(self, oid: int, state: int) -> tuple[bytes, int] | None:
        """(payload, refcount) of an object's newest version at `state`; None when it is absent or deleted there."""

    def refcount(self, oid: int, state: int) -> int:
        """Stored strong references to an object; 0 when it is absent."""

    def references(self, oid: int, state: int) -> Sequence[int]:
        """OIDs that the stored version of an object holds strongly; duplicates count."""

    def changes(self, state: int) -> list[int] | None:
        """OIDs of what the commit that made `state` changed; None when that is not known any more."""

    def changes_since(self, state: int, upto: int) -> set[int] | None:
        """OIDs of what the commits after `state` up to `upto` changed; None when one of them is not known any more."""

    def oid_limit(self) -> int:
        """Above every OID in use."""

    def reserve_oids(self, n: int) -> int:
        """The first of `n` OIDs that were never used."""


class Buffer(Protocol):
    """Changes that belong to a view and are not yet made to its stored objects."""

    def pending(self) -> bool:
        """Whether flush() has anything to do."""

    def flush(self) -> None:
        """Make the changes. Called under the operation lock, before a commit takes the dirty objects, when an atomic
        block begins and when it ends well."""

    def discard(self) -> None:
        """The view's objects were put back to an earlier state: drop what is pending and all that was derived."""

    def removed(self, oids: Sequence[int]) -> Callable[[], None] | None:
        """Objects are about to be deleted. Returns what takes that back, or None. Under the operation lock."""

    def taken(self, objects: Sequence[Any]) -> None:
        """A commit has taken these objects, which became dirty after flush(). What depends on them belongs to the same
        commit. Under the operation lock."""

    def changed(self, oids: Collection[int] | None) -> None:
        """The view is about to move to a state in which these stored objects are others; None: unknown which. Under the
        operation lock."""


Plan = tuple[bytes, tuple[str, ...], bool, bool]
"""(payload head, names to write, whether these are all the object has, whether the names go into the payload)."""


class Layout:
    """One class in one view: its record, and for every tuple of field names in use how to write an object that has
    them."""

    __slots__ = ("common", "common_head", "oid", "plans", "record")

    def __init__(self, record: ClassRecord) -> None:
        self.record = record
        self.oid: int = record._p_oid
        self.plans: dict[tuple[str, ...], Plan] = {}
        # The names of the object written or read last that had a shape and nothing else, and its payload head.
        self.common: tuple[str, ...] = ()
        self.common_head = b""

    def plan(self, names: tuple[str, ...]) -> Plan:
        """How to write an object whose dict has those keys."""
        stored = tuple(name for name in names if not name.startswith("_X__"))
        number = self.record.number(stored)
        head = bytes((kinds.MEMO,)) + varint(self.oid) + varint(number)
        plan = (head, stored, stored == names, number == 0)
        if len(self.plans) < 2000:
            self.plans[names] = plan
        return plan


def _closed_decoder(data: Any) -> NoReturn:
    raise ClosedError("the prefix or snapshot of an object that was being loaded was closed in another thread")


class View(ViewCore):  # type: ignore[misc]
    """The live objects of one prefix in this process, at `state`."""

    def __init__(self, records: Records, state: int, context: scope.Context = scope.live) -> None:
        """
        Args:
            records: where objects are read from.
            state: state number it shows.
            context: a snapshot, for good at that state; by default the view is live.
        """
        self.records = records
        self.name = records.name
        self.uuid = records.uuid
        self.state = state
        self.frozen = 0 if context is scope.live else state
        self.writable = records.writable and not self.frozen
        self.forked = False
        self.shared = False  # may be written in a transaction only, and is writable then
        self.incarnation = getattr(records, "incarnation", 0)
        self.decoder = make_decoder(self)
        self.autocommit_error: BaseException | None = None
        self.follow_error: BaseException | None = None
        self._layouts: dict[Any, Layout] = {}  # by memo class, or class OID
        self._common: dict[type, tuple[tuple[str, ...], bytes]] = {}  # of layouts by memo class: for encode_ordinary()
        self.codes: dict[type, int] = {}  # filled by the codec
        self._types: dict[int, type] = {}  # class code -> class
        self._types_version = -1
        self._oid_batch = OID_BATCH[0]
        self._catalogue: Catalogue | None = None
        self._records: dict[int, ClassRecord] = {}
        self._fetched: tuple[int, bytes, int] | None = None
        self.enum_values: dict[Any, Any] = {}  # by (key, name) and by (OID of the record, place); see model/enums.py
        self.tag_index: Any = None  # the query layer's; one of `buffers`
        self.tallies: dict[Any, Any] = {}  # the query layer's, see query/tallies.py
        self.fields: Any = None  # as that: what declared fields feed
        self.auto_migrate = True  # whether declarations of fields apply to what is stored by themselves
        self.context = context
        self.buffers: list[Buffer] = [make(self) for make in kinds.buffers]
        self._schema_reverted = False
        self.deleted: set[int] = set()  # OIDs deleted at once that the next commit has to delete
        self.restricted = False
        self.restricted_context: Any = None  # a ContextVar that says it where `restricted` does not
        self._unfinished: dict[int, int] = {}  # OIDs that a commit took under construction -> state before that

    def __repr__(self) -> str:
        return f"<View of prefix {self.name!r} at state {self.state}{', closed' if self.closed else ''}>"

    def is_restricted(self) -> bool:
        """Whether reflection on its objects is refused here and now."""
        if self.restricted or self.restricted_context is None:
            return self.restricted
        try:
            return bool(self.restricted_context.get())
        except LookupError:  # nobody has said that it is not
            return True

    # --- called from C -----------------------------------------------------------------------------------------------

    def _load(self, obj: Any) -> int:
        oid = obj._p_oid
        fetched = self._fetched
        self._fetched = None
        if fetched is not None and fetched[0] == oid:
            _, payload, refcount = fetched
        else:
            found = self.records.read(oid, self.state)
            if found is None:
                raise ReferenceError(
                    f"Memo instance expired: object {oid} of prefix {self.name!r} does not exist at state {self.state}"
                )
            payload, refcount = found
        obj._p_decode(payload)
        if refcount == 0 and self.writable and not self.shared and oid >= kinds.FIRST_OID:
            self.mark_orphan(oid)
        if obj._p_flags & base.MEMO:  # they have no weight of their own
            return 2 * len(payload)
        weigh = getattr(type(obj), "_p_weight", None)
        return (0 if weigh is None else int(weigh(obj))) or 2 * len(payload)

    def _convert(self, value: Any) -> Any:
        return convert_attribute(self, value)

    def _reserve_oids(self) -> tuple[int, int]:
        if not self.writable:
            self._refuse_write()
        count = self._oid_batch
        self._oid_batch = min(2 * count, OID_BATCH[1])
        return self.records.reserve_oids(count), count

    def _first_dirty(self) -> None:
        """The dirty list stops being empty. For subclasses."""

    def admit_unfinished(self, obj: Any) -> None:
        """A stored reference needs this object under construction: it goes into the commit as it is."""
        self._unfinished.setdefault(obj._p_oid, self.state)
        super().admit_unfinished(obj)

    def _abandon(self, obj: Any) -> None:
        """The construction of an object failed that a commit may have written: the next one deletes it, and writes what
        refers to it again, with references that hold nothing."""
        oid = obj._p_oid
        with operation:
            since = self._unfinished.pop(oid, self.state)
            for other in self.objects():  # a commit under way in another thread has these
                if other._p_flags & base.SAVING and oid in other._p_encode()[1]:
                    other._p_changed()
            changed: set[int] = set()
            for state in range(since + 1, self.state + 1):
                changed.update(self.records.changes(state) or ())
            for holder in changed:
                if oid in self.records.references(holder, self.state):
                    found = self.get(holder)
                    if found is not None:
                        found._p_changed()
            self.expire(obj)  # now that every holder is loaded: one that is loaded later would make another wrapper
            self.deleted.add(oid)
            self.mark_orphan(oid)

    def _refuse(self, obj: Any, writing: bool) -> NoReturn:
        flags = obj._p_flags
        if (flags & base.CLOSED or self.closed) and self.frozen:
            raise ClosedError(
                f"Object is no longer accessible: the snapshot of state {self.frozen} of prefix {self.name!r} was closed"
            )
        if flags & base.CLOSED or self.closed:
            raise ClosedError(
                f"Object is no longer accessible: prefix {self.name!r} was closed; open it and fetch the object again"
            )
        if flags & base.EXPIRED:
            kind = ExpiredError if writing else ReferenceError
            raise kind(
                f"Memo instance expired: object {obj._p_oid} of prefix {self.name!r} was deleted, or its "
                f"construction failed"
            )
        if flags & base.IMMUTABLE:
            raise ImmutableError("Cannot modify an immutable memo object")
        self._refuse_write()

    def _refuse_write(self) -> NoReturn:
        if self.forked:
            raise ForkedError(
                f"prefix {self.name!r} is being written by the process that this one was forked from; call db0.close() and db0.init() here, "
                "then open it read-only"
            )
        if self.frozen:
            raise ReadOnlyError(
                f"Cannot modify read-only prefix: {self.name} in a snapshot of state {self.frozen}; change the live object"
            )
        if self.shared:
            raise self.outside_transaction()
        raise ReadOnlyError(f"Cannot modify read-only prefix: {self.name}")

    def outside_transaction(self) -> OutsideTransactionError:
        """The error for a write to a shared prefix that no transaction covers."""
        return OutsideTransactionError(
            f"prefix {self.name!r} is open shared: write it within `with db0.atomic():`, or in a function decorated with "
            "@db0.transaction"
        )

    # --- classes -----------------------------------------------------------------------------------------------------

    @property
    def catalogue(self) -> Catalogue | None:
        """The class catalogue, or None while the prefix has none."""
        found = self._catalogue
        if found is None:
            if self.closed or self.records.read(kinds.CATALOGUE_OID, self.state) is None:
                return None
            found = self._catalogue = cast(Catalogue, self.ghost(Catalogue, kinds.CATALOGUE_OID))
        return found

    def class_record(self, oid: int) -> ClassRecord:
        """The class record with that OID. CorruptError when there is none."""
        record = self._records.get(oid)
        if record is None:
            found = self.ghost(ClassRecord, oid)
            if not isinstance(found, ClassRecord):
                raise CorruptError(
                    f"prefix {self.name!r}: object {oid} is named as a class, but it is none; run a check of the prefix"
                )
            try:
                found._p_activate()
            except ReferenceError:
                raise CorruptError(
                    f"prefix {self.name!r}: class record {oid} is missing; run a check of the prefix"
                ) from None
            record = self._records[oid] = found
        return record

    def find_class(self, cls: type) -> ClassRecord | None:
        """The record of a memo class, or None when no object of it was ever stored here."""
        catalogue = self.catalogue
        oid = 0 if catalogue is None else catalogue.find(cls._p_class.key)  # type: ignore[attr-defined]
        return self.class_record(oid) if oid else None

    def layout(self, cls: type) -> Layout:
        """The layout of a memo class; enters it in the catalogue if it is new. ReadOnlyError when it is and the view
        is read-only."""
        found = self._layouts.get(cls)
        if found is None:
            with operation:
                found = self._layouts[cls] = Layout(self.find_class(cls) or self._enter_class(cls))
        return found

    def _enter_class(self, cls: Any) -> ClassRecord:
        if not self.writable:
            self._refuse_write()
        info = cls._p_class
        bases = [
            self.layout(parent).oid
            for parent in cls.__mro__[1:]
            if "_p_class" in vars(parent) and vars(parent)["_p_class"].key
        ]
        return self.enter(ClassData(info.key, info.module, info.qualname, info.flags, bases, 0, []))

    def enter(self, data: ClassData) -> ClassRecord:
        """Enter a new class in the catalogue. ReadOnlyError."""
        if not self.writable:
            self._refuse_write()
        catalogue = self.catalogue
        if catalogue is None:
            catalogue = self._catalogue = Catalogue.make(self)
        record = ClassRecord.make(self, data)
        catalogue.add(data.key, record._p_oid)
        self._records[record._p_oid] = record
        return record

    def class_code(self, obj: Any) -> int:
        """What a reference to a memo object says about its class: the class OID."""
        cls = type(obj)
        found = self._layouts.get(cls)
        if found is None:
            if cls is kinds.unknown:
                return int(base.state(obj).get(CLASS_OID_NAME, 0))
            found = self.layout(cls)
        return found.oid

    def _resolve(self, code: int) -> type:
        """The Python class for a class code: class OID, kind, or 0."""
        if self._types_version != kinds.version:
            self._types.clear()
            self._types_version = kinds.version
        found = self._types.get(code)
        if found is not None:
            return found
        if code == 0:
            return kinds.unknown
        if code < kinds.FIRST_OID:
            found = kinds.types.get(code)
            if found is None:
                raise CorruptError(f"prefix {self.name!r}: a reference to an object of unknown kind {code}")
        else:
            found = kinds.classes.get(self.class_record(code).data.key)
            if found is None:
                return kinds.unknown
        self._types[code] = found
        return found

    def types(self) -> dict[int, type] | None:
        """The classes that are known by their codes, for what decodes in C; None: they have to be asked for anew."""
        return self._types if self._types_version == kinds.version else None

    # --- objects -----------------------------------------------------------------------------------------------------

    def reference(self, oid: int, code: int) -> Any:
        """The live object with that OID, or a ghost of the class that `code` names. Nothing of the object is read.
        CorruptError: there is no such class."""
        cls = self._types.get(code) if self._types_version == kinds.version else None
        if cls is None:
            cls = self._resolve(code)
            if cls is kinds.unknown:
                obj = self.ghost(cls, oid)
                if type(obj) is cls:
                    base.fill(obj, (CLASS_OID_NAME,), [code])
                return self._checked(obj, cls)
        obj = self.ghost(cls, oid)
        return obj if type(obj) is cls else self._checked(obj, cls)

    def _checked(self, obj: Any, cls: type) -> Any:
        # A live object may be of another memo class: one that was redefined or unknown when it was loaded.
        if type(obj) is cls or (obj._p_flags & base.MEMO and base.class_flags(cls) is not None):
            return obj
        raise self.corrupt(obj._p_oid, f"it is a {type(obj).__name__}, but a reference calls it a {cls.__name__}")

    def get(self, oid: int) -> Any:
        """The object with that OID, or None when it does not exist at the view's state. ClosedError, CorruptError."""
        if self.closed:
            raise ClosedError(f"prefix {self.name!r} was closed; open it again")
        obj = self.peek(oid)
        if obj is not None:
            return None if obj._p_flags & base.EXPIRED else obj
        if oid in self.deleted:
            return None
        while True:
            state = self.state
            found = self.records.read(oid, state)
            if found is None:
                if state != self.state:
                    continue
                return None
            break
        payload, refcount = found
        code, second = (payload[0], payload[1]) if len(payload) > 1 else (payload[0] if payload else 0, 0x80)
        if code == 0 and second < kinds.FIRST_OID:
            return None  # a record of the tag index, which is nobody's object
        if code == kinds.MEMO:
            code = second
            if second >= 0x80 and len(payload) > 2 and payload[2] < 0x80:
                code = second & 0x7F | payload[2] << 7
            elif second >= 0x80:
                try:
                    code, _ = read_varint(payload, 1)
                except ValueError as error:
                    raise self.corrupt(oid, error) from None
        with operation:
            obj = self.reference(oid, code)
            if obj._p_flags & base.GHOST:
                if state == self.state:  # else the view has moved since: what was read is not what it shows
                    self._fetched = (oid, payload, refcount)
                try:
                    obj._p_activate()
                finally:
                    self._fetched = None
        return obj

    def corrupt(self, oid: int, problem: object) -> CorruptError:
        """The error for damage in an object's record."""
        return CorruptError(
            f"prefix {self.name!r}, object {oid}: damaged record ({problem}); run a check of the prefix and "
            f"restore it from a copy"
        )

    def encode_memo(self, obj: Any) -> tuple[bytes, list[int]]:
        """Payload and references of a memo object."""
        cls = type(obj)
        layout = self._layouts.get(cls)
        if layout is not None and layout.common:
            values = snapshot(obj, layout.common)
            if values is not None:
                try:
                    return layout.common_head + encode_plain(values), []
                except (OverflowError, UnicodeEncodeError):
                    pass
        fields = base.state(obj)
        if layout is None:
            layout = (
                self._layout_of_unknown(obj) if cls is kinds.unknown and CLASS_OID_NAME in fields else self.layout(cls)
            )
        names = tuple(fields)
        plan = layout.plans.get(names) or layout.plan(names)
        head, stored, all_of_them, inline = plan
        values = list(fields.values()) if all_of_them else [fields[name] for name in stored]
        if all_of_them and not inline:
            layout.common, layout.common_head = names, head
            if cls is not kinds.unknown:
                self._common[cls] = (names, head)
        if inline:
            values = [len(stored), *map(pack_name, stored), *values]
        body, refs = encode_values(values)
        self.weigh(obj, 2 * len(body))
        return head + body, refs

    def encode_ordinary(self, objects: list[Any]) -> tuple[list[Any], bytes, bytes, bytes, bytes, bytes]:
        """Encode many objects at once.

        Returns:
            The objects that are left to :meth:`_p_encode`; of the others, as 64-bit words: OIDs, payload lengths, numbers
            of references, references; and their payloads, one behind the other.
        """
        for cls, obj in dict(zip(map(type, objects), objects, strict=True)).items():
            if obj._p_flags & base.MEMO and cls not in self._common:
                obj._p_encode()  # makes the class known, if it can be
        packed: tuple[list[Any], bytes, bytes, bytes, bytes, bytes] = base.encode_memos(objects, self._common)
        return packed

    def _layout_of_unknown(self, obj: Any) -> Layout:
        oid = base.state(obj)[CLASS_OID_NAME]
        found = self._layouts.get(oid)
        if found is None:
            found = self._layouts[oid] = Layout(self.class_record(oid))
        return found

    def decode_memo(self, obj: Any, payload: bytes) -> None:
        """Fill a memo object that is being loaded. CorruptError."""
        cls = type(obj)
        layout = self._layouts.get(cls)
        if layout is not None and layout.common and payload.startswith(layout.common_head):  # no head starts another
            if base.fill_ordinary(obj, layout.common, payload, len(layout.common_head), self.types()):
                return
            values = decode_values(self, payload[len(layout.common_head) :])
            if len(values) == len(layout.common):
                base.fill(obj, layout.common, values)
                return
        oid = obj._p_oid
        try:
            if payload[:1] != b"\1":
                raise ValueError(f"kind {payload[0] if payload else None} instead of {kinds.MEMO}")
            class_oid, at = read_varint(payload, 1)
            number, at = read_varint(payload, at)
        except ValueError as error:
            raise self.corrupt(oid, error) from None
        values = decode_values(self, payload[at:])
        if layout is None or layout.oid != class_oid:
            layout = self._layout_of_payload(obj, class_oid)
        if number:
            names = layout.record.shape(number)
            layout.common, layout.common_head = names, payload[:at]
        else:
            n = values[0] if values else None
            if type(n) is not int or n < 0 or len(values) != 2 * n + 1:
                raise self.corrupt(oid, "a damaged list of field names")
            try:
                names = tuple(unpack_name(name) for name in values[1 : n + 1])
            except (AttributeError, TypeError, UnicodeError):
                raise self.corrupt(oid, "a damaged list of field names") from None
            values = values[n + 1 :]
        if len(names) != len(values):
            raise self.corrupt(oid, f"{len(values)} values for {len(names)} fields")
        base.fill(obj, names, values)

    def _layout_of_payload(self, obj: Any, class_oid: int) -> Layout:
        cls: Any = type(obj)
        if class_oid < kinds.FIRST_OID:
            raise self.corrupt(obj._p_oid, f"class {class_oid}")
        record = self.class_record(class_oid)
        if cls is kinds.unknown:
            base.fill(obj, (CLASS_OID_NAME,), [class_oid])
            return self._layout_of_unknown(obj)
        if record.data.key != cls._p_class.key:
            raise self.corrupt(obj._p_oid, f"it is of class {record.data.key!r}, but {cls._p_class.key!r} was expected")
        found = self._layouts[cls] = Layout(record)
        return found

    # --- singletons --------------------------------------------------------------------------------------------------

    def singleton(self, cls: type) -> Any:
        """The one instance of a singleton class here, or None."""
        record = self.find_class(cls)
        if record is None or not record.data.singleton:
            return None
        return self.migrated(self.reference(record.data.singleton, record._p_oid))

    def migrated(self, obj: Any) -> Any:
        """A memo object, a singleton that its class's migrations have been run on if it needed them."""
        info = getattr(type(obj), "_p_class", None)
        if info is not None and info.migrations and self.writable:
            migrate_instance(obj, info.migrations)
        return obj

    def set_singleton(self, cls: type, obj: Any) -> None:
        """Record the one instance of a class; None: it is gone. ReadOnlyError."""
        self.layout(cls).record.set_singleton(0 if obj is None else obj._p_oid)

    # --- atomic blocks -----------------------------------------------------------------------------------------------

    def _block_save(self) -> set[int]:
        """Called from C before the first change within a save-point: what _block_restore() needs."""
        return set(self.deleted)

    def _block_restore(self, deleted: set[int]) -> None:
        """Called from C when the view's objects have been put back."""
        self.deleted = set(deleted)
        if self._schema_reverted:
            self._schema_reverted = False
            self._forget_classes()

    def schema_reverted(self) -> None:
        """A class record or the catalogue was put back to an earlier state."""
        self._schema_reverted = True

    def _forget_classes(self) -> None:
        self._layouts.clear()
        self._common.clear()
        self.codes.clear()
        self._types.clear()
        self._records.clear()
        self._catalogue = None
        catalogue = self.peek(kinds.CATALOGUE_OID)
        if type(catalogue) is Catalogue:
            self._catalogue = catalogue  # perhaps it was never committed
        catalogue = self.catalogue
        known = set() if catalogue is None else {oid for _, oid in catalogue.items()}
        for value in list(self.enum_values.values()):
            code, place = value._code, value._place
            if code and (code not in known or place >= len(self.class_record(code).field_names)):
                object.__setattr__(value, "_code", 0)
                object.__setattr__(value, "_place", 0)
                self.enum_values.pop((code, place), None)

    # --- committing --------------------------------------------------------------------------------------------------

    @property
    def weight_limit(self) -> int:
        """Bytes of loaded objects above which loading evicts; 0: no limit."""
        return int(self.limit)

    @weight_limit.setter
    def weight_limit(self, limit: int) -> None:
        self.limit = limit

    def begin_changes(self) -> None:
        """Call it before the first look at what a change depends on: the first change may move the view."""
        if not self.dirty_count:
            self._first_dirty()

    def has_changes(self) -> bool:
        """Whether a commit has anything to do."""
        if self.dirty_count or self.orphan_count:
            return True
        for buffer in self.buffers:  # noqa: SIM110 - a generator costs each transaction more than the question itself
            if buffer.pending():
                return True
        return False

    def settled(self) -> tuple[int, int, int] | None:
        """While it shows nothing but a committed state: something that is equal for as long as it has gone on showing that. Else None."""
        quiet: int | None = self.quiet
        if quiet is None or self.deleted or any(buffer.pending() for buffer in self.buffers):
            return None
        return quiet, self.state, self.incarnation

    def flush(self) -> None:
        """Bring the stored objects up to what is buffered beside them. Under the operation lock."""
        for buffer in self.buffers:
            buffer.flush()

    def discard_buffers(self) -> None:
        """Objects were put back to an earlier state, or are another process's: what is buffered goes."""
        for buffer in self.buffers:
            buffer.discard()

    def forget(self, oids: Sequence[int]) -> list[Callable[[], None]]:
        """Objects are about to be deleted, by a commit or at once: whatever is kept beside them goes. Returns what takes
        that back. Under the operation lock, while their wrappers are still in the map. What was deleted at once has been
        forgotten then."""
        if self.deleted:
            oids = [oid for oid in oids if oid not in self.deleted]
        undo = [buffer.removed(oids) for buffer in self.buffers] if oids else []
        return [put_back for put_back in undo if put_back is not None]

    def take_dirty(self) -> list[Any]:
        """The dirty objects, clean from now on until the commit settles or is put back. Call it in a loop until it
        returns nothing: encoding may change class records, which come last and so are encoded once."""
        taken: list[Any] = super().take_dirty()
        if self.late < len(taken):  # other threads may create objects at any time
            for buffer in self.buffers:
                buffer.taken(taken[self.late :])
        late = [obj for obj in taken if type(obj) is ClassRecord or type(obj) is Catalogue]
        if late and len(late) < len(taken):
            self.put_back(late)
            return [obj for obj in taken if type(obj) is not ClassRecord and type(obj) is not Catalogue]
        return taken

    def add_dead_orphans(self, oids: Iterable[int]) -> None:
        """Put back what dead_orphans() returned: the commit that was to collect them failed."""
        for oid in oids:
            self.mark_orphan(oid)

    def forget_changes(self) -> None:
        """Be again as the store is at this state: what is pending is gone for good."""
        self.discard_dirty()
        self.discard_buffers()
        self.deleted.clear()
        self._forget_classes()

    def advance(self, state: int) -> None:
        """The view shows `state` from now on: a writer's commit is published, or a reader has invalidated what
        changed."""
        self.state = state
        self.settle_all()
        if self._unfinished:
            self._unfinished = {
                oid: since
                for oid, since in self._unfinished.items()
                if (obj := self.peek(oid)) is not None and obj._p_flags & base.INIT
            }
        if self.deleted:
            self.deleted = {oid for oid in self.deleted if self.records.read(oid, state) is not None}

    def invalidate_all(self) -> int:
        """Turn every loaded clean object into a ghost. Returns how many."""
        for buffer in self.buffers:
            buffer.changed(None)
        return int(super().invalidate([obj._p_oid for obj in self.objects()]))

    def invalidate(self, oids: Collection[int]) -> int:
        """These stored objects change with the view's next state: the loaded and clean ones become ghosts. Returns how
        many."""
        for buffer in self.buffers:
            buffer.changed(oids)
        return int(super().invalidate(oids))

    def raise_autocommit_error(self) -> None:
        """Raise what the background commit met since the last call."""
        error = self.autocommit_error
        self.autocommit_error = None
        if error is not None:
            raise error

    def after_fork(self) -> None:
        """In a forked child: what is pending belongs to the parent."""
        self.forked = self.writable and not self.shared
        self.writable = False
        self.forget_oids()
        self.discard_dirty()
        self.discard_buffers()

    def close(self) -> None:
        """Drop everything. Objects still held raise ClosedError."""
        super().close()
        self._layouts.clear()
        self._common.clear()
        self.codes.clear()
        self._types.clear()
        self._records.clear()
        self.enum_values.clear()
        self.buffers.clear()
        self.tag_index = None
        self.fields = None
        self._catalogue = None
        self.decoder = _closed_decoder  # the other one refers to this view
