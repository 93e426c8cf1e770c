# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One SSH exchange with one pinned host: a command, bytes on its standard input, what it answered.

The host key is compared with the one pinned key and nothing else; there is no known_hosts, no agent, no password.
Every wait has an end, and all of them together end at the deadline of the host.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import logging
import socket
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, Self

import paramiko

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

Reason = Literal[
    "unreachable", "host-key-changed", "host-key-unknown", "auth-refused", "timeout", "closed", "no-login-key"
]
OUTPUT_MAX: Final = 1 << 20
CHUNK: Final = 1 << 15
LOG: Final = "spokewright.ssh"

# paramiko logs tracebacks of refused connections; with no logging set up they would reach standard error.
logging.getLogger(LOG).addHandler(logging.NullHandler())
logging.getLogger(LOG).propagate = False


class SshError(FleetError):
    """An exchange did not take place, or not to its end."""

    reason: Reason = "closed"

    def __init__(self, message: str, *, reason: Reason | None = None) -> None:
        super().__init__(message)
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


@dataclass(frozen=True, kw_only=True)
class Target:
    """A host, as the plan knows it."""

    name: str
    address: str
    port: int
    user: str
    host_key: str
    private_key_file: Path


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Seconds for each step, and for everything with one host."""

    connect: float = 10
    banner: float = 15
    auth: float = 15
    command: float = 60
    deadline: float = 120
    keepalive: int = 15


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command answered."""

    exit_status: int
    stdout: bytes
    stderr: bytes
    seconds: float


