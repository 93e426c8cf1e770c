# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read values whose place in the plan matters to rules between values: networks, addresses, VRRP ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils.field_reader import FieldReader
from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan_facts import (
    PlacedAddress,
    PlacedNetwork,
    PlacedNumber,
    PlacedTarget,
    PlanFacts,
)

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Network

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import Problem
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.yaml_source import Node


class PlacedReader(FieldReader):
    """A field reader that also collects the facts of the plan."""

    def __init__(self, *, file: str, problems: list[Problem]) -> None:
        super().__init__(file=file, problems=problems)
        self.facts = PlanFacts()

    def placed_network(self, node: Node | None, *, home: str = "") -> IPv4Network | None:
        """Return a network that no other may overlap; `home` names it for the addresses that must lie in it."""
        network = self.network(node)
        if network is not None and node is not None:
            placed = PlacedNetwork(network, node)
            self.facts.networks.append(placed)
            if home:
                self.facts.homes[home] = placed
        return network

    def placed_address(self, node: Node | None, *, home: str, owner: str) -> IPv4Address | None:
        """Return an address that is its owner's alone and lies in the network `home`."""
        address = self.address(node)
        if address is not None and node is not None:
            self.facts.addresses.append(PlacedAddress(address, home, owner, node))
        return address

    def targets(self, node: Node | None, *, home: str, role: str, least: int = 0) -> tuple[IPv4Address, ...] | None:
        """Return a list of others' addresses in the network `home`; `role` is the word for one of them."""
        items = self.items(node, of=f"addresses, each a {role}", least=least)
        if items is None:
            return None
        found = [(self.address(item), item) for item in items]
        good = [(address, item) for address, item in found if address is not None]
        self.facts.targets += [PlacedTarget(address, home, role, item) for address, item in good]
        return tuple(address for address, _item in good) if len(good) == len(items) else None

    def vrrp_id(self, node: Node | None) -> int | None:
        """Return a VRRP id, which no other network may have."""
        number = self.integer(node, low=1, high=255)
        if number is not None and node is not None:
            self.facts.vrrp_ids.append(PlacedNumber(number, node))
        return number
