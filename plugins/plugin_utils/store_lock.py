# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One at a time: a lock that dies with its process and names its holder."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import KeyStoreLockedError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK: Final = "lock"
START_FIELD: Final = 19


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    started: str
    boot: str
    host: str

    @classmethod
    def find(cls, pid: int) -> Process:
        """The process of that number now."""
        return cls(pid=pid, started=_started(pid), boot=_boot(), host=socket.gethostname())

    @property
    def lives(self) -> bool:
        """Whether it runs here. Of a process on another host nothing can be known: its lock says whether it works."""
        if (self.boot, self.host) != (_boot(), socket.gethostname()):
            return False
        if self.started:
            return _started(self.pid) == self.started
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    @property
    def is_ours(self) -> bool:
        """Whether it is this process, or one that it was started by: a play's steps belong to one run."""
        pid = os.getpid()
        while pid > 0:
            if pid == self.pid:
                return self == Process.find(pid)
            pid = _parent(pid)
        return False


def who() -> str:
    """The person at work, as far as the system knows."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


@contextlib.contextmanager
def locked(*, directory: Path, holder: str, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of a directory; `patience` is how many seconds to wait for whoever has it.

    Raises:
        KeyStoreLockedError: somebody has it; the text says who.
    """
    handle = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience
    try:
        while True:
            try:
                _take(handle, fcntl.LOCK_EX, directory=directory)
                break
            except KeyStoreLockedError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.2)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{holder}\n".encode(), 0)
        yield
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def refuse_busy(directory: Path) -> None:
    """Raise as `locked` would when somebody holds the lock; take nothing."""
    try:
        handle = os.open(directory / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _take(handle, fcntl.LOCK_SH, directory=directory)
    finally:
        os.close(handle)


def _take(handle: int, how: int, *, directory: Path) -> None:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        found = os.pread(handle, 1000, 0).decode("utf-8", "replace").strip()
        raise KeyStoreLockedError(
            f"the key store {directory} is in use by {found or 'a process that does not say its name'}. Wait for it to "
            "end, then run again."
        ) from exc


def _started(pid: int) -> str:
    """When a process began, in ticks since the boot; nothing where the system does not say, or when it has ended."""
    fields = _stat(pid)
    return "" if not fields or fields[0] in "ZX" else fields[START_FIELD]


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _stat(pid: int) -> list[str]:
    """What the system says about a process, after its name, which may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
