"""ByteArray: the persistent counterpart of builtin bytearray.

State: up to CHUNK bytes in the collection's own record; more of them in a counted tree
(:mod:`dbzero.collections.counted`) whose leaves are chunks. Reading and changing touches the chunks concerned. What
searches or transforms works on a copy of the whole in memory, as its result is one, too.
"""

from __future__ import annotations

import collections.abc
from collections.abc import Callable, Iterable, Iterator
from operator import index
from typing import Any

from dbzero.collections import counted
from dbzero.collections.counted import CHUNK, ListNode
from dbzero.collections.nodes import (
    Stored,
    begin,
    corrupt,
    create,
    member,
    moved,
    natural,
    pack,
    relieve,
    set_data,
    unpack,
)
from dbzero.model import base, scope
from dbzero.model.base import operation
from dbzero.model.view import View

_LIKE = (bytes, bytearray, memoryview)


class State:
    """Loaded state: all of it in `data`, or (data None) `count` bytes below `root`. `version` changes with every
    change."""

    __slots__ = ("count", "data", "root", "version")

    def __init__(self, data: bytearray | None) -> None:
        self.data = data
        self.count = 0
        self.root: ListNode | None = None
        self.version = 0


def plain(value: Any) -> Any:
    """`value`, or its content when it is a ByteArray."""
    return value._p_read() if isinstance(value, ByteArray) else value


def _asked(name: str) -> Any:
    """A method of builtin bytearray that changes nothing, and whose result is a builtin value."""
    builtin: Callable[..., Any] = getattr(bytearray, name)

    def method(self: ByteArray, *args: Any, **kw: Any) -> Any:
        return builtin(self._p_read(), *_plain_all(args), **{name: plain(arg) for name, arg in kw.items()})

    return _dressed(method, builtin)


def _made(name: str) -> Any:
    """A method of builtin bytearray whose result is a new bytearray, here a stored one."""
    builtin: Callable[..., bytearray] = getattr(bytearray, name)

    def method(self: ByteArray, *args: Any, **kw: Any) -> Any:
        return self._p_of(builtin(self._p_read(), *_plain_all(args), **{name: plain(arg) for name, arg in kw.items()}))

    return _dressed(method, builtin)


def _dressed(method: Any, builtin: Any) -> Any:
    method.__name__ = builtin.__name__
    method.__qualname__ = f"ByteArray.{builtin.__name__}"
    method.__doc__ = builtin.__doc__
    return method


def _plain_all(args: tuple[Any, ...]) -> list[Any]:
    return [tuple([plain(item) for item in arg]) if type(arg) is tuple else plain(arg) for arg in args]


def _byte(value: Any) -> int:
    number = index(value)
    if not 0 <= number <= 255:
        raise ValueError("byte must be in range(0, 256)")
    return number


