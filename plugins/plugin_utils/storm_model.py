# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a simulated reconnect storm consists of: the generations of OpenVPN, a configuration, a scene, a result.

Each number says where it comes from. "measured" is a measurement written down in docs/storm-explained.md; a file with a
version is OpenVPN's source.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, get_args

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Sequence

SceneKind = Literal[
    "owner-dead", "daemons-restarted", "daemons-told", "clients-restarted", "outage", "all-start", "junk", "frozen"
]
SCENE_KINDS: Final[tuple[SceneKind, ...]] = get_args(SceneKind)
Version = Literal["2.0", "2.6", "2.7"]

# Linux charges a socket for what the packet occupies, not for what it carries: net/core/skbuff.c (alloc_skb rounds data
# and struct skb_shared_info up to a slab), include/linux/skbuff.h (SKB_TRUESIZE).
SKB_OVERHEAD: Final = 256
SKB_TAIL: Final = 320
HEADROOM: Final = 64
UDP_IP: Final = 28
SMALLEST_SLAB: Final = 512
# net.core.rmem_default of a stock kernel; what a daemon without `rcvbuf` gets, and what it is held to.
KERNEL_BUFFER: Final = 212_992


class StormError(FleetError):
    """The storm cannot be simulated as asked."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One round trip of the handshake as the daemon sees it: a burst of packets in, work, a burst out."""

    packets: int
    octets: int
    # Of the CPU a whole handshake costs.
    share: float
    reply_packets: int
    reply_octets: int


@dataclass(frozen=True, slots=True)
class Generation:
    """How one generation of OpenVPN shakes hands."""

    version: Version
    legs: tuple[Leg, ...]
    # The daemon makes an instance when it reads this leg; connect-freq counts the same packet.
    instance_leg: int
    # Whether an unanswered packet waits twice as long before each further try.
    backoff: bool

    @property
    def cookie(self) -> bool:
        """Whether a first packet leaves nothing behind on the daemon."""
        return self.instance_leg > 0


def modern(version: Version) -> Generation:
    """2.6 and 2.7: reset with a cookie, then WKc and TLS 1.3 with elliptic curves.

    The first packet of 356 bytes is measured; the other sizes follow from certificates of P-256. How the CPU is spread
    over the legs is an estimate: reading WKc and signing, then checking the client's certificate, then the keys. The
    sum is measured, and only the sum matters as long as a leg takes milliseconds.
    """
    legs = (
        Leg(packets=1, octets=356, share=0.0, reply_packets=1, reply_octets=100),
        Leg(packets=2, octets=600, share=0.55, reply_packets=2, reply_octets=1100),
        Leg(packets=2, octets=900, share=0.35, reply_packets=1, reply_octets=300),
        Leg(packets=2, octets=350, share=0.10, reply_packets=2, reply_octets=350),
    )
    return Generation(version=version, legs=legs, instance_leg=1, backoff=True)


def early() -> Generation:
    """The OpenVPN of 2005: no cookie, TLS 1.0 with RSA and Diffie-Hellman, in small pieces.

    2.1_beta1 (September 2005): mudp.c makes an instance, and asks connect-freq, on the first packet; reliable.h has
    EXPONENTIAL_BACKOFF commented out, so an unanswered packet is sent again every 2 s; ssl.c cuts TLS into pieces of
    PAYLOAD_SIZE_DYNAMIC, which is TUN_MTU_MIN = 100 bytes (mtu.h), four of them under way at once
    (TLS_RELIABLE_N_SEND_BUFFERS). Certificates and key exchange of RSA-2048 are about 3.6 kB from the daemon and 3.2 kB
    from the client: 9 and 8 round trips. The two long calculations are the daemon's answer to ClientHello (a new
    Diffie-Hellman key, a signature) and what follows the client's last piece (the shared secret, signatures checked).
    """
    reset = Leg(packets=1, octets=70, share=0.0, reply_packets=1, reply_octets=80)
    hello = Leg(packets=1, octets=150, share=0.5, reply_packets=4, reply_octets=150)
    certificate_out = [Leg(packets=4, octets=70, share=0.0, reply_packets=4, reply_octets=150)] * 8
    certificate_in = [Leg(packets=4, octets=150, share=0.0, reply_packets=4, reply_octets=70)] * 7
    secret = Leg(packets=4, octets=150, share=0.5, reply_packets=2, reply_octets=150)
    keys = [Leg(packets=3, octets=150, share=0.0, reply_packets=3, reply_octets=150)] * 3
    legs = (reset, hello, *certificate_out, *certificate_in, secret, *keys)
    return Generation(version="2.0", legs=legs, instance_leg=0, backoff=False)


