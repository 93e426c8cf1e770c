# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demotion push decides by: its configuration, keepalived's reports, the peer's adverts, the lease, the pace.

Runs on gateways: standard library only, and nothing here asks the host.
"""

from __future__ import annotations

import json
import math
import typing as t
from dataclasses import dataclass

SLOT = 0.05
"""Seconds. A daemon serves one management client at a time, so each visit is short and many sessions take several."""
PATIENCE = 20
"""Adverts. The peer takes over after four at most; a busy host gets some more."""

_VRRP = 112
_ADVERT_V3 = 0x31


class PushConfigError(Exception):
    """The configuration cannot be used."""


@dataclass(frozen=True)
class Lease:
    """Where keepalived records its lease, and how many seconds one lasts."""

    file: str
    seconds: float


@dataclass(frozen=True)
class Config:
    """The whole file. ``peers`` pairs the peer's addresses with VRRP ids."""

    fifo: str
    inside: str
    outside: tuple[str, ...]
    peers: frozenset[tuple[str, int]]
    advert: float
    lease: Lease | None
    instances: tuple[str, ...]
    sockets: str
    per_second: int

    @property
    def patience(self) -> float:
        """Seconds to wait for the peer's first advert."""
        return PATIENCE * self.advert


def parse(*, text: str) -> Config:
    """Read the configuration.

    Raises:
        PushConfigError: it is no JSON object, or a field is missing or of the wrong type.
    """
    try:
        data = json.loads(text)
        lease = data["lease"]
        config = Config(
            fifo=str(data["fifo"]),
            inside=str(data["inside"]),
            outside=tuple(str(vip) for vip in data["outside"]),
            peers=frozenset((str(peer["address"]), int(peer["vrrp_id"])) for peer in data["peers"]),
            advert=float(data["advert"]),
            lease=Lease(file=str(lease["file"]), seconds=float(lease["seconds"])) if lease else None,
            instances=tuple(str(name) for name in data["instances"]),
            sockets=str(data["sockets"]),
            per_second=int(data["per_second"]),
        )
    except (ValueError, TypeError, KeyError) as exc:
        raise PushConfigError("the demotion push's configuration cannot be used: %r" % exc) from exc
    if config.per_second < 1 or config.advert <= 0:
        raise PushConfigError(
            "per_second is %d and advert is %s; both must be above 0" % (config.per_second, config.advert)
        )
    return config


def group_state(*, line: str) -> str | None:
    """The state in one of keepalived's reports, as in ``GROUP "GATEWAY" BACKUP 0``; None for a member's report."""
    words = line.split()
    return words[2] if len(words) >= 3 and words[0] == "GROUP" else None


def is_owners_advert(*, packet: bytes, peers: t.Collection[tuple[str, int]]) -> bool:
    """Whether an IP packet is an advert by which the peer says that it has the addresses.

    Priority 0 is how an owner says that it gives them away.
    """
    if len(packet) < 20 or packet[9] != _VRRP:
        return False
    source = ".".join(str(octet) for octet in packet[12:16])
    vrrp = packet[(packet[0] & 0x0F) * 4 :]
    return len(vrrp) >= 8 and vrrp[0] == _ADVERT_V3 and vrrp[2] > 0 and (source, vrrp[1]) in peers


def lease_has_ended(*, record: str, uptime: float, seconds: float) -> bool:
    """Whether keepalived has stopped renewing its lease. A record that is being written counts as fresh."""
    try:
        return uptime - float(record) > seconds
    except ValueError:
        return False


def batches(*, clients: t.Sequence[int], per_second: float) -> list[tuple[float, list[int]]]:
    """When to end which sessions: a few at once, then a pause. Seconds count from the first."""
    size = max(1, math.floor(per_second * SLOT))
    return [(start / per_second, list(clients[start : start + size])) for start in range(0, len(clients), size)]
