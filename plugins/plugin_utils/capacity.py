# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many sites gateways carry: from what was measured on them to the limits that follow, each with its reason.

Where a formula names a number without saying why, OpenVPN's source or its manual does: clients repeat a packet after
2, 4, 8, 16 and 32 s (reliable.c), a server works in one thread, and `keepalive I T` makes a client begin anew after T
seconds without a packet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

from ansible_collections.spokewright.fleet.plugins.plugin_utils.allocation import MAX_INSTANCES

# A client that got no answer repeats its packet after 2 s. Work that takes longer than this is asked for twice.
BACKLOG_SECONDS: Final = 2.0
# A client pauses this long before it begins anew: connect-retry 1 of 2.6 clients.
PAUSE_SECONDS: Final = 1.0
# A daemon that carries payload all the time has no room for handshakes; three tenths stay free for them.
PAYLOAD_SHARE: Final = 0.7
# What keepalive may take of a link.
KEEPALIVE_SHARE: Final = 0.05
# A ping is 16 bytes, 24 of OpenVPN, 28 of UDP and IP, and the frame around it.
PING_BYTES: Final = 90
# Most that a client has on its way at once, and what the kernel counts for a full one of them (skb truesize).
FLIGHT_PACKETS: Final = 4
FLIGHT_BYTES: Final = 2304
LEAST_CAPACITY: Final = 64
LEAST_LIMIT: Final = 100
LEAST_BUFFER: Final = 1 << 20
LEAST_HAND_WINDOW: Final = 30
DEFAULT_INTERVAL, DEFAULT_TIMEOUT = 2, 6
DEFAULT_SPREAD: Final = 4
MOST_SPREAD: Final = 60

