# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two owners of which one is deaf: whether this gateway is that one, and gives way.

Runs on gateways: standard library only, needs root. Nothing here waits.

An owner that hears no advert of the other gateway cannot learn from keepalived that the other one has the addresses
too. ARP tells it: asked by itself, the other gateway answers for them. It answers only on a lease that its keepalived
renews, so after the time of a lease an answer comes from an owner that lives. One that hears adverts leaves all to
keepalived. Of two deaf owners the one with the lower address gives way, as in VRRP; the other waits for twice as long.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import typing as t
from dataclasses import dataclass, replace
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.module_utils.arp_question import (
    ETH_P_ARP,
    Question,
    answered_by,
    request,
)
from ansible_collections.spokewright.fleet.plugins.module_utils.health_rules import MISSES
from ansible_collections.spokewright.fleet.plugins.module_utils.health_watch import Seen, Source
from ansible_collections.spokewright.fleet.plugins.module_utils.push_rules import is_owners_advert

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.module_utils.health_config import Config, Network

GRACE = 1.5
"""Seconds beyond a lease: its last renewal may have come late, and so may the last answer."""
_VRRP = 112


@dataclass(frozen=True)
class Sight:
    """What one look saw: whether this gateway has the addresses, hears adverts, and is answered for all addresses."""

    owner: bool
    heard: bool
    answered: bool


@dataclass(frozen=True)
class Rival:
    """What is known of a second owner: since when it answers unheard, whether we give way, how often it was silent."""

    since: float | None = None
    yielding: bool = False
    silent: int = 0


def meet(*, before: Rival, sight: Sight, now: float, late: bool, patience: float) -> Rival:
    """Take in one look. ``late``: this machine did not let us run in time, so silence says nothing."""
    if before.yielding:
        silent = 0 if sight.answered else before.silent + (0 if late else 1)
        # Who hears adverts may speak again: keepalived will stand by for them. So may who is the only one left.
        return Rival() if sight.heard or silent >= MISSES else replace(before, silent=silent)
    if not sight.owner or sight.heard or late or not sight.answered:
        return Rival()
    since = now if before.since is None else before.since
    return Rival(since=since, yielding=now - since >= patience)


class RivalWatch:
    """Asks the other gateway for the addresses while this one has them, or gives way."""

    checks = ("adverts",)

    def __init__(self, *, config: Config) -> None:
        self._peers = frozenset(config.peers)
        vips = {vip.interface: vip.address for vip in config.vips}
        self._asked = [
            _Asked(network=network, vip=vips[network.interface])
            for network in config.networks
            if network.tracked and network.interface in vips
        ]
        inside = config.networks[0]
        lower = ipaddress.IPv4Address(inside.source) < ipaddress.IPv4Address(inside.peer)
        self._patience = (config.lease_seconds + GRACE) * (1 if lower else 2)
        self._adverts: socket.socket | None = None
        self._state = Rival()

    @property
    def yielding(self) -> bool:
        """Whether this gateway must not have the addresses now."""
        return self._state.yielding

    def sources(self) -> list[Source]:
        """See Watch. What has arrived waits for the look: on a busy network others' ARP would wake us for nothing."""
        return []

    def meet(self, *, owner: bool, now: float, late: bool) -> None:
        """Before the look itself: what has come since the last one, and what follows from it."""
        if not owner and not self.yielding:
            self._rest()
            return
        sight = Sight(owner=owner, heard=self._heard(), answered=self._answered())
        self._state = meet(before=self._state, sight=sight, now=now, late=late, patience=self._patience)
        for one in self._asked:
            one.ask()

    def look(self, *, now: float, late: bool) -> list[Seen]:
        """See Watch."""
        del now, late
        detail = "the other gateway has the addresses too, and none of its adverts arrive here" if self.yielding else ""
        return [Seen(name="adverts", good=not self.yielding, detail=detail)]

    def _rest(self) -> None:
        self._state = Rival()
        for one in self._asked:
            one.close()
        if self._adverts:
            self._adverts.close()
        self._adverts = None

    def _heard(self) -> bool:
        """Whether an advert of the other gateway has arrived, as far as keepalived hears them."""
        if self._adverts is None:
            self._adverts = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _VRRP)
        packets = list(_arrived(self._adverts))
        return any(is_owners_advert(packet=packet, peers=self._peers) for packet in packets)

    def _answered(self) -> bool:
        """Whether the other gateway has answered on every network that a gateway is of no use without."""
        answers = [one.answered() for one in self._asked]
        return bool(answers) and all(answers)


class _Asked:
    """One network, on which the other gateway alone is asked for the virtual address."""

    def __init__(self, *, network: Network, vip: str) -> None:
        self._network, self._vip = network, vip
        self._hardware = ""
        self._socket: socket.socket | None = None

    def close(self) -> None:
        if self._socket:
            self._socket.close()
        self._socket = None

    def answered(self) -> bool:
        """Whether the other gateway itself has answered; one that answers for everybody (proxy ARP) is not asked."""
        if self._socket is None:
            return False
        answers = {answered_by(frame=frame, address=self._vip) for frame in _arrived(self._socket)}
        return bool(self._hardware) and self._hardware in answers

    def ask(self) -> None:
        """Ask once, if its hardware address is known: an owner speaks to it ten times a second."""
        self._hardware = hardware_of(address=self._network.peer, interface=self._network.interface) or self._hardware
        if not self._hardware:
            return
        question = Question(interface=self._network.interface, sender=self._network.source, address=self._vip)
        try:
            if self._socket is None:
                kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
                self._socket = socket.socket(socket.AF_PACKET, kind, socket.htons(ETH_P_ARP))
                self._socket.bind((self._network.interface, ETH_P_ARP))
            own, other = self._socket.getsockname()[4][:6], bytes.fromhex(self._hardware.replace(":", ""))
            self._socket.send(request(hardware=own, question=question, to=other))
        except OSError:
            self.close()


def hardware_of(*, address: str, interface: str, table: str = "/proc/net/arp") -> str:
    """The hardware address that the kernel knows for a neighbour; empty when it knows none."""
    with contextlib.suppress(OSError):
        for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
            words = line.split()
            if len(words) == 6 and (words[0], words[5]) == (address, interface) and int(words[2], 16) & 2:
                return words[3].lower()
    return ""


def _arrived(end: socket.socket) -> t.Iterator[bytes]:
    """Everything that has arrived and was not taken yet."""
    with contextlib.suppress(OSError):
        while True:
            yield end.recv(2048)
