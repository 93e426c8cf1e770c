# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a fleet as it is after reading: every value valid, every rule between values kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Address, IPv4Network
    from pathlib import Path

KeyType = Literal["p256", "ed25519"]
TunnelMode = Literal["single"]
Client = Literal["paramiko", "openssh"]
RoutingProtocol = Literal["static", "ospf", "bgp"]
ETHERNET_MTU = 1500


@dataclass(frozen=True, slots=True)
class Bastion:
    """The one host of the out-of-band network the controller can reach; all others are reached through it."""

    address: str
    port: int
    user: str
    host_key: str
    private_key_file: Path
    channels: int


@dataclass(frozen=True, slots=True)
class Ssh:
    """How the controller logs in to gateways and sites over the out-of-band network."""

    user: str
    port: int
    private_key_file: Path
    bastion: Bastion | None = None


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Ping interval and time to give a peer up, in seconds. `decided`: the plan says so, it is no default."""

    interval: int
    timeout: int
    decided: bool = False


@dataclass(frozen=True, slots=True)
class Instances:
    """How many openvpn daemons a gateway runs, and the UDP port of the first."""

    count: int
    base_port: int


@dataclass(frozen=True, slots=True)
class Tunnels:
    """The network tunnel addresses come from, and how it is cut up."""

    mode: TunnelMode
    network: IPv4Network
    block_prefix: int
    second_network: IPv4Network | None
    keepalive: Keepalive
    instances: Instances
    key_type: KeyType

    @property
    def server_address(self) -> IPv4Address:
        """The gateways' own tunnel address, the same on both and on every instance."""
        return self.network.network_address + 1


@dataclass(frozen=True, slots=True)
class Inside:
    """The core LAN side."""

    network: IPv4Network
    vip: IPv4Address
    vrrp_id: int
    core_networks: tuple[IPv4Network, ...]
    core_next_hop: IPv4Address | None
    probes: tuple[IPv4Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Transport:
    """A network tunnels run over."""

    name: str
    network: IPv4Network
    vip: IPv4Address
    vrrp_id: int
    probes: tuple[IPv4Address, ...] = ()
    mtu: int = ETHERNET_MTU


@dataclass(frozen=True, slots=True)
class Routing:
    """How the core learns the way to the sites; what means nothing to the protocol is None or empty."""

    protocol: RoutingProtocol = "static"
    bfd: bool = False
    area: IPv4Address | None = None
    hello_seconds: int | None = None
    dead_seconds: int | None = None
    local_as: int | None = None
    peer_as: int | None = None
    neighbors: tuple[IPv4Address, ...] = ()


@dataclass(frozen=True, slots=True)
class OutOfBand:
    """The second, separate path over which the controller reaches every host."""

    network: IPv4Network
    vrrp_id: int


@dataclass(frozen=True, slots=True)
class Policies:
    """Times that decide how careful a change is made."""

    gate_seconds: int = 60
    deadman_seconds: int = 120
    advert_seconds: float = 0.1


@dataclass(frozen=True, slots=True)
class Nic:
    """A gateway's interface on one network."""

    interface: str
    address: IPv4Address


@dataclass(frozen=True, slots=True)
class Gateway:
    """One of the two hub hosts."""

    name: str
    host_key: str
    cores: int
    oob: Nic
    inside: Nic
    transports: Mapping[str, Nic]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the plan file says; paths are absolute."""

    file: Path
    name: str
    registry: Path
    lock: Path
    key_store: Path
    key_store_key: Path
    ssh: Ssh
    tunnels: Tunnels
    inside: Inside
    transports: tuple[Transport, ...]
    oob: OutOfBand
    site_networks: tuple[IPv4Network, ...]
    groups: tuple[str, ...]
    policies: Policies
    routing: Routing
    gateways: tuple[Gateway, ...]
