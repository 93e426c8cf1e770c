# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A paramiko connection from the first byte to the login: greeting, pinned host key, key of ours."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import paramiko
from paramiko.common import cMSG_CHANNEL_CLOSE
from paramiko.packet import Packetizer

from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_types import (
    LOG,
    Clock,
    ClosedError,
    OldAlgorithmsError,
    SshError,
    SshTimeoutError,
    UnreachableError,
    changed_host_key,
    family,
    fingerprint,
    pinned_key,
    refused_login,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.watchdog import WATCHDOG

if TYPE_CHECKING:
    from pathlib import Path

    Link = socket.socket | paramiko.Channel

# What paramiko reads of the host's offer, and how we name it.
_OFFERS: Final = {
    "kex algorithm": ("kex_algo_list", "key exchange"),
    "ciphers": ("server_encrypt_algo_list", "ciphers"),
    "macs": ("server_mac_algo_list", "MACs"),
    "host key": ("server_key_algo_list", "host key"),
}


class _Packetizer(Packetizer):
    """Without the timer thread that paramiko starts for every handshake: the watchdog looks after it."""

    def start_handshake(self, timeout: float) -> None:
        """Start nothing."""


class _LastWord:
    """What a channel sends through: the transport, but nothing more once the channel has said that it is closed.

    paramiko looks whether a channel is closed, lets go of its lock and only then sends, so another thread's farewell
    can go out in between. sshd ends the whole connection when data comes for a channel it has forgotten: on a bastion
    all sites at work would be lost with the one that is done.
    """

    def __init__(self, transport: paramiko.Transport) -> None:
        self._transport = transport
        self._sending = threading.Lock()
        self._said = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _send_user_message(self, message: paramiko.Message) -> None:
        with self._sending:
            if self._said:
                return
            self._said = message.asbytes()[:1] == cMSG_CHANNEL_CLOSE
            self._transport._send_user_message(message)  # type: ignore[attr-defined]  # noqa: SLF001


class _Transport(paramiko.Transport):
    """Remembers what the host offered and its last words: paramiko only logs them, our messages need them."""

    def __init__(self, link: Link) -> None:
        self.offer: dict[str, list[str]] = {}
        self.farewell = ""
        super().__init__(link, packetizer_class=_Packetizer)

    def open_channel(self, *args: Any, **options: Any) -> paramiko.Channel:
        """Open a channel whose farewell is the last it sends."""
        channel = super().open_channel(*args, **options)
        channel._set_transport(_LastWord(self))  # type: ignore[attr-defined]  # noqa: SLF001
        return channel

    def _really_parse_kex_init(self, m: Any, ignore_first_byte: bool = False) -> Any:  # noqa: FBT001, FBT002
        self.offer = super()._really_parse_kex_init(m, ignore_first_byte)  # type: ignore[misc]
        return self.offer

    def _parse_disconnect(self, m: Any) -> None:
        m.get_int()
        self.farewell = m.get_text()[:200]
        m.rewind()
        super()._parse_disconnect(m)  # type: ignore[misc]


class Connection:
    """One authenticated connection. `expired` says that the watchdog closed it."""

    def __init__(self, *, clock: Clock) -> None:
        self.clock = clock
        self.target = clock.target
        self.expired = False
        self.transport: _Transport | None = None

    def open(self, *, link: Link) -> None:
        """Greet, compare the host key and log in, all by the deadline; `link` is closed when that fails."""
        login = login_key(self.target.private_key_file)
        try:
            with WATCHDOG.watching(self.clock.end, self.expire):
                self._shake_hands(link=link)
                self._log_in(login=login)
        except BaseException:
            self.close()
            link.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether it still stands, as far as this side knows."""
        return self.transport is not None and self.transport.is_active()

    def close(self) -> None:
        """End the connection."""
        if self.transport is not None:
            # A link through a bastion that is lost cannot even be closed in good order.
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                self.transport.close()

    def expire(self) -> None:
        """End it because its time is over."""
        self.expired = True
        self.close()

    def _shake_hands(self, *, link: Link) -> None:
        kind, blob = pinned_key(target=self.target)
        timeouts = self.clock.timeouts
        transport = _Transport(link)
        transport.daemon = True
        transport.set_log_channel(LOG)
        transport.banner_timeout = timeouts.banner
        transport.auth_timeout = timeouts.auth
        self.transport = transport
        options = transport.get_security_options()
        wanted = [one for one in options.key_types if family(one) == family(kind)]
        if wanted:
            # A host with several keys must show the one that is pinned.
            options.key_types = wanted
        try:
            transport.start_client(timeout=min(timeouts.banner, self.clock.left("greet")))
            # When its time is over start_client() returns as if all were well; then there is no key yet.
            shown = transport.get_remote_server_key()
        except (paramiko.SSHException, EOFError, OSError) as exc:
            raise self._no_handshake(exc=exc, kind=kind, blob=blob) from exc
        if shown.asbytes() != blob:
            raise changed_host_key(target=self.target, shown=fingerprint(blob=shown.asbytes()), pinned=blob)
        transport.set_keepalive(timeouts.keepalive)

    def _no_handshake(self, *, exc: Exception, kind: str, blob: bytes) -> SshError:
        text = str(exc).lower()
        target = self.target
        greeted = self.transport is not None and self.transport.remote_version
        if self.expired and greeted:
            return self.clock.stalled("agree on keys")
        offered = self.transport.offer.get("server_key_algo_list", []) if self.transport is not None else []
        lacks = "host key" in text or "key type" in text
        if lacks and not any(family(one) == family(kind) for one in offered):
            return changed_host_key(target=target, shown="", pinned=blob)
        if isinstance(exc, paramiko.ssh_exception.IncompatiblePeer):
            return self._too_old(text)
        if (
            self.expired
            or "banner" in text
            or "timeout" in text
            or "no existing session" in text
            or isinstance(exc, TimeoutError)
        ):
            return SshTimeoutError(
                f"{target.name}: {target.where} takes connections, but no SSH server greets us.", passing=True
            )
        return ClosedError(
            f"{target.name}: {target.where} ended the connection before the login ({say(exc)}). "
            "It may be refusing too many logins at once; run again.",
            passing=True,
        )

    def _too_old(self, text: str) -> OldAlgorithmsError:
        offer = self.transport.offer if self.transport is not None else {}
        field, what = next((one for word, one in _OFFERS.items() if word in text), ("", ""))
        # Those that only say what else the host can do are no algorithms.
        names = [name for name in offer.get(field, []) if not name.startswith(("ext-info-", "kex-strict-"))]
        detail = f" ({what}: {', '.join(names)})" if names else ""
        return OldAlgorithmsError(
            f"{self.target.name}: {self.target.where} offers only old algorithms{detail} that paramiko "
            f"{paramiko.__version__} does not speak. Write oob_client=openssh into its options in the registry, "
            "or install a newer SSH server there."
        )

    def _log_in(self, *, login: paramiko.PKey) -> None:
        target = self.target
        if self.transport is None:
            raise ClosedError(f"{target.name}: the connection is closed.")
        try:
            self.transport.auth_publickey(target.user, login)
        except (paramiko.SSHException, EOFError, OSError) as exc:
            text = str(exc).lower()
            if self.expired or "authentication timeout" in text:
                raise self.clock.stalled("answer the login") from exc
            if "pubkey algorithm" in text:
                raise OldAlgorithmsError(
                    f"{target.name}: {target.where} takes RSA keys only with SHA-1 signatures, which paramiko "
                    f"{paramiko.__version__} does not make. Write oob_client=openssh into its options in the registry, "
                    "or use an Ed25519 login key."
                ) from exc
            farewell = self.transport.farewell
            # A host that allows one attempt only hangs up at once.
            hung_up = "transport shut down" in text and "authentication failures" not in farewell
            if isinstance(exc, paramiko.AuthenticationException) and not hung_up:
                raise refused_login(target=target) from exc
            raise ClosedError(
                f"{target.name}: {target.where} ended the connection during the login ({farewell or say(exc)}).",
                passing=True,
            ) from exc


def dial(*, clock: Clock) -> socket.socket:
    """Connect to a host directly."""
    target = clock.target
    timeout = min(clock.timeouts.connect, clock.left("accept a connection"))
    try:
        link = socket.create_connection((target.address, target.port), timeout=timeout)
    except TimeoutError as exc:
        raise UnreachableError(
            f"{target.name}: nothing answers at {target.where} within {timeout:g} s. "
            "Is it switched on, and its out-of-band link up?"
        ) from exc
    except OSError as exc:
        hint = "No sshd listens there." if exc.errno == errno.ECONNREFUSED else "Look at its out-of-band link."
        raise UnreachableError(
            f"{target.name}: {target.where} cannot be reached: {exc.strerror or exc}. {hint}", passing=True
        ) from exc
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def say(exc: BaseException) -> str:
    """The text of an exception, or its kind when it has none."""
    return str(exc) or type(exc).__name__


def login_key(path: Path) -> paramiko.PKey:
    """Our private key, read again only when its file has changed.

    Raises:
        SshError: there is none, or it cannot be used.
    """
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
