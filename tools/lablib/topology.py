# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is in the lab and under which address: pure, derived from names alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from .errors import LabError

Kind = Literal["gateway", "core", "site"]
NetworkName = Literal["oob", "frame_relay", "internet", "inside"]

MAX_SITES = 420
DEFAULT_SITES = 8
CONTROLLER_OOB = "198.18.255.254/16"
# Everything the lab ever addresses; the machine gets `unreachable` routes for these, so nothing can leave it.
LAB_RANGES = ("198.18.0.0/15", "10.101.0.0/16", "10.200.0.0/14")
SITE_LANS = "10.202.0.0/15"
TUNNELS = "10.101.0.0/16"
INSIDE_VIP = "10.200.0.1"


@dataclass(frozen=True, kw_only=True)
class Network:
    """One of the lab's networks: a bridge in the switch namespace."""

    name: NetworkName
    prefix: int
    interface: str
    port: str  # short form for the switch's port names, which the kernel limits to 15 characters
    router: str = ""  # what answers there as the provider's router: the switch itself

    @property
    def bridge_mac(self) -> str:
        """The bridge's own: left to itself it takes that of a port, and would answer behind a cable that is cut."""
        return f"02:5c:{list(NETWORKS).index(self.name):02x}:fe:00:00"


NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        Network(name="oob", prefix=16, interface="oob0", port="oob"),
        Network(name="frame_relay", prefix=17, interface="fr0", port="fr", router="198.19.127.254"),
        Network(name="internet", prefix=17, interface="inet0", port="inet", router="198.19.255.254"),
        Network(name="inside", prefix=24, interface="inside0", port="in"),
    )
}


@dataclass(frozen=True, kw_only=True)
class Nic:
    """A host's plug in one network."""

    network: Network
    address: str
    mac: str
    port: str

    @property
    def cidr(self) -> str:
        """The address as `ip address add` wants it."""
        return f"{self.address}/{self.network.prefix}"


@dataclass(frozen=True, kw_only=True)
class Host:
    """One lab host; its namespace carries the same name."""

    name: str
    kind: Kind
    number: int
    nics: tuple[Nic, ...]
    routes: tuple[tuple[str, str], ...] = ()
    forwards: bool = False

    @property
    def oob_address(self) -> str:
        """Where the controller reaches it."""
        return self.nic("oob").address

    def nic(self, network: str) -> Nic:
        """The plug in the named network, or an error that names the valid ones."""
        for nic in self.nics:
            if nic.network.name == network:
                return nic
        valid = ", ".join(nic.network.name for nic in self.nics)
        raise LabError(f"{self.name} has no network '{network}'. It has: {valid}.")


def _nic(*, host: str, host_number: int, network: str, address: str) -> Nic:
    net = NETWORKS[network]
    index = list(NETWORKS).index(network)
    mac = f"02:5c:{index:02x}:{host_number >> 16 & 0xFF:02x}:{host_number >> 8 & 0xFF:02x}:{host_number & 0xFF:02x}"
    return Nic(network=net, address=address, mac=mac, port=f"{host}.{net.port}")


def gateway(number: int) -> Host:
    """gw1 or gw2."""
    name = f"gw{number}"
    addresses = {
        "oob": f"198.18.0.{number}",
        "frame_relay": f"198.19.0.{number + 1}",
        "internet": f"198.19.128.{number + 1}",
        "inside": f"10.200.0.{number + 1}",
    }
    nics = tuple(
        _nic(host=name, host_number=0xFF0000 + number, network=network, address=address)
        for network, address in addresses.items()
    )
    return Host(name=name, kind="gateway", number=number, nics=nics)


def core() -> Host:
    """The host and router on the core LAN, behind the inside VIP."""
    nics = (
        _nic(host="core1", host_number=0xFF0003, network="oob", address="198.18.0.3"),
        _nic(host="core1", host_number=0xFF0003, network="inside", address="10.200.0.10"),
    )
    routes = ((SITE_LANS, INSIDE_VIP), (TUNNELS, INSIDE_VIP))
    return Host(name="core1", kind="core", number=1, nics=nics, routes=routes, forwards=True)


def site(number: int) -> Host:
    """site-0001 and so on."""
    name = f"site-{number:04d}"
    third, fourth = (number - 1) // 250, 1 + (number - 1) % 250
    addresses = {
        "oob": f"198.18.{1 + third}.{fourth}",
        "frame_relay": f"198.19.{1 + third}.{fourth}",
        "internet": f"198.19.{129 + third}.{fourth}",
    }
    nics = tuple(
        _nic(host=name, host_number=number, network=network, address=address) for network, address in addresses.items()
    )
    return Host(name=name, kind="site", number=number, nics=nics)


def default_lan(number: int) -> str:
    """The LAN a site has until its row in sites.csv says otherwise."""
    return f"10.{202 + number // 256}.{number % 256}.0/24"


def group(number: int) -> str:
    """The site group: one in twenty is a canary, the rest alternate."""
    if number % 20 == 1:
        return "canary"
    return "south" if number % 2 else "north"


def hosts(*, sites: int) -> tuple[Host, ...]:
    """All hosts of a lab with that many sites, infrastructure first."""
    if not 1 <= sites <= MAX_SITES:
        raise LabError(f"--sites {sites}: the lab holds 1 to {MAX_SITES} sites.")
    return (gateway(1), gateway(2), core(), *(site(number) for number in range(1, sites + 1)))


def host(*, name: str, sites: int) -> Host:
    """The host of that name, or an error that names the valid ones."""
    known = {"gw1": gateway(1), "gw2": gateway(2), "core1": core()}
    if name in known:
        return known[name]
    match = re.fullmatch(r"site-(\d{4})", name)
    if match and 1 <= int(match[1]) <= sites:
        return site(int(match[1]))
    raise LabError(f"The lab has no host '{name}'. It has: gw1, gw2, core1, site-0001 to site-{sites:04d}.")


def network_named(name: str) -> Network:
    """The network of that name, or an error that names the valid ones."""
    if name in NETWORKS:
        return NETWORKS[name]
    raise LabError(f"The lab has no network '{name}'. It has: {', '.join(NETWORKS)}.")
