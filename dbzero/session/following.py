"""Following other processes' commits: views move forward by themselves.

One thread of a process sleeps until one of the prefixes that it follows has something new, and moves that view. It is started with
the first such prefix and ends with the last. (Where the kernel cannot wait for several words at once each prefix has a thread of its
own. So has one whose writer does not share the segment: that is followed by what appears on disk.)
"""

from __future__ import annotations

import time
from typing import Final

from dbzero.errors import ClosedError
from dbzero.model.base import operation
from dbzero.model.view import View
from dbzero.runtime import osthreads
from dbzero.runtime.segment import Segment
from dbzero.runtime.watching import Followed, most
from dbzero.session.refresh import refresh_view
from dbzero.storage.prefix import Prefix
from dbzero.storage.reading import PATIENCE

_HEALTH_CHECK_SECONDS: Final = 1.0
_AGAIN_SECONDS: Final = 0.005  # while a successor recovers, or a transaction of this process has lost its turn


class Follower:
    """Keeps one view at the newest durable state, from :meth:`Followers.add` to :meth:`stop`."""

    def __init__(self, followers: Followers, view: View, prefix: Prefix) -> None:
        self.view: Final = view
        self.prefix: Final = prefix
        self.thread: _Thread | None = None
        self.looking = osthreads.Lock()  # held by the thread while it looks
        self.stopping = False
        self._followers = followers
        self._due = 0.0  # monotonic time before which the prefix is left alone
        self._check = time.monotonic() + _HEALTH_CHECK_SECONDS  # and the one of the next look in case of no news
        self._again = self._check

    def stop(self) -> None:
        """Look no more, and wait for the look that is under way."""
        self.stopping = True
        thread = self._followers.discard(self)
        self.prefix.wake()
        # Whoever holds the operation lock must not wait for a thread that may be waiting for it: that one finds out by itself.
        if thread is not None and not thread.is_current() and not operation.held():
            while not self.looking.acquire(timeout=0.05):
                self.prefix.wake()
            self.looking.release()

    def note(self, followed: Followed, place: int) -> None:
        """What to sleep on, before the next look."""
        watched = self.prefix.watched()
        followed.note(place, watched, (self.view.state, self.view.incarnation), self._due, self._again)

    def look(self, alone: bool) -> bool:
        """Move the view to the newest state. True: this cannot be done beside other prefixes.

        alone: no other prefix is kept waiting."""
        elsewhere = False
        pause, again = 0.0, _HEALTH_CHECK_SECONDS
        try:
            if time.monotonic() >= self._check:
                self.prefix.tidy()
                elsewhere = not alone and self.prefix.follow_log(0.0)
                while alone and not self.stopping and self.prefix.follow_log(_HEALTH_CHECK_SECONDS):
                    refresh_view(self.view, self.prefix)
            if not self.stopping:
                patience = PATIENCE if alone else 0.0
                pause = self.prefix.pause(refresh_view(self.view, self.prefix, patience))
                if self.prefix.newest(patience) is None:
                    again = _AGAIN_SECONDS
        except Exception as error:
            # The next operation of the user meets the same damage and raises it; a thread has no caller.
            self.view.follow_error = error
            self.stopping = self.stopping or self.view.closed
            pause = _HEALTH_CHECK_SECONDS
        now = time.monotonic()
        self._due = now + pause if pause else 0.0
        self._check = now if elsewhere else now + _HEALTH_CHECK_SECONDS
        self._again = min(self._check, now + again)
        return elsewhere


class _Thread:
    """A thread with the prefixes that it follows."""

    def __init__(self, followers: Followers, alone: bool) -> None:
        self.alone: Final = alone  # it has one prefix and may sleep on something else for it
        self.entries: list[Follower] = []  # changed under the guard of `followers`
        self.changes = 0
        self._followers = followers
        self._thread = osthreads.thread(self._run, "dbzero-follow")

    def start(self) -> None:
        self._thread.start()

    def is_current(self) -> bool:
        return osthreads.is_current(self._thread)

    def _run(self) -> None:
        try:
            while (found := self._followers.entries_of(self))[0]:
                self._follow(*found)
        except ClosedError:
            pass  # the segment was closed
        finally:
            self._followers.ended(self)

    def _follow(self, entries: list[Follower], changes: int) -> None:
        """Until other prefixes are to be followed."""
        followed = Followed(self._followers.segment, len(entries))
        for place, entry in enumerate(entries):
            entry.note(followed, place)
        while changes == self.changes:
            news = followed.sleep()
            if news is None or changes != self.changes:
                continue
            entry = entries[news]
            with entry.looking:
                elsewhere = not entry.stopping and entry.look(self.alone)
            if entry.stopping:
                self._followers.discard(entry)
            elif elsewhere:
                self._followers.separate(entry)
            else:
                entry.note(followed, news)


class Followers:
    """Those of one process."""

    def __init__(self, segment: Segment) -> None:
        self.segment: Final = segment
        self._guard = osthreads.Lock()
        self._threads: list[_Thread] = []
        self._most = 0

    def add(self, view: View, prefix: Prefix) -> Follower:
        """Keep a view at the newest durable state of its prefix. (Where a thread would be the end of the workers the view stays where it is.)"""
        entry = Follower(self, view, prefix)
        if osthreads.forks_unheard():
            return entry
        self._most = self._most or most()
        with self._guard:
            self._place(entry, self._most == 1)
        return entry

    def separate(self, entry: Follower) -> None:
        """Give a prefix a thread of its own."""
        with self._guard:
            if self._remove(entry) is not None:
                self._place(entry, True)

    def discard(self, entry: Follower) -> _Thread | None:
        """Follow a prefix no more. Returns the thread that may be looking at it."""
        with self._guard:
            return self._remove(entry) or entry.thread

    def entries_of(self, thread: _Thread) -> tuple[list[Follower], int]:
        """What a thread is to follow, and the number of changes to that. Nothing: it gets no other prefix, and ends."""
        with self._guard:
            return list(thread.entries), thread.changes

    def ended(self, thread: _Thread) -> None:
        """The thread follows nothing any more."""
        with self._guard:
            thread.entries.clear()
            self._threads.remove(thread)

    def _place(self, entry: Follower, alone: bool) -> None:
        for thread in self._threads:
            if not alone and not thread.alone and 0 < len(thread.entries) < self._most:
                thread.entries.append(entry)
                thread.changes += 1
                entry.thread = thread
                thread.entries[0].prefix.wake()
                return
        thread = _Thread(self, alone)
        thread.entries.append(entry)
        entry.thread = thread
        thread.start()
        self._threads.append(thread)

    def _remove(self, entry: Follower) -> _Thread | None:
        thread = entry.thread
        if thread is None or entry not in thread.entries:
            return None
        thread.entries.remove(entry)
        thread.changes += 1
        return thread