class ByteArray(Stored):
    """A mutable sequence of bytes that lives in a prefix. Make one with ``db0.bytearray``; it has the methods and
    operators of a builtin bytearray.

    Slices are builtin bytearrays. Methods that make a bytearray make a persistent one on the same prefix (on a
    read-only prefix a builtin one); those that split make builtin ones. Equal to bytes and bytearrays of the same
    content.
    """

    __slots__ = ()
    KIND = 12
    __hash__ = None  # type: ignore[assignment]
    _data: State

    def __new__(cls, *args: Any, **kw: Any) -> Any:
        if args or kw:
            raise TypeError("make bytearrays with db0.bytearray()")
        return super().__new__(cls)

    # --- storing ------------------------------------------------------------------------------------------------------

    def _p_encode(self) -> tuple[bytes, list[int]]:
        state = self._data
        if state.data is not None:
            return pack(self.KIND, [0, bytes(state.data)])
        assert state.root is not None
        oid = state.root._p_oid
        return pack(self.KIND, [state.count, oid])[0], [oid]

    def _p_decode(self, payload: bytes) -> None:
        count, content = unpack(self, payload, 2)[:2]
        if natural(self, count):
            state = State(None)
            state.count = count
            state.root = member(self, ListNode, content)
        elif type(content) is bytes:
            state = State(bytearray(content))
        else:
            raise corrupt(self, "content that isn't bytes")
        set_data(self, state)

    def _p_clear(self) -> None:
        self._data.version += 1
        set_data(self, None)

    def _p_native(self, view: View) -> Any:
        raise TypeError("unhashable type: 'ByteArray'")

    def _p_harden(self, view: View) -> Any:
        """What another prefix's `view` stores when this is assigned to one of its objects: see :func:`moved`."""
        return moved(self, view, lambda: make(view, self._p_read()))

    # --- reading ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        state = self._data
        return state.count if state.data is None else len(state.data)

    def _p_read(self, low: int = 0, high: int | None = None) -> bytearray:
        """The bytes at positions low..high-1 (in range; None: the end), copied."""
        relieve(self)
        with operation:
            state = self._data
            if state.data is not None:
                return state.data[low:high]
            assert state.root is not None
            high = state.count if high is None else high
            content = bytearray()
            while low < high:
                leaf, offset = counted.locate(state.root, low)
                part = leaf._data[offset : offset + high - low]
                content += part
                low += len(part)
            return content

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            with operation:
                start, stop, step = key.indices(len(self))
                places = range(start, stop, step)
                if not places:
                    return bytearray()
                low, high = min(places[0], places[-1]), max(places[0], places[-1]) + 1
                return self._p_read(low, high)[:: step if step > 0 else 1][:: 1 if step > 0 else step]
        if not hasattr(key, "__index__"):
            raise TypeError(f"bytearray indices must be integers or slices, not {type(key).__name__}")
        relieve(self)
        with operation:
            place = self._p_place(index(key), "bytearray index out of range")
            state = self._data
            if state.data is not None:
                return state.data[place]
            assert state.root is not None
            leaf, offset = counted.locate(state.root, place)
            return leaf._data[offset]

    def _p_place(self, place: int, message: str) -> int:
        n = len(self)
        if place < 0:
            place += n
        if not 0 <= place < n:
            raise IndexError(message)
        return place

    def __iter__(self) -> Iterator[int]:
        place = 0
        while True:
            with operation:
                n = len(self)
                part = self._p_read(place, min(n, place + CHUNK)) if place < n else bytearray()
                state = self._data
                version = state.version
            if not part:
                return
            for byte in part:
                place += 1
                yield byte
                if state.version != version:
                    break

    def __reversed__(self) -> Iterator[int]:
        place = len(self) - 1
        while place >= 0:
            try:
                byte: int = self[place]
            except IndexError:
                return
            yield byte
            place -= 1

    def __contains__(self, value: Any) -> bool:
        return plain(value) in self._p_read()

    def __bytes__(self) -> bytes:
        return bytes(self._p_read())

    def __buffer__(self, flags: int) -> memoryview:
        return memoryview(bytes(self._p_read()))

    def __repr__(self) -> str:
        if self._p_flags & (base.CLOSED | base.EXPIRED):
            return f"<ByteArray object at {id(self):#x}, no longer accessible>"
        return repr(self._p_read())

    def _p_compare(self, other: Any, name: str) -> Any:
        if isinstance(other, ByteArray):
            other = other._p_read()
        elif not isinstance(other, _LIKE):
            return NotImplemented
        return getattr(self._p_read(), name)(other)

    def __eq__(self, other: object) -> Any:
        if self is other:
            return True
        if isinstance(other, (ByteArray, bytes, bytearray)) and len(other) != len(self):
            return False
        return self._p_compare(other, "__eq__")

    def __ne__(self, other: object) -> Any:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __lt__(self, other: Any) -> Any:
        return self._p_compare(other, "__lt__")

    def __le__(self, other: Any) -> Any:
        return self._p_compare(other, "__le__")

    def __gt__(self, other: Any) -> Any:
        return self._p_compare(other, "__gt__")

    def __ge__(self, other: Any) -> Any:
        return self._p_compare(other, "__ge__")

    # --- changing -----------------------------------------------------------------------------------------------------

    def _p_splice(self, low: int, high: int, new: bytes | bytearray) -> None:
        """Replace the bytes at positions low..high-1 (in range) by `new`. Inside an operation."""
        self._p_changed()
        state = self._data
        state.version += 1
        view = self._p_view
        n = len(self) - (high - low) + len(new)
        if state.data is not None:
            state.data[low:high] = new
            if n > CHUNK:
                state.root, state.count, state.data = counted.paste(view, None, 0, state.data), n, None
            return
        root = state.root
        if n <= CHUNK // 2:
            content = self._p_read(0, low)
            content += new
            content += self._p_read(high)
            state.data, state.root, state.count = content, None, 0
            return
        assert root is not None
        kept = min(high - low, len(new))
        content = bytearray(new)
        at = 0
        while at < kept:  # what is replaced byte by byte needs no other place
            leaf, offset = counted.locate(root, low + at)
            data = leaf._data
            size = min(kept - at, len(data) - offset)
            if data[offset : offset + size] != content[at : at + size]:
                leaf._p_changed()
                data[offset : offset + size] = content[at : at + size]
            at += size
        left = high - low - kept
        state.count -= left
        while left:
            assert root is not None
            removed, root = counted.cut(root, low + kept, left)
            left -= len(removed)
            state.root = root
        if kept < len(content):
            state.root = counted.paste(view, root, low + kept, content[kept:])
            state.count += len(content) - kept

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(key, slice):
            self._p_assign(
                key, _content(value, "can assign only bytes, buffers, or iterables of ints in range(0, 256)")
            )
            return
        if not hasattr(key, "__index__"):
            raise TypeError(f"bytearray indices must be integers or slices, not {type(key).__name__}")
        byte = _byte(value)
        with operation:
            begin(self)
            place = self._p_place(index(key), "bytearray index out of range")
            self._p_splice(place, place + 1, bytes((byte,)))

    def __delitem__(self, key: Any) -> None:
        if isinstance(key, slice):
            self._p_assign(key, b"")
            return
        if not hasattr(key, "__index__"):
            raise TypeError(f"bytearray indices must be integers or slices, not {type(key).__name__}")
        with operation:
            begin(self)
            place = self._p_place(index(key), "bytearray index out of range")
            self._p_splice(place, place + 1, b"")

    def _p_assign(self, key: slice, content: bytes | bytearray) -> None:
        with operation:
            begin(self)
            start, stop, step = key.indices(len(self))
            if step == 1:
                self._p_splice(start, max(start, stop), content)
                return
            places = range(start, stop, step)
            if not places and not content:
                return
            low, high = (min(places[0], places[-1]), max(places[0], places[-1]) + 1) if places else (start, start)
            span = self._p_read(low, high)
            span[slice(places[0] - low, None, step) if places else slice(0, 0, step)] = content
            self._p_splice(low, high, span)

    def append(self, item: Any, /) -> None:
        """Add one byte at the end. ValueError when it is not in 0..255."""
        byte = _byte(item)
        with operation:
            begin(self)
            n = len(self)
            self._p_splice(n, n, bytes((byte,)))

    def extend(self, iterable: Any, /) -> None:
        """Add the bytes of bytes-like content or of an iterable of ints at the end."""
        content = _content(iterable, f"can't extend bytearray with {type(iterable).__name__}")
        with operation:
            begin(self)
            n = len(self)
            self._p_splice(n, n, content)

    def insert(self, place: Any, item: Any, /) -> None:
        """Insert one byte before a position (clipped to the ends)."""
        place, byte = index(place), _byte(item)
        with operation:
            begin(self)
            n = len(self)
            place = max(place + n, 0) if place < 0 else min(place, n)
            self._p_splice(place, place, bytes((byte,)))

    def pop(self, place: Any = -1, /) -> int:
        """Remove and return the byte at a position. IndexError when there is none."""
        place = index(place)
        with operation:
            begin(self)
            if not len(self):
                raise IndexError("pop from empty bytearray")
            place = self._p_place(place, "pop index out of range")
            byte: int = self[place]
            self._p_splice(place, place + 1, b"")
            return byte

    def remove(self, value: Any, /) -> None:
        """Remove the first byte of that value. ValueError when there is none."""
        byte = _byte(value)
        with operation:
            begin(self)
            place = self._p_read().find(byte)
            if place < 0:
                raise ValueError("value not found in bytearray")
            self._p_splice(place, place + 1, b"")

    def clear(self) -> None:
        """Remove everything."""
        with operation:
            begin(self)
            self._p_splice(0, len(self), b"")

    def reverse(self) -> None:
        """Reverse the order in place."""
        with operation:
            begin(self)
            self._p_splice(0, len(self), self._p_read()[::-1])

    def copy(self) -> Any:
        """A new bytearray of the same prefix with the same content."""
        return self._p_of(self._p_read())

    # --- operators ----------------------------------------------------------------------------------------------------

    def _p_of(self, content: bytearray) -> Any:
        """What a method returns that makes a bytearray."""
        view = self._p_view
        return make(view, content) if view.writable else content

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, (ByteArray, *_LIKE)):
            return NotImplemented
        return self._p_of(self._p_read() + plain(other))

    def __radd__(self, other: Any) -> Any:
        if not isinstance(other, _LIKE):
            return NotImplemented
        return self._p_of(bytearray(other) + self._p_read())

    def __iadd__(self, other: Any) -> ByteArray:
        if not isinstance(other, (ByteArray, *_LIKE)):
            raise TypeError(f"can't concat {type(other).__name__} to bytearray")
        self.extend(other)
        return self

    def __mul__(self, times: Any) -> Any:
        if not hasattr(times, "__index__"):
            return NotImplemented
        return self._p_of(self._p_read() * index(times))

    __rmul__ = __mul__

    def __imul__(self, times: Any) -> Any:
        if not hasattr(times, "__index__"):
            return NotImplemented
        times = index(times)
        with operation:
            begin(self)
            n = len(self)
            if times <= 0:
                self._p_splice(0, n, b"")
            else:
                self._p_splice(n, n, self._p_read() * (times - 1))
        return self

    def __mod__(self, values: Any) -> Any:
        values = tuple([plain(item) for item in values]) if type(values) is tuple else plain(values)
        return self._p_of(self._p_read() % values)

    def __rmod__(self, other: Any) -> Any:
        return NotImplemented

    # --- as of a builtin ----------------------------------------------------------------------------------------------

    count = _asked("count")
    decode = _asked("decode")
    endswith = _asked("endswith")
    find = _asked("find")
    hex = _asked("hex")
    index = _asked("index")
    isalnum = _asked("isalnum")
    isalpha = _asked("isalpha")
    isascii = _asked("isascii")
    isdigit = _asked("isdigit")
    islower = _asked("islower")
    isspace = _asked("isspace")
    istitle = _asked("istitle")
    isupper = _asked("isupper")
    partition = _asked("partition")
    rfind = _asked("rfind")
    rindex = _asked("rindex")
    rpartition = _asked("rpartition")
    rsplit = _asked("rsplit")
    split = _asked("split")
    splitlines = _asked("splitlines")
    startswith = _asked("startswith")

    capitalize = _made("capitalize")
    center = _made("center")
    expandtabs = _made("expandtabs")
    ljust = _made("ljust")
    lower = _made("lower")
    lstrip = _made("lstrip")
    removeprefix = _made("removeprefix")
    removesuffix = _made("removesuffix")
    replace = _made("replace")
    rjust = _made("rjust")
    rstrip = _made("rstrip")
    strip = _made("strip")
    swapcase = _made("swapcase")
    title = _made("title")
    translate = _made("translate")
    upper = _made("upper")
    zfill = _made("zfill")

    def join(self, parts: Iterable[Any], /) -> Any:
        """The parts, with this between each two."""
        return self._p_of(self._p_read().join([plain(part) for part in parts]))

    maketrans = staticmethod(bytearray.maketrans)

    @staticmethod
    def fromhex(text: str, /) -> ByteArray:
        """A new bytearray on the current prefix, from hexadecimal digits."""
        return make(scope.current_view(True), bytearray.fromhex(text))

    def _check(self) -> None:
        """Verify the structure; AssertionError tells what is wrong."""
        with operation:
            state = self._data
            if state.data is not None:
                assert len(state.data) <= CHUNK and state.root is None and not state.count, "too many bytes"
            else:
                assert state.root is not None and counted.check(state.root) == state.count, "wrong number of bytes"
                assert all(type(leaf._data) is bytearray for leaf in counted.leaves(state.root)), "a leaf of values"


