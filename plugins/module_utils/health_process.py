# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the health daemon sees of other daemons: who listens on a Unix socket, what it says, whether it wakes up.

Runs on gateways: standard library only, needs root. Nothing here waits.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
import typing as t
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.module_utils.management import GREETING

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.module_utils.health_instance import Answer

# The first byte is the code of a data packet. From somebody who has no session OpenVPN drops it without a word.
MEANINGLESS = b"\x30"
DEFAULT_PORT = 1194


class Question:
    """One connection to a Unix socket of a daemon, open only until the daemon has answered.

    It stays open while the daemon serves somebody else: a new one for each look would fill the daemon's queue.
    """

    def __init__(self, *, path: str, send: bytes, expect: bytes) -> None:
        self._path, self._send, self._expect = path, send, expect
        self._socket: socket.socket | None = None
        self._received = b""
        self.state: Answer = "free"
        self.listener: int | None = None

    def fileno(self) -> int:
        """The socket to wait for, or -1."""
        return self._socket.fileno() if self._socket else -1

    def ask(self) -> None:
        """Connect, and say what is to be said. ``listener`` is then the process that listens."""
        self.close()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(self._path)
            pid, _user, _group = struct.unpack("3i", self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            self.listener = pid or None
            if self._send:
                self._socket.send(self._send)
            self.state = "waiting"
        except BlockingIOError:
            # Its queue is full: it is there, and does not answer.
            self.close()
        except OSError:
            self.close()
            self.state, self.listener = "refused", None

    def receive(self) -> None:
        """Take in what has arrived."""
        while self._socket and self.state == "waiting":
            try:
                data = self._socket.recv(4096)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self._received += data
            if self._received.startswith(self._expect):
                self.close()
                self.state = "answered"
            elif not data or not self._expect.startswith(self._received):
                self.close()
                self.state = "refused"

    def take(self) -> Answer:
        """The state now. An answer, or a refusal, is told once."""
        self.receive()
        state = self.state
        if state in {"answered", "refused"}:
            self.state = "free"
        return state

    def close(self) -> None:
        """Leave."""
        if self._socket:
            self._socket.close()
        self._socket, self._received, self.state = None, b"", "free"


def greeting(*, path: str) -> Question:
    """Ask an OpenVPN daemon for the greeting of its management interface."""
    return Question(path=path, send=b"", expect=GREETING.encode())


def empty_command(*, path: str) -> Question:
    """Ask an FRR daemon to run no command; it says that this went well."""
    return Question(path=path, send=b"\0", expect=b"\0\0\0\0")


class Process:
    """One process, held by a descriptor, so that another one that gets its number is never taken for it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._handle = os.pidfd_open(pid)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._handle)

    def alive(self) -> bool:
        """Whether it has not ended."""
        try:
            signal.pidfd_send_signal(self._handle, 0)
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End it without asking it."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def wakes(self) -> int | None:
        """How often it has gone to sleep of its own accord. None when it has ended."""
        try:
            text = Path("/proc/%d/status" % self.pid).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        found = re.search(r"^voluntary_ctxt_switches:\s*(\d+)$", text, re.MULTILINE)
        return int(found[1]) if found and self.alive() else None

    def busy(self) -> bool:
        """Whether it runs or wants to, waits for the disk, or for a program that it has started.

        A stopped process (T), and one that sleeps and does not wake (S), is not. Source: proc_pid_stat(5),
        proc_tid_children(5).
        """
        here = Path("/proc/%d" % self.pid)
        with contextlib.suppress(OSError):
            # Its name, in parentheses, may hold anything.
            state = here.joinpath("stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
            if state in {"R", "D"}:
                return True
            return bool(here.joinpath("task", str(self.pid), "children").read_text(encoding="ascii").strip())
        return False


def port_in(*, configuration: str) -> int:
    """The port an OpenVPN configuration names."""
    try:
        text = Path(configuration).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return DEFAULT_PORT
    found = re.search(r"^\s*(?:port|lport)\s+(\d{1,5})\s*$", text, re.MULTILINE)
    return int(found[1]) if found else DEFAULT_PORT


def poke(*, through: socket.socket, port: int) -> None:
    """Wake a daemon that lives."""
    with contextlib.suppress(OSError):
        through.sendto(MEANINGLESS, ("127.0.0.1", port))