def generation(version: str) -> Generation:
    """Return the generation of that name.

    Raises:
        StormError: there is no model of it.
    """
    if version == "2.0":
        return early()
    if version == "2.6":
        return modern("2.6")
    if version == "2.7":
        return modern("2.7")
    raise StormError(f"version {version}: there is a model of 2.0, 2.6 and 2.7.")


# What OpenVPN does when it is told nothing (options.c v2.6.14).
DEFAULT_TIMERS: Final = Timers(connect_retry=1, connect_retry_max=300, server_poll_timeout=120, hand_window=60)


@dataclass(frozen=True, slots=True)
class Costs:
    """Milliseconds of CPU."""

    # Server side, one whole handshake: P-256, tls-crypt-v2, a verify script in sh (3.43 + 1.0 for the child), measured.
    handshake: float = 4.43
    # Client side: seen from the client 6.2 ms on idle cores, of which the daemon had 2.84, measured.
    client: float = 3.4
    # Client side, the beginning of any attempt: one process, 35 restarts, 18 ms, measured.
    restart: float = 0.5
    # Client side, a process that is started, until its first packet: 6 in bench/storm, 20 ms with the handshake.
    start: float = 16.0
    # A first packet that is answered, and one with a foreign key, measured.
    reset: float = 0.022
    junk: float = 0.017
    # Any other packet of a handshake; a repeated one costs only this. Measured for unknown packets (0.003 to 0.005).
    packet: float = 0.005


@dataclass(frozen=True, slots=True)
class Setup:
    """A fleet and its gateways, as far as a storm depends on them."""

    name: str
    sites: int
    daemons: int
    cores: int
    keepalive: tuple[int, int]
    # One for all, or one for each site.
    timers: Sequence[Timers]
    generation: Generation = field(default_factory=lambda: modern("2.6"))
    client_version: Version = "2.6"
    costs: Costs = field(default_factory=Costs)
    clients_share_cores: bool = False
    # So many cores are used by others all the time.
    background: float = 0.0
    connect_freq: tuple[int, int] | None = None
    connect_freq_initial: tuple[int, int] | None = (100, 10)
    receive_buffer: int = KERNEL_BUFFER
    max_clients: int = 1024
    hand_window: int = 60
    round_trip: float = 0.0003
    link_bits: float = 0.0
    link_queue: int = 65_536
    # Tunnels that always carry something notice an outage from its first moment; idle ones count from the last ping.
    traffic: bool = False
    # Age of the last ping at the fault, and how much it differs between sites; None: anything up to the interval.
    ping_age: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """What happens. Recovery counts from the fault, for an outage from the return, for a start from its beginning."""

    kind: SceneKind
    seconds: float = 0.0
    # Measured by bench/failover: the addresses are with the other gateway.
    address_moves: float = 0.36
    # From a daemon's end until its successor listens.
    daemon_start: float = 0.3
    spread: float = 1.0
    junk_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class Drops:
    """Packets that were not answered, by who dropped them."""

    receive_buffer: int = 0
    link: int = 0
    connect_freq_initial: int = 0
    connect_freq: int = 0
    max_clients: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a storm came to."""

    setup: Setup
    scene: Scene
    # Seconds, sorted, one for each site that came back and stayed.
    back: tuple[float, ...]
    affected: int
    undef_peak: int
    drops: Drops
    cpu_daemons: float
    cpu_clients: float
    # The busiest daemon, of one core, until the last site was back.
    busiest: float
    # When the last site's client first knew and could ask a gateway that was there.
    floor: float
    packets: int
    fell_again: int
    ended: float
    # The run was cut short: too much happened without an end in sight.
    gave_up: bool

    def at(self, share: float) -> float | None:
        """When this share of the sites was back; None when it never was."""
        wanted = max(1, round(share * self.affected))
        return self.back[wanted - 1] if wanted <= len(self.back) else None


def receive_buffer(*, option: int | None, limit: int | None = None) -> int:
    """What the kernel grants for `rcvbuf`: twice the option (net/core/sock.c), the option held to net.core.rmem_max."""
    if option is None:
        return KERNEL_BUFFER
    return 2 * (option if limit is None else min(option, limit))


def occupies(octets: int) -> int:
    """What a packet of that size costs a receive buffer."""
    wanted, slab = octets + UDP_IP + HEADROOM + SKB_TAIL, SMALLEST_SLAB
    while slab < wanted:
        slab *= 2
    return slab + SKB_OVERHEAD