collections.abc.MutableSequence.register(ByteArray)


def _content(value: Any, message: str) -> bytes | bytearray:
    """The bytes of bytes-like content, or of an iterable of ints, copied."""
    if isinstance(value, ByteArray):
        return value._p_read()
    if isinstance(value, (int, str)) or not (hasattr(value, "__iter__") or isinstance(value, memoryview)):
        raise TypeError(message)
    return bytearray(value)


def make(view: View, content: bytes | bytearray) -> ByteArray:
    """A new bytearray in `view`."""
    with operation:
        made = create(view, ByteArray, State(bytearray()))
        made._p_splice(0, 0, content)
        return made


def make_bytearray(source: Any = b"", /, *args: Any, **kw: Any) -> ByteArray:
    """A new persistent bytearray on the current prefix.

    Args:
        source: bytes-like content, an iterable of ints in 0..255, a length (for that many zeros), or a str; then also
            `encoding` and `errors`, as for a builtin bytearray.

    Raises:
        TypeError, ValueError: as a builtin bytearray does. ReadOnlyError: the prefix is read-only.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> content = db0.bytearray(b"durable")
    >>> content += b" bytes"
    >>> content[0] = ord("D")
    >>> content
    bytearray(b'Durable bytes')
    >>> content.upper() == b"DURABLE BYTES"
    True
    >>> db0.close()
    """
    return make(scope.current_view(True), bytearray(plain(source), *args, **kw))
