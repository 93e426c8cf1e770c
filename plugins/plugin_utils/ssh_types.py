# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every way of talking SSH shares: the host, its time, the answer, and what can go wrong."""

from __future__ import annotations

import base64
import hashlib
import logging
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Bastion, Client

    Wanted = Callable[[bytes], bytes | None]

Reason = Literal[
    "unreachable",
    "host-key-changed",
    "host-key-unknown",
    "auth-refused",
    "timeout",
    "closed",
    "no-login-key",
    "old-algorithms",
    "no-ssh-client",
    "bastion-unreachable",
    "bastion-refused",
    "bastion-key-changed",
]
T = TypeVar("T")
OUTPUT_MAX: Final = 1 << 20
SLOW_FAILURE: Final = 2.0
LOG: Final = "spokewright.ssh"

# paramiko logs tracebacks of refused connections; with no logging set up they would reach standard error.
logging.getLogger(LOG).addHandler(logging.NullHandler())
logging.getLogger(LOG).propagate = False


class SshError(FleetError):
    """An exchange did not take place, or not to its end. `passing`: the next attempt may well succeed."""

    reason: Reason = "closed"

    def __init__(self, message: str, *, reason: Reason | None = None, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing
        if reason is not None:
            self.reason = reason


class UnreachableError(SshError):
    """Nothing answers at the address."""

    reason = "unreachable"


class HostKeyChangedError(SshError):
    """Another host key than the pinned one was shown."""

    reason = "host-key-changed"


class HostKeyUnknownError(SshError):
    """No host key is pinned for the host."""

    reason = "host-key-unknown"


class AuthRefusedError(SshError):
    """The host did not accept our login key."""

    reason = "auth-refused"


class SshTimeoutError(SshError):
    """The host stopped answering."""

    reason = "timeout"


class ClosedError(SshError):
    """The host ended the connection."""

    reason = "closed"


class OldAlgorithmsError(SshError):
    """The host has nothing to offer that our client still speaks."""

    reason = "old-algorithms"


class BastionError(SshError):
    """The way through the bastion is closed; says nothing about the host behind it."""

    reason = "bastion-unreachable"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A host, as the plan knows it."""

    name: str
    address: str
    port: int
    user: str
    host_key: str
    private_key_file: Path
    bastion: Bastion | None = None
    client: Client = "paramiko"

    @property
    def where(self) -> str:
        """Address and port, as messages name them."""
        return f"{self.address}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Seconds for each step, and for everything with one host."""

    connect: float = 10
    banner: float = 15
    auth: float = 15
    command: float = 60
    deadline: float = 120
    keepalive: int = 15
    retries: int = 2


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command answered."""

    exit_status: int
    stdout: bytes
    stderr: bytes
    seconds: float


class Clock:
    """How long one host may still take, and what to say when it has taken longer."""

    def __init__(self, *, target: Target, timeouts: Timeouts) -> None:
        self.target = target
        self.timeouts = timeouts
        self.end = time.monotonic() + timeouts.deadline

    def left(self, doing: str, *, end: float | None = None) -> float:
        """Seconds left until `end`, at most the host's own.

        Raises:
            SshTimeoutError: none is left.
        """
        left = min(self.end if end is None else end, self.end) - time.monotonic()
        if left <= 0:
            raise self.stalled(doing)
        return left

    def stalled(self, doing: str) -> SshTimeoutError:
        """The error of a host that did not do it in time."""
        return SshTimeoutError(
            f"{self.target.name}: {self.target.where} did not {doing} in time. Look at its out-of-band link, "
            "then run again."
        )


def persistently(*, clock: Clock, attempt: Callable[[], T]) -> T:
    """Try again, after a pause of random length, what failed for a reason that may pass. No command was started yet.

    An error that took its time to come was a wait already, and the kernel tried again in it.
    """
    for number in range(clock.timeouts.retries + 1):
        began = time.monotonic()
        try:
            return attempt()
        except SshError as exc:
            slow = isinstance(exc, UnreachableError) and time.monotonic() - began > SLOW_FAILURE
            # Many hosts fail at once, and must not come back at once: a bastion or one address may serve them all.
            pause = random.uniform(0.5, 1.5) * (number + 1)  # noqa: S311 - nothing secret
            room = clock.end - time.monotonic() > pause
            if not exc.passing or slow or number == clock.timeouts.retries or not room:
                raise
        time.sleep(pause)
    raise AssertionError  # the last attempt returns or raises


class Listener:
    """Collects what a command says, and puts each whole line to `wanted` until that has answered."""

    def __init__(self, *, name: str, wanted: Wanted | None) -> None:
        self.out = bytearray()
        self._name = name
        self._wanted = wanted
        self._at = 0

    def hear(self, chunk: bytes) -> bytes | None:
        """Take output. Returns what is to be sent before standard input is shut, None while nothing was decided."""
        self.out += chunk
        if len(self.out) > OUTPUT_MAX:
            raise ClosedError(f"{self._name}: more than {OUTPUT_MAX} bytes came back; that is no receipt.")
        while self._wanted is not None and (end := self.out.find(b"\n", self._at)) >= 0:
            line = bytes(self.out[self._at : end]).rstrip(b"\r")
            self._at = end + 1
            answer = self._wanted(line)
            if answer is not None:
                self._wanted = None
                return answer
        return None


def cut_off(*, target: Target, why: str) -> ClosedError:
    """The error of a connection that ended while a command was at work."""
    return ClosedError(
        f"{target.name}: the connection to {target.where} ended in the middle ({why}). "
        "Run again: what was done is found and kept."
    )


def changed_host_key(*, target: Target, shown: str, pinned: bytes) -> HostKeyChangedError:
    """The error of a host that shows another key; `shown` is a fingerprint, or '' when it has none of that kind."""
    if not shown:
        kind = target.host_key.split()[0]
        return HostKeyChangedError(
            f"{target.name}: {target.where} has no {kind} host key any more, pinned is "
            f"{fingerprint(blob=pinned)}. Nothing was sent. Collect its key again over a link you trust."
        )
    return HostKeyChangedError(
        f"{target.name}: {target.where} shows host key {shown}, pinned is {fingerprint(blob=pinned)}. Nothing was "
        "sent. If the host was installed anew, collect its key again over a link you trust; if not, somebody is in "
        "between."
    )


def refused_login(*, target: Target) -> AuthRefusedError:
    """The error of a host that does not let us in."""
    return AuthRefusedError(
        f"{target.name}: {target.where} refuses user {target.user} with the key {target.private_key_file}. "
        "Add its public part to authorized_keys there."
    )


def pinned_key(*, target: Target) -> tuple[str, bytes]:
    """The pinned host key as (type, bytes)."""
    words = target.host_key.split()
    try:
        kind, blob = words[0], base64.b64decode(words[1], validate=True)
    except (IndexError, ValueError) as exc:
        raise HostKeyUnknownError(
            f"{target.name}: no host key is pinned, so nothing is sent there. "
            "Collect it with: tools/fleet hostkeys collect"
        ) from exc
    return kind, blob


def fingerprint(*, blob: bytes) -> str:
    """As `ssh-keygen -l` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def family(kind: str) -> str:
    """The kind of key behind an algorithm's name: an RSA key is offered under those of its signature algorithms."""
    return "ssh-rsa" if kind.startswith("rsa-sha2-") else kind
