# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process that is killed, or whose disk is full, from its nth change of the disk on."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Everything the project changes a disk with. `write` is cut in its middle.
CHANGES = ("write", "pwrite", "replace", "link", "unlink", "mkdir", "ftruncate")
# What a full disk refuses.
NEEDS_SPACE = ("write", "pwrite", "link", "mkdir", "open")

TASKS = "/proc/self/task"
# Threads that Python does not list: those of the test's runner.
UNLISTED = set(os.listdir(TASKS)) - {str(thread.native_id) for thread in threading.enumerate()}  # noqa: PTH208

End = Literal["done", "killed", "refused"]


def fork() -> int:
    """`os.fork`, when no thread is on its way out.

    One that was joined is still there for a moment, and takes a lock of OpenSSL as it goes. In a process that was
    forked meanwhile nobody ever gives that lock back.
    """
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        listed = {str(thread.native_id) for thread in threading.enumerate()}
        if not set(os.listdir(TASKS)) - listed - UNLISTED:  # noqa: PTH208
            break
        time.sleep(0.001)
    return os.fork()


def broken_at(step: int, work: Callable[[], object], *, how: Literal["kill", "full"]) -> tuple[End, str]:
    """Do the work in a process that breaks at its nth change; how it ended, and what it said."""
    out, into = os.pipe()
    pid = fork()
    if pid == 0:
        code = 1
        try:
            os.close(out)
            with _breaking(step, how):
                work()
            code = 0
        except Exception as exc:  # noqa: BLE001 - a forked test must not go on as a second pytest
            code = 7 if type(exc).__name__.endswith("Error") and "ansible_collections" in type(exc).__module__ else 1
            text = str(exc) if code == 7 else traceback.format_exc()
            with contextlib.suppress(OSError):
                _REAL["write"](into, text.encode()[:60000])
        finally:
            os._exit(code)
    os.close(into)
    with os.fdopen(out, errors="replace") as pipe:
        said = pipe.read()
    _pid, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return "killed", said
    code = os.WEXITSTATUS(status)
    assert code in {0, 7}, said
    return ("done" if code == 0 else "refused"), said


_REAL: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in {*CHANGES, *NEEDS_SPACE}}


@contextlib.contextmanager
def _breaking(step: int, how: str) -> Iterator[None]:
    count = 0
    mutex = threading.Lock()

    def due(name: str, args: tuple[Any, ...]) -> bool:
        nonlocal count
        if name == "open" and not args[1] & os.O_CREAT:
            return False
        with mutex:
            count += 1
            return count >= step

    def wrapped(name: str) -> Callable[..., Any]:
        real = _REAL[name]

        def call(*args: Any, **more: Any) -> Any:
            if due(name, args):
                if name == "write" and len(args[1]) > 1 and count == step:
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                if how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **more)

        return call

    for name in CHANGES if how == "kill" else NEEDS_SPACE:
        setattr(os, name, wrapped(name))
    yield
