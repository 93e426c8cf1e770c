# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One thread that ends every wait whose time is over: some waits inside paramiko have no end of their own."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Entries that are over stay in the heap until their time has come; beyond so many of them it is swept.
_SWEEP = 256


class _Entry:
    """A call to be made at a time, unless it is taken back."""

    __slots__ = ("at", "call", "number")

    def __init__(self, *, at: float, number: int, call: Callable[[], None]) -> None:
        self.at = at
        self.number = number
        self.call: Callable[[], None] | None = call

    def __lt__(self, other: _Entry) -> bool:
        return (self.at, self.number) < (other.at, other.number)


class Watchdog:
    """Calls back at given times, for any number of waits. The thread is a daemon and starts with the first wait."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._reset()
        # Ansible forks: a child has none of its parent's threads, and perhaps a lock that nobody will release.
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._news = threading.Condition()
        self._heap: list[_Entry] = []
        self._over = 0
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def watching(self, at: float, call: Callable[[], None]) -> Iterator[None]:
        """Call `call` from another thread if the block is not over at `at`, monotonic seconds."""
        entry = _Entry(at=at, number=next(self._numbers), call=call)
        with self._news:
            heapq.heappush(self._heap, entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="spokewright-watchdog", daemon=True)
                self._thread.start()
            elif self._heap[0] is entry:
                self._news.notify()
        try:
            yield
        finally:
            self._forget(entry)

    def _forget(self, entry: _Entry) -> None:
        with self._news:
            entry.call = None
            self._over += 1
            if self._over > _SWEEP and self._over * 2 > len(self._heap):
                self._heap = [one for one in self._heap if one.call is not None]
                heapq.heapify(self._heap)
                self._over = 0

    def _serve(self) -> None:
        while True:
            with self._news:
                while not self._heap or self._heap[0].at > time.monotonic():
                    self._news.wait(self._heap[0].at - time.monotonic() if self._heap else None)
                call = heapq.heappop(self._heap).call
                self._over -= call is None
            if call is not None:
                # To close a connection through a bastion that hangs takes time, and the next wait has its own end.
                threading.Thread(target=call, name="spokewright-expiry", daemon=True).start()


WATCHDOG = Watchdog()
