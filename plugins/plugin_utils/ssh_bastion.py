# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way through a bastion: one shared connection per process, and no more channels at a time than it bears."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

import paramiko

from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_login import Connection, dial, say
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_types import (
    BastionError,
    Clock,
    Reason,
    SshError,
    SshTimeoutError,
    Target,
    UnreachableError,
    persistently,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Bastion

NAME: Final = "ssh.bastion"
# For so long a failed bastion is not tried again: 400 sites behind it need one verdict, not 400 attempts, and an sshd
# punishes addresses that keep failing.
VERDICT_SECONDS: Final = 30.0
# A link that takes no byte for so long is dead; then the next site connects anew.
DEAD_SECONDS: Final = 30
_PROHIBITED = 1
_CONNECT_FAILED = 2
_REASONS: Final[dict[Reason, Reason]] = {
    "auth-refused": "bastion-refused",
    "old-algorithms": "bastion-refused",
    "host-key-changed": "bastion-key-changed",
    "host-key-unknown": "host-key-unknown",
    "no-login-key": "no-login-key",
}


def bastion_target(*, bastion: Bastion) -> Target:
    """The bastion as a host to log in to."""
    return Target(
        name=NAME,
        address=bastion.address,
        port=bastion.port,
        user=bastion.user,
        host_key=bastion.host_key,
        private_key_file=bastion.private_key_file,
    )


def of_bastion(*, site: str, error: SshError) -> BastionError:
    """What a failure of the bastion means for one site behind it."""
    text = str(error).removeprefix(f"{NAME}: ")
    return BastionError(
        f"{site}: no way through the bastion: {text}", reason=_REASONS.get(error.reason, "bastion-unreachable")
    )


def refused_forwarding(*, target: Target, bastion: Bastion, why: str) -> BastionError:
    """The error of a bastion that lets us in but not through."""
    return BastionError(
        f"{target.name}: the bastion {bastion.address}:{bastion.port} does not forward to {target.where} ({why}). "
        f"Let user {bastion.user} do so: AllowTcpForwarding and PermitOpen in its sshd_config.",
        reason="bastion-refused",
    )


def unreachable_behind(*, target: Target, bastion: Target, why: str) -> UnreachableError:
    """The error of a host that the bastion itself cannot reach."""
    return UnreachableError(
        f"{target.name}: {target.where} cannot be reached from the bastion {bastion.where}: {why}. "
        "Look at its sshd and its out-of-band link.",
        passing=True,
    )


class Way:
    """One bastion: its connection, who may use it now, and how the last attempt to connect failed."""

    def __init__(self, *, bastion: Bastion) -> None:
        self._bastion = bastion
        self._target = bastion_target(bastion=bastion)
        self._turns = threading.BoundedSemaphore(bastion.channels)
        self._connecting = threading.Lock()
        self._connection: Connection | None = None
        self._failed: tuple[float, SshError] | None = None

    @contextlib.contextmanager
    def turn(self, *, clock: Clock) -> Iterator[None]:
        """One of the few who may go through the bastion at a time; the wait counts against the host's own time."""
        if not self._turns.acquire(timeout=clock.left("answer through the bastion")):
            raise SshTimeoutError(
                f"{clock.target.name}: did not get one of {self._bastion.channels} channels through the bastion "
                f"{self._target.where} in time. Run again, or raise ssh.bastion.channels if it bears more."
            )
        try:
            yield
        finally:
            self._turns.release()

    def channel(self, *, clock: Clock) -> paramiko.Channel:
        """A channel to the host; over a new connection if the one there is was lost."""
        for last in (False, True):
            connection = self._connected(clock=clock)
            try:
                return self._open(connection=connection, clock=clock)
            except paramiko.ChannelException as exc:
                raise self._refused(clock=clock, exc=exc) from exc
            except (paramiko.SSHException, EOFError, OSError) as exc:
                # paramiko raises this kind both when nobody answers in time and when the connection has ended.
                if isinstance(exc, paramiko.SSHException) and connection.alive:
                    raise self._silent(clock=clock) from exc
                # Its own thread may not have noticed yet; nobody else shall take it for alive.
                connection.close()
                if last:
                    raise BastionError(
                        f"{clock.target.name}: the connection to the bastion {self._target.where} ended ({say(exc)}). "
                        "Run again.",
                        passing=True,
                    ) from exc
        raise AssertionError  # the loop returns or raises

    def close(self) -> None:
        """End the shared connection."""
        if self._connection is not None:
            self._connection.close()

    def _open(self, *, connection: Connection, clock: Clock) -> paramiko.Channel:
        target, transport = clock.target, connection.transport
        if transport is None:
            raise EOFError
        timeout = min(clock.timeouts.connect, clock.left("accept a connection"))
        return transport.open_channel("direct-tcpip", (target.address, target.port), ("127.0.0.1", 0), timeout=timeout)

    def _silent(self, *, clock: Clock) -> SshError:
        target = clock.target
        return UnreachableError(
            f"{target.name}: nothing answers at {target.where} within {clock.timeouts.connect:g} s, asked from the "
            f"bastion {self._target.where}. Is it switched on, and its out-of-band link up?"
        )

    def _refused(self, *, clock: Clock, exc: paramiko.ChannelException) -> SshError:
        target, here = clock.target, self._target.where
        if exc.code == _CONNECT_FAILED:
            return unreachable_behind(target=target, bastion=self._target, why=exc.text or str(exc))
        if exc.code == _PROHIBITED:
            return refused_forwarding(target=target, bastion=self._bastion, why=exc.text)
        return BastionError(
            f"{target.name}: the bastion {here} opens no more channels ({exc.text or exc}). "
            "Lower ssh.bastion.channels and run again.",
            reason="bastion-refused",
            passing=True,
        )

    def _connected(self, *, clock: Clock) -> Connection:
        left = clock.left("answer through the bastion")
        if not self._connecting.acquire(timeout=left):
            raise clock.stalled("answer through the bastion")
        try:
            if self._connection is not None and self._connection.alive:
                return self._connection
            if self._failed is not None and time.monotonic() - self._failed[0] < VERDICT_SECONDS:
                raise of_bastion(site=clock.target.name, error=self._failed[1]) from self._failed[1]
            try:
                self._connection = self._connect(clock=clock)
            except SshError as exc:
                self._failed = (time.monotonic(), exc)
                raise of_bastion(site=clock.target.name, error=exc) from exc
            return self._connection
        finally:
            self._connecting.release()

    def _connect(self, *, clock: Clock) -> Connection:
        left = clock.left("answer through the bastion")
        own = Clock(target=self._target, timeouts=dataclasses.replace(clock.timeouts, deadline=left))

        def attempt() -> Connection:
            link = dial(clock=own)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_SECONDS * 1000)
            connection = Connection(clock=own)
            connection.open(link=link)
            return connection

        return persistently(clock=own, attempt=attempt)


_WAYS: dict[Bastion, Way] = {}
_WAYS_LOCK = threading.Lock()
_PARENTS: list[Way] = []


def _forked() -> None:
    """A child has none of its parent's threads. It may not end its connections either, or it would speak on them."""
    global _WAYS_LOCK  # noqa: PLW0603 - nobody will release the parent's
    _WAYS_LOCK = threading.Lock()
    _PARENTS.extend(_WAYS.values())
    _WAYS.clear()


os.register_at_fork(after_in_child=_forked)


def way(*, bastion: Bastion) -> Way:
    """The way through a bastion that the whole process shares."""
    with _WAYS_LOCK:
        return _WAYS.setdefault(bastion, Way(bastion=bastion))


def close_ways() -> None:
    """Forget every bastion and end the connections to them."""
    with _WAYS_LOCK:
        ways = list(_WAYS.values())
        _WAYS.clear()
    for one in ways:
        one.close()


@contextlib.contextmanager
def way_through(*, bastion: Bastion, clock: Clock) -> Iterator[paramiko.Channel]:
    """A channel to the host of `clock` through the bastion, for as long as the block lasts."""
    shared = way(bastion=bastion)
    with shared.turn(clock=clock):
        yield shared.channel(clock=clock)