Limit = Literal["detection", "CPU", "link", "limiter"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one gateway said in a trial. `gateway` is empty for figures that nobody measured here."""

    gateway: str
    date: str
    cpu: str
    cores: int
    kernel: str
    openvpn: str
    key_type: str
    handshakes: int
    handshake_ms: float
    handshake_wall_ms: float
    handshake_bytes: int
    hook_ms: float
    hook_p99_ms: float
    first_packet_ms: float
    mbit_per_core: int
    buffer_limit: int
    daemon_kb: int
    client_kb: int

    @property
    def cost_ms(self) -> float:
        """How long one handshake keeps its daemon: its own work, and its wait for the script that judges keys."""
        return self.handshake_ms + self.hook_ms


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What is to be carried. `link_mbit` is 0 for a link that is no limit, `instances` 0 for as many as are needed.

    `keepalive` is what the operator has decided, None where it is ours to choose.
    """

    sites: int
    cores: int
    instances: int = 0
    link_mbit: float = 0.0
    keepalive: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Values:
    """The limits that follow, in the words of OpenVPN and of the roles."""

    sites: int
    instances: int
    capacity: int
    max_clients: int
    connect_freq: int
    connect_freq_initial: int
    socket_buffer: int
    hand_window: int
    keepalive_interval: int
    keepalive_timeout: int
    spread: int
    reconnects_per_second: int


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How long it takes until the last site is back after the gateway that served all of them has died."""

    detection: float
    cpu: float
    link: float
    limiter: float

    @property
    def seconds(self) -> float:
        """CPU, link and limiter work at the same time; a client notices and pauses before."""
        return self.detection + max(self.cpu, self.link, self.limiter)

    @property
    def limit(self) -> Limit:
        """What takes longest."""
        parts: list[tuple[float, Limit]] = [
            (self.detection, "detection"),
            (self.cpu, "CPU"),
            (self.link, "link"),
            (self.limiter, "limiter"),
        ]
        return max(parts, key=lambda part: part[0])[1]


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """An answer: the limits, why each, the time of a recovery, and what it takes of the gateway."""

    demand: Demand
    values: Values
    recovery: Recovery
    needed: int
    per_second: float
    flood_share: float
    memory_mb: float
    why: dict[str, str]


def worst(measured: list[Measured]) -> Measured:
    """One gateway must be able to carry everything, also the slower one: of each figure the worse."""
    first = max(measured, key=lambda one: one.cost_ms)
    return replace(
        first,
        cores=min(one.cores for one in measured),
        first_packet_ms=max(one.first_packet_ms for one in measured),
        mbit_per_core=min(one.mbit_per_core for one in measured),
        handshake_bytes=max(one.handshake_bytes for one in measured),
        buffer_limit=min(one.buffer_limit for one in measured),
        daemon_kb=max(one.daemon_kb for one in measured),
        client_kb=max(one.client_kb for one in measured),
    )


def look_ahead(*, measured: Measured, demand: Demand) -> Outlook:
    """The limits for a demand, and what they lead to."""
    per_second = 1000 / measured.cost_ms
    needed = _needed(measured=measured, demand=demand)
    instances = demand.instances or needed
    each = math.ceil(demand.sites / instances)
    # Two daemons on one core are no faster than one.
    at_once = min(instances, demand.cores)
    backlog = demand.sites / (per_second * at_once)
    capacity = _power_of_two(max(LEAST_CAPACITY, 1.5 * each))
    limit = max(LEAST_LIMIT, 4 * capacity)
    interval, timeout = demand.keepalive or _keepalive(demand=demand, backlog=backlog)
    values = Values(
        sites=demand.sites,
        instances=instances,
        capacity=capacity,
        max_clients=limit,
        connect_freq=capacity,
        connect_freq_initial=limit,
        socket_buffer=_power_of_two(max(LEAST_BUFFER, capacity * FLIGHT_PACKETS * FLIGHT_BYTES / 2)),
        hand_window=min(600, max(LEAST_HAND_WINDOW, 10 * math.ceil(4 * backlog / 10))),
        keepalive_interval=interval,
        keepalive_timeout=timeout,
        spread=min(MOST_SPREAD, max(DEFAULT_SPREAD, math.ceil(backlog))),
        reconnects_per_second=min(1000, max(1, int(per_second * PAYLOAD_SHARE))),
    )
    recovery = Recovery(
        detection=timeout + PAUSE_SECONDS,
        cpu=backlog,
        link=_on_link(sites=demand.sites, size=measured.handshake_bytes, link_mbit=demand.link_mbit),
        limiter=limiter_seconds(each=each, connect_freq=values.connect_freq, initial=values.connect_freq_initial),
    )
    return Outlook(
        demand=demand,
        values=values,
        recovery=recovery,
        needed=needed,
        per_second=per_second,
        flood_share=values.connect_freq_initial / 10 * measured.first_packet_ms / 1000,
        memory_mb=(instances * measured.daemon_kb + demand.sites * measured.client_kb) / 1024,
        why=_reasons(measured=measured, values=values, each=each, backlog=backlog, needed=needed, demand=demand),
    )


def limiter_seconds(*, each: int, connect_freq: int, initial: int) -> float:
    """How long a daemon's own limits keep the last of its sites out when all come at the same moment; 0 is no limit.

    `connect-freq-initial N 10` answers N first packets in 10 s and falls silent until these are over. What
    `connect-freq N 1` refuses comes again after 2, 4, 8, 16 and 32 s and not in between, so only then are there any to
    let in.
    """
    seconds = 10.0 * (math.ceil(each / initial) - 1) if initial else 0.0
    if connect_freq:
        bursts = math.ceil(each / connect_freq) - 1
        cycles, rest = divmod(bursts, 5)
        seconds = max(seconds, 62.0 * cycles + (2.0 ** (rest + 1) - 2 if rest else 0.0))
    return seconds


def _needed(*, measured: Measured, demand: Demand) -> int:
    """Instances that work off all handshakes before a client repeats itself, and carry the link's payload."""
    for_handshakes = math.ceil(demand.sites * measured.cost_ms / 1000 / BACKLOG_SECONDS)
    for_payload = math.ceil(demand.link_mbit / (measured.mbit_per_core * PAYLOAD_SHARE))
    return max(1, min(max(for_handshakes, for_payload), demand.cores, MAX_INSTANCES))


def _keepalive(*, demand: Demand, backlog: float) -> tuple[int, int]:
    """As fast as the link affords; slow enough that nobody gives up a daemon that is working off a storm."""
    interval = DEFAULT_INTERVAL
    if demand.link_mbit:
        interval = max(interval, math.ceil(demand.sites * PING_BYTES * 8 / (demand.link_mbit * 1e6 * KEEPALIVE_SHARE)))
    return interval, max(DEFAULT_TIMEOUT, 3 * interval, math.ceil(interval + 2 * backlog))


def _on_link(*, sites: int, size: int, link_mbit: float) -> float:
    return sites * size * 8 / (link_mbit * 1e6) if link_mbit else 0.0


def _power_of_two(number: float) -> int:
    return 1 << math.ceil(math.log2(number))


def _reasons(
    *, measured: Measured, values: Values, each: int, backlog: float, needed: int, demand: Demand
) -> dict[str, str]:
    """Why each value is what it is, for the table."""
    few = values.instances < needed
    wanted = math.ceil(demand.sites * measured.cost_ms / 1000 / BACKLOG_SECONDS)
    cores = f"; {wanted} would be wanted, there are {demand.cores} cores" if wanted > demand.cores else ""
    chosen = f"by the plan{f', {needed} would be better' if few else ''}"
    return {
        "instances": f"{needed} finish all handshakes within {BACKLOG_SECONDS:g} s{cores}"
        if values.instances == needed
        else chosen,
        "capacity": f"half as many again as the {each} sites of an instance, as a power of two",
        "max_clients": "4 for each site of the capacity: an old session, two attempts, one spare",
        "connect_freq": "all sites of an instance may come in one second; the daemon queues better than its limiter",
        "connect_freq_initial": "as max-clients, for 10 s",
        "socket_buffer": f"{FLIGHT_PACKETS} packets of {FLIGHT_BYTES} bytes for each site of the capacity",
        "hand_window": f"4 times the {backlog:.1f} s of the backlog, at least {LEAST_HAND_WINDOW}",
        "keepalive": "by the plan"
        if demand.keepalive
        else f"at most {KEEPALIVE_SHARE:.0%} of the link; the timeout is 3 intervals and outlasts twice the backlog",
        "spread": f"the backlog, at least {DEFAULT_SPREAD} s",
        "reconnects_per_second": f"{PAYLOAD_SHARE:.0%} of what one core can do",
    }