class Session:
    """A login on one host, for one or more commands. Use it in a with statement."""

    def __init__(self, *, target: Target, timeouts: Timeouts | None = None) -> None:
        self.target = target
        self.timeouts = timeouts or Timeouts()
        self._end = time.monotonic() + self.timeouts.deadline
        self._transport: paramiko.Transport | None = None
        self._expired = False

    def __enter__(self) -> Self:
        pinned = pinned_key(target=self.target)
        login = _login_key(self.target.private_key_file)
        link = self._dial()
        try:
            with self._watched(self._end):
                transport = self._shake_hands(link=link, pinned=pinned)
                self._log_in(transport=transport, login=login)
        except BaseException:
            self.close()
            link.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def run(self, *, command: str, stdin: bytes = b"") -> Answer:
        """Run one command to its end."""
        transport = self._transport
        if transport is None:
            raise ClosedError(f"{self.target.name}: the connection is closed.")
        began = time.monotonic()
        end = min(self._end, began + self.timeouts.command)
        channel = None
        try:
            with self._watched(end):
                channel = transport.open_session(timeout=self._left(end, "open a channel"))
                return self._converse(channel=channel, command=command, stdin=stdin, began=began, end=end)
        except (paramiko.SSHException, EOFError, OSError) as exc:
            if self._expired or isinstance(exc, TimeoutError):
                raise self._stalled("answer the command") from exc
            raise ClosedError(
                f"{self.target.name}: the connection to {self._where} ended in the middle ({_say(exc)}). "
                "Run again: what was done is found and kept."
            ) from exc
        finally:
            if channel is not None:
                with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                    channel.close()

    @contextlib.contextmanager
    def _watched(self, end: float) -> Iterator[None]:
        """Close the connection at `end`: some waits inside paramiko have no end of their own."""
        watchdog = threading.Timer(max(0.0, min(end, self._end) - time.monotonic()), self._expire)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()

    def _expire(self) -> None:
        self._expired = True
        transport = self._transport
        if transport is not None:
            transport.close()

    def _converse(self, *, channel: paramiko.Channel, command: str, stdin: bytes, began: float, end: float) -> Answer:
        channel.exec_command(command)
        with contextlib.suppress(BrokenPipeError):
            # A command may answer without having read all; its answer is what counts.
            _send(channel=channel, data=stdin, end=end)
            channel.shutdown_write()
        out = bytearray()
        while True:
            channel.settimeout(self._left(end, "finish the command"))
            chunk = channel.recv(CHUNK)
            if not chunk:
                break
            out += chunk
            if len(out) > OUTPUT_MAX:
                raise ClosedError(f"{self.target.name}: more than {OUTPUT_MAX} bytes came back; that is no receipt.")
        err = bytearray()
        while channel.recv_stderr_ready() and len(err) < OUTPUT_MAX:
            err += channel.recv_stderr(CHUNK)
        # recv_exit_status() waits for ever on a dead link.
        if not channel.status_event.wait(self._left(end, "say how the command ended")) or self._expired:
            raise self._stalled("say how the command ended")
        return Answer(
            exit_status=channel.exit_status,
            stdout=bytes(out),
            stderr=bytes(err),
            seconds=time.monotonic() - began,
        )

    @property
    def _where(self) -> str:
        return f"{self.target.address}:{self.target.port}"

    def _left(self, end: float, doing: str) -> float:
        left = min(end, self._end) - time.monotonic()
        if left <= 0:
            raise self._stalled(doing)
        return left

    def _stalled(self, doing: str) -> SshTimeoutError:
        return SshTimeoutError(
            f"{self.target.name}: {self._where} did not {doing} in time. Look at its out-of-band link, then run again."
        )

    def _dial(self) -> socket.socket:
        timeout = min(self.timeouts.connect, self._left(self._end, "accept a connection"))
        try:
            link = socket.create_connection((self.target.address, self.target.port), timeout=timeout)
        except TimeoutError as exc:
            raise UnreachableError(
                f"{self.target.name}: nothing answers at {self._where} within {timeout:g} s. "
                "Is it switched on, and its out-of-band link up?"
            ) from exc
        except OSError as exc:
            hint = "No sshd listens there." if exc.errno == errno.ECONNREFUSED else "Look at its out-of-band link."
            raise UnreachableError(
                f"{self.target.name}: {self._where} cannot be reached: {exc.strerror or exc}. {hint}"
            ) from exc
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return link

    def _shake_hands(self, *, link: socket.socket, pinned: tuple[str, bytes]) -> paramiko.Transport:
        transport = paramiko.Transport(link)
        transport.daemon = True
        transport.set_log_channel(LOG)
        transport.banner_timeout = self.timeouts.banner
        transport.auth_timeout = self.timeouts.auth
        self._transport = transport
        kind, blob = pinned
        options = transport.get_security_options()
        wanted = [one for one in options.key_types if _family(one) == _family(kind)]
        if wanted:
            # A host with several keys must show the one that is pinned.
            options.key_types = wanted
        try:
            transport.start_client(timeout=min(self.timeouts.banner, self._left(self._end, "greet")))
            # When its time is over start_client() returns as if all were well; then there is no key yet.
            shown = transport.get_remote_server_key()
        except (paramiko.SSHException, EOFError, OSError) as exc:
            raise self._no_handshake(exc=exc, kind=kind, blob=blob) from exc
        if shown.asbytes() != blob:
            raise HostKeyChangedError(
                f"{self.target.name}: {self._where} shows host key {fingerprint(blob=shown.asbytes())}, "
                f"pinned is {fingerprint(blob=blob)}. Nothing was sent. If the host was installed anew, collect its "
                "key again over a link you trust; if not, somebody is in between."
            )
        transport.set_keepalive(self.timeouts.keepalive)
        return transport

    def _no_handshake(self, *, exc: Exception, kind: str, blob: bytes) -> SshError:
        text = str(exc).lower()
        if self._expired:
            return self._stalled("greet")
        if "host key" in text or "key type" in text:
            return HostKeyChangedError(
                f"{self.target.name}: {self._where} has no {kind} host key any more, pinned is "
                f"{fingerprint(blob=blob)}. Nothing was sent. Collect its key again over a link you trust."
            )
        if "banner" in text or "timeout" in text or "no existing session" in text or isinstance(exc, TimeoutError):
            return SshTimeoutError(f"{self.target.name}: {self._where} takes connections, but no SSH server greets us.")
        return ClosedError(
            f"{self.target.name}: {self._where} ended the connection before the login ({_say(exc)}). "
            "It may be refusing too many logins at once; run again."
        )

    def _log_in(self, *, transport: paramiko.Transport, login: paramiko.PKey) -> None:
        try:
            transport.auth_publickey(self.target.user, login)
        except paramiko.AuthenticationException as exc:
            text = str(exc).lower()
            if "timeout" in text or self._expired:
                raise self._stalled("answer the login") from exc
            raise AuthRefusedError(
                f"{self.target.name}: {self._where} refuses user {self.target.user} with the key "
                f"{self.target.private_key_file}. Add its public part to the site's authorized_keys."
            ) from exc
        except (paramiko.SSHException, EOFError, OSError) as exc:
            if self._expired:
                raise self._stalled("answer the login") from exc
            raise ClosedError(
                f"{self.target.name}: {self._where} ended the connection during the login ({_say(exc)})."
            ) from exc


def exchange(*, target: Target, command: str, stdin: bytes = b"", timeouts: Timeouts | None = None) -> Answer:
    """Log in, run one command, log out."""
    with Session(target=target, timeouts=timeouts) as session:
        return session.run(command=command, stdin=stdin)


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


def _family(kind: str) -> str:
    # An RSA key is offered under the names of its signature algorithms.
    return "ssh-rsa" if kind.startswith("rsa-sha2-") else kind


def _send(*, channel: paramiko.Channel, data: bytes, end: float) -> None:
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


def _say(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__


def _login_key(path: Path) -> paramiko.PKey:
    try:
        changed = path.stat().st_mtime_ns
        return _load_login_key(path, changed)
    except OSError as exc:
        raise SshError(f"the login key {path} cannot be read: {exc.strerror or exc}.", reason="no-login-key") from exc
    except (paramiko.SSHException, ValueError, TypeError) as exc:
        # The cause may quote the file; it does not go into the message.
        raise SshError(
            f"the login key {path} is no private key that can be used without a passphrase.", reason="no-login-key"
        ) from exc


@lru_cache(maxsize=8)
def _load_login_key(path: Path, _changed: int) -> paramiko.PKey:
    return paramiko.PKey.from_path(path)
