# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SSH with paramiko: a login on one host, for one or more commands."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final, Self

import paramiko

from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_bastion import way_through
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_login import Connection, dial, login_key, say
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_types import (
    Answer,
    Clock,
    ClosedError,
    Listener,
    Target,
    Timeouts,
    cut_off,
    persistently,
    pinned_key,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.watchdog import WATCHDOG

if TYPE_CHECKING:
    import socket
    from types import TracebackType

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_types import Wanted

CHUNK: Final = 1 << 15


class Session:
    """A login on one host. Use it in a with statement; entering it logs in, and tries again where that may help."""

    def __init__(self, *, target: Target, timeouts: Timeouts | None = None) -> None:
        self.target = target
        self.timeouts = timeouts or Timeouts()
        self._clock = Clock(target=target, timeouts=self.timeouts)
        self._held = contextlib.ExitStack()
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        # What is wrong here is wrong every time, and nothing has to be dialled to know it.
        pinned_key(target=self.target)
        login_key(self.target.private_key_file)
        persistently(clock=self._clock, attempt=self._open)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._held.close()

    def run(self, *, command: str, stdin: bytes = b"") -> Answer:
        """Run one command to its end."""
        return self._exchange(command=command, stdin=stdin, wanted=None)

    def converse(self, *, command: str, stdin: bytes, wanted: Wanted) -> Answer:
        """Run one command and let its output decide what else it is sent.

        `stdin` goes first. Each whole line of output, without its line end, is given to `wanted`. What it returns is
        sent, once, and standard input is shut; b"" shuts it without sending, None waits for the next line.
        """
        return self._exchange(command=command, stdin=stdin, wanted=wanted)

    def _open(self) -> None:
        self._held.close()
        connection = Connection(clock=self._clock)
        try:
            connection.open(link=self._dial())
        except BaseException:
            self._held.close()
            raise
        self._connection = connection

    def _dial(self) -> socket.socket | paramiko.Channel:
        if self.target.bastion is not None:
            return self._held.enter_context(way_through(bastion=self.target.bastion, clock=self._clock))
        return dial(clock=self._clock)

    def _exchange(self, *, command: str, stdin: bytes, wanted: Wanted | None) -> Answer:
        connection = self._connection
        if connection is None or connection.transport is None:
            raise ClosedError(f"{self.target.name}: the connection is closed.")
        end = min(self._clock.end, time.monotonic() + self.timeouts.command)
        channel = None
        try:
            with WATCHDOG.watching(end, connection.expire):
                channel = connection.transport.open_session(timeout=self._clock.left("open a channel", end=end))
                channel.exec_command(command)
                return self._talk(connection=connection, channel=channel, stdin=stdin, wanted=wanted, end=end)
        except (paramiko.SSHException, EOFError, OSError) as exc:
            if connection.expired or isinstance(exc, TimeoutError):
                raise self._clock.stalled("answer the command") from exc
            raise cut_off(target=self.target, why=say(exc)) from exc
        finally:
            if channel is not None:
                with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                    channel.close()

    def _talk(
        self, *, connection: Connection, channel: paramiko.Channel, stdin: bytes, wanted: Wanted | None, end: float
    ) -> Answer:
        began = time.monotonic()
        listener = Listener(name=self.target.name, wanted=wanted)
        _send(channel=channel, data=stdin, end=end, last=wanted is None)
        while True:
            channel.settimeout(self._clock.left("finish the command", end=end))
            chunk = channel.recv(CHUNK)
            if not chunk:
                break
            answer = listener.hear(chunk)
            if answer is not None:
                _send(channel=channel, data=answer, end=end, last=True)
        err = bytearray()
        while channel.recv_stderr_ready():
            err += channel.recv_stderr(CHUNK)
        # recv_exit_status() waits for ever on a dead link.
        left = self._clock.left("say how the command ended", end=end)
        if not channel.status_event.wait(left) or connection.expired:
            raise self._clock.stalled("say how the command ended")
        if channel.exit_status < 0 and not connection.alive:
            raise EOFError
        return Answer(
            exit_status=channel.exit_status,
            stdout=bytes(listener.out),
            stderr=bytes(err),
            seconds=time.monotonic() - began,
        )


def _send(*, channel: paramiko.Channel, data: bytes, end: float, last: bool) -> None:
    """Send, and shut standard input behind it if it was the `last`.

    A command may answer without having read all; its answer is what counts.
    """
    with contextlib.suppress(BrokenPipeError):
        view = memoryview(data)
        while view:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            channel.settimeout(left)
            try:
                sent = channel.send(bytes(view[:CHUNK]))
            except TimeoutError:
                raise
            except OSError as exc:
                # paramiko says "Socket is closed" for a command that ended before reading everything.
                raise BrokenPipeError from exc
            view = view[sent:]
        if last:
            channel.shutdown_write()
