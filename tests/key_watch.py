# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep what a run shows to others for a moment only: arguments and environments of processes, files written and gone.

Files come from the kernel (fanotify): every file that was open for writing and is closed, on whole file systems, even
when it has been deleted since. Processes come from the kernel too (its process connector), each as it starts; all of
them are looked at again a few times a second. Those of lab hosts are among them. A process that lives for less than a
millisecond can be missed.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_INIT: Final = 0x01 | 0x02 | 0x10  # close on exec, not blocking, a queue without end
_ADD_FILESYSTEM: Final = 0x01 | 0x100
_CLOSE_WRITE: Final = 0x08
_HERE: Final = -100
_EVENT: Final = struct.Struct("=IBBHQii")
BIGGEST: Final = 16 << 20

_CONNECTOR: Final = 11
_RECEIVE_BUFFER_FORCE: Final = 33
# A netlink header, then the connector's: index, value, sequence, ack, length, flags; then the order to report.
_LISTEN: Final = struct.pack("=IHHIIIIIIHHI", 40, 3, 0, 0, 0, 1, 1, 0, 0, 4, 0, 1)
_WHAT_AT: Final = 36
_PID_AT: Final = 52
_EXEC: Final = 2


@dataclass(frozen=True)
class Written:
    """One file as it was when its writer closed it."""

    host: str
    path: str
    mode: int
    content: bytes = field(repr=False)

    @property
    def private(self) -> bool:
        """Whether its owner alone can read it."""
        return not self.mode & 0o077


@dataclass
class Watch:
    """Look from `with` to its end. `places` names directories on the file systems to watch, by host."""

    places: Mapping[str, Iterable[Path]]
    files: list[Written] = field(default_factory=list)
    processes: dict[tuple[str, bytes], int] = field(default_factory=dict)
    sweeps: int = 0
    too_big: list[str] = field(default_factory=list)
    _seen: set[tuple[str, str, int, bytes]] = field(default_factory=set)
    _known: dict[int, bytes] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _queues: dict[int, str] = field(default_factory=dict)
    _news: socket.socket = field(init=False)

    def __enter__(self) -> Self:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.fanotify_mark.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p]
        for host, directories in self.places.items():
            # A queue for each host: a file on an overlay does not say by its numbers which overlay it is on.
            queue = libc.fanotify_init(_INIT, os.O_RDONLY | os.O_CLOEXEC | os.O_LARGEFILE)
            if queue < 0:
                raise OSError(ctypes.get_errno(), "fanotify is needed to see files that live for a moment")
            self._queues[queue] = host
            for directory in directories:
                if libc.fanotify_mark(queue, _ADD_FILESYSTEM, _CLOSE_WRITE, _HERE, os.fsencode(directory)):
                    raise OSError(ctypes.get_errno(), f"cannot watch {directory} of {host}")
        self._news = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _CONNECTOR)
        self._news.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, 16 << 20)
        self._news.bind((0, 1))
        self._news.send(_LISTEN)
        self._news.settimeout(0.2)
        works = (self._look, self._listen, self._hear)
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for queue in self._queues:
            self._drain(queue)
            os.close(queue)
        self._news.close()

    # --- files ---

    def _listen(self) -> None:
        while not self._ended.is_set():
            came = [self._drain(queue) for queue in self._queues]
            if not any(came):
                self._ended.wait(0.01)

    def _drain(self, queue: int) -> bool:
        any_came = False
        while True:
            try:
                events = os.read(queue, 1 << 16)
            except BlockingIOError:
                return any_came
            any_came = True
            while events:
                length, *_facts, descriptor, _padding = _EVENT.unpack_from(events)
                events = events[length:]
                if descriptor >= 0:
                    try:
                        self._keep(descriptor, host=self._queues[queue])
                    finally:
                        os.close(descriptor)

    def _keep(self, descriptor: int, *, host: str) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - what it says is no path when the file is gone
        state = os.fstat(descriptor)
        if state.st_size > BIGGEST:
            self.too_big.append(f"{host}:{path}")
            return
        content = os.pread(descriptor, BIGGEST, 0)
        mark = (host, path, state.st_mode & 0o777, hashlib.sha1(content, usedforsecurity=False).digest())
        if content and mark not in self._seen:
            self._seen.add(mark)
            self.files.append(Written(host=host, path=path, mode=state.st_mode & 0o777, content=content))

    # --- processes ---

    def _look(self) -> None:
        while not self._ended.wait(0.2):
            self._sweep()

    def _sweep(self) -> None:
        here = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208 - many times a minute
        for pid in here:
            self._read_process(pid)
        for pid in self._known.keys() - here:
            self._known.pop(pid, None)
        self.sweeps += 1

    def _hear(self) -> None:
        while not self._ended.is_set():
            try:
                event = self._news.recv(4096)
            except TimeoutError:
                continue
            except OSError:
                # More came than the buffer holds; the sweeps see what lives on.
                continue
            if struct.unpack_from("=I", event, _WHAT_AT)[0] == _EXEC:
                self._read_process(struct.unpack_from("=I", event, _PID_AT)[0])

    def _read_process(self, pid: int) -> None:
        # A process that has just gone is none to look at.
        with contextlib.suppress(OSError):
            words = _read(f"/proc/{pid}/cmdline")
            if self._known.get(pid) != words:
                self._known[pid] = words
                self.processes.setdefault(("cmdline", words), pid)
                self.processes.setdefault(("environ", _read(f"/proc/{pid}/environ")), pid)


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - the same
        return stream.read(1 << 20)
