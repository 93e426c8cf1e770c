# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan says, value by value, whether or not the whole of it is valid.

Rules between values, and the judgement of registry and lock, work on these facts: one bad value in the plan then hides
no other fault, neither in the plan nor in the files it names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ansible_collections.spokewright.fleet.plugins.plugin_utils.addresses import Span

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Network

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.yaml_source import Node


class PlacedNetwork(NamedTuple):
    """A network and the place in the plan that names it."""

    network: IPv4Network
    node: Node

    @property
    def span(self) -> Span:
        """First and last address."""
        return Span(int(self.network.network_address), int(self.network.broadcast_address))


class PlacedAddress(NamedTuple):
    """An address that must lie in a network of the plan: `home` is that network's key, `owner` who holds it."""

    address: IPv4Address
    home: str
    owner: str
    node: Node


class PlacedTarget(NamedTuple):
    """An address of somebody else in a network of the plan: `home` is that network's key, `role` what it is to us."""

    address: IPv4Address
    home: str
    role: str
    node: Node


class PlacedInterface(NamedTuple):
    """An interface name of a gateway."""

    gateway: str
    name: str
    node: Node


class PlacedHostKey(NamedTuple):
    """A host key of a gateway."""

    gateway: str
    text: str
    node: Node


class PlacedBastion(NamedTuple):
    """Where the bastion answers; `host_key` is '' when it is missing or bad."""

    address: IPv4Address
    port: int
    host_key: str
    node: Node


class PlacedNumber(NamedTuple):
    """A number and its place."""

    number: int
    node: Node


@dataclass(slots=True)
class PlanFacts:
    """Collected while the plan is read; None means: not known, so do not judge by it."""

    networks: list[PlacedNetwork] = field(default_factory=list)
    homes: dict[str, PlacedNetwork] = field(default_factory=dict)
    addresses: list[PlacedAddress] = field(default_factory=list)
    targets: list[PlacedTarget] = field(default_factory=list)
    interfaces: list[PlacedInterface] = field(default_factory=list)
    vrrp_ids: list[PlacedNumber] = field(default_factory=list)
    host_keys: list[PlacedHostKey] = field(default_factory=list)
    site_networks: tuple[PlacedNetwork, ...] | None = None
    groups: tuple[str, ...] | None = None
    transport_names: tuple[str, ...] | None = None
    gateway_names: tuple[str, ...] = ()
    tunnel_network: IPv4Network | None = None
    block_prefix: int | None = None
    instance_count: int | None = None
    ssh_user: str | None = None
    ssh_port: int | None = None
    bastion: PlacedBastion | None = None
    root: Node | None = None

    def line(self, path: str) -> int:
        """Return the line of a dotted path, or of its nearest parent that is written down, 0 when there is none."""
        node, line = self.root, 0
        for key in path.split("."):
            if node is None or key not in node.entries:
                return line
            node = node.entries[key]
            line = node.line
        return line
