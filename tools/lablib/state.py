# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab remembers between two commands, and the lock that keeps two of them apart."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import paths
from .errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .progress import Progress

VERSION = 1
LOCK_SECONDS = 900


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process the lab started. The start time tells it from a later one with the same pid."""

    pid: int
    started: int


@dataclass(kw_only=True)
class HostState:
    """One host's power, processes and cut cables."""

    power: str = "off"
    owns_namespace: bool = False
    nspawn: Process | None = None
    init: Process | None = None
    cuts: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class State:
    """The whole lab."""

    boot_id: str
    release: str
    tree: str
    sites: int
    hosts: dict[str, HostState] = field(default_factory=dict)
    sysctls: dict[str, tuple[str, str]] = field(default_factory=dict)
    made_netns_directory: bool = False
    version: int = VERSION
    _guard: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def save(self) -> None:
        """Write the state so that a reader sees the old or the new one, never half of it."""
        with self._guard:
            document = {
                "version": self.version,
                "boot_id": self.boot_id,
                "release": self.release,
                "tree": self.tree,
                "sites": self.sites,
                "hosts": {name: asdict(host) for name, host in dict(self.hosts).items()},
                "sysctls": self.sysctls,
                "made_netns_directory": self.made_netns_directory,
            }
            paths.RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
            temporary = paths.STATE.with_suffix(".new")
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(document, file, indent=1, sort_keys=True)
            temporary.replace(paths.STATE)


def boot_id() -> str:
    """Names this boot of the machine: after a reboot nothing of an old state is true any more."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _process(value: dict[str, int] | None) -> Process | None:
    return None if value is None else Process(pid=value["pid"], started=value["started"])


def load() -> State | None:
    """The lab as it was left, or None when there is none on this boot of the machine."""
    try:
        document = json.loads(paths.STATE.read_text(encoding="utf-8"))
        if document["version"] != VERSION:
            raise LabError(
                f"{paths.STATE} has version {document['version']}, this lab knows {VERSION}. "
                "Take the lab down with the tools/lab that made it."
            )
        if document["boot_id"] != boot_id():
            return None
        return State(
            boot_id=document["boot_id"],
            release=document["release"],
            tree=document["tree"],
            sites=document["sites"],
            hosts={
                name: HostState(
                    power=host["power"],
                    owns_namespace=host["owns_namespace"],
                    nspawn=_process(host["nspawn"]),
                    init=_process(host["init"]),
                    cuts=dict(host["cuts"]),
                )
                for name, host in document["hosts"].items()
            },
            sysctls={name: (before, ours) for name, (before, ours) in document["sysctls"].items()},
            made_netns_directory=document["made_netns_directory"],
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise LabError(f"{paths.STATE} is not readable ({exc!r}). Remove it and run: tools/lab down") from exc


def require() -> State:
    """The lab that is up, or an error that says how to start one."""
    state = load()
    if state is None:
        raise LabError("No lab is up. Start one with: tools/lab up")
    return state


def _open_lock() -> int:
    return os.open(paths.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_current(handle: int) -> bool:
    """Without a lab the lock file goes too: whoever waited for it then holds a file that nobody else sees."""
    try:
        there = paths.LOCK.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(handle))


@contextlib.contextmanager
def locked(*, verb: str, progress: Progress) -> Iterator[None]:
    """Keep other commands that change the lab waiting while this one does."""
    handle = _open_lock()
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        told = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_current(handle):
                    break
                os.close(handle)
                handle = _open_lock()
            except BlockingIOError as exc:
                holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another command"
                if time.monotonic() > deadline:
                    raise LabError(
                        f"The lab is still held by {holder} after {LOCK_SECONDS} seconds. "
                        "Look what that process is doing, then try again."
                    ) from exc
                if not told:
                    progress.say(f"Waiting for {holder} to finish with the lab ...")
                    told = True
                time.sleep(0.2)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"tools/lab {verb} (pid {os.getpid()})\n".encode(), 0)
        yield
    finally:
        if not paths.STATE.exists() and _is_current(handle):
            paths.LOCK.unlink()
        os.close(handle)
