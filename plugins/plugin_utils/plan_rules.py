# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules between the values of a plan, judged on whatever values are good by themselves."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils import names
from ansible_collections.spokewright.fleet.plugins.plugin_utils.allocation import instance_index

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.field_reader import FieldReader
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan_facts import (
        PlacedAddress,
        PlacedHostKey,
        PlacedNetwork,
        PlanFacts,
    )
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.yaml_source import Node

_SMALLEST_SHARED_PREFIX = 30
_PAIR = 2


def judge_plan(*, facts: PlanFacts, reader: FieldReader) -> None:
    """Note every broken rule."""
    _tunnel_network(facts, reader)
    _overlaps(facts, reader)
    _addresses(facts, reader)
    _targets(facts, reader)
    _vrrp_ids(facts, reader)
    _interfaces(facts, reader)
    _host_keys(facts, reader)
    _address_order(facts, reader)
    _bastion(facts, reader)


def _tunnel_network(facts: PlanFacts, reader: FieldReader) -> None:
    network, block_prefix, count = facts.tunnel_network, facts.block_prefix, facts.instance_count
    placed = {one.node.path: one for one in facts.networks}
    if network is None or "tunnels.network" not in placed:
        return
    node = placed["tunnels.network"].node
    second = placed.get("tunnels.second_network")
    if second is not None and second.network.prefixlen != network.prefixlen:
        reader.fault(
            second.node,
            f"is a /{second.network.prefixlen}, tunnels.network a /{network.prefixlen}: "
            "a site has the same offset in both.",
            f"Make it a /{network.prefixlen}.",
        )
    if block_prefix is None:
        return
    if block_prefix <= network.prefixlen:
        reader.fault(
            node,
            f"{network} cannot be cut into /{block_prefix} blocks: the first block belongs to the gateways.",
            f"Make tunnels.block_prefix {network.prefixlen + 1} to 30, or the network larger.",
        )
        return
    blocks = (1 << (block_prefix - network.prefixlen)) - 1
    if count is not None and count > blocks:
        reader.fault(
            node,
            f"{network} has {blocks} /{block_prefix} blocks for sites, {count} instances need one each.",
            "Lower tunnels.instances.count, raise tunnels.block_prefix, or make the network larger.",
        )


def _overlaps(facts: PlanFacts, reader: FieldReader) -> None:
    for one, other in combinations(sorted(facts.networks, key=lambda placed: placed.node.line), 2):
        paths = {one.node.path, other.node.path}
        # What lies behind the core router may well hold the inside network too.
        if "inside.network" in paths and any(path.startswith("inside.core_networks") for path in paths):
            continue
        if one.span.overlaps(other.span):
            reader.fault(
                other.node,
                f"{other.network} overlaps {one.network} of {one.node.path} in line {one.node.line}.",
                "Give each its own range.",
            )


def _addresses(facts: PlanFacts, reader: FieldReader) -> None:
    owners: dict[IPv4Address, PlacedAddress] = {}
    for placed in facts.addresses:
        address, home = placed.address, facts.homes.get(placed.home)
        first = owners.setdefault(address, placed)
        if first is not placed:
            reader.fault(
                placed.node,
                f"{address} is already the address of {first.owner} in line {first.node.line} ({first.node.path}).",
                "Give each its own address.",
            )
            continue
        _in_its_network(address, home, placed.node, reader)


def _in_its_network(address: IPv4Address, home: PlacedNetwork | None, node: Node, reader: FieldReader) -> None:
    if home is None:
        return
    network = home.network
    if address not in network:
        reader.fault(node, f"{address} is not in {network} of {home.node.path}.", "Write an address of that network.")
    elif network.prefixlen <= _SMALLEST_SHARED_PREFIX and address in (
        network.network_address,
        network.broadcast_address,
    ):
        reader.fault(
            node, f"{address} is the network or broadcast address of {network}.", "Write an address of a host."
        )


def _targets(facts: PlanFacts, reader: FieldReader) -> None:
    """Whom a gateway asks must be somebody else: an answer of its own would prove nothing."""
    ours = {placed.address: placed for placed in facts.addresses if placed.node.path != "inside.core_next_hop"}
    seen: dict[tuple[IPv4Address, str, str], Node] = {}
    for target in facts.targets:
        address, node = target.address, target.node
        first = seen.setdefault((address, target.home, target.role), node)
        if first is not node:
            reader.fault(node, f"{address} stands in the list twice.", "Remove one of the two.")
        elif address in ours:
            placed = ours[address]
            place = f"in line {placed.node.line} ({placed.node.path})"
            reader.fault(
                node,
                f"{address} is the address of {placed.owner} {place}: the pair would ask itself.",
                f"Write the address of another host of that network, or remove the {target.role}.",
            )
        else:
            _in_its_network(address, facts.homes.get(target.home), node, reader)


def _vrrp_ids(facts: PlanFacts, reader: FieldReader) -> None:
    seen: dict[int, str] = {}
    for number, node in facts.vrrp_ids:
        first = seen.setdefault(number, f"{node.path} in line {node.line}")
        if not first.startswith(f"{node.path} "):
            reader.fault(node, f"{number} is the VRRP id of {first} too.", "Give each network its own id, 1 to 255.")


def _interfaces(facts: PlanFacts, reader: FieldReader) -> None:
    seen: dict[tuple[str, str], int] = {}
    for gateway, name, node in facts.interfaces:
        first = seen.setdefault((gateway, name), node.line)
        index = instance_index(name)
        if seen[gateway, name] != node.line or first != node.line:
            reader.fault(
                node,
                f"'{name}' is already another interface of {gateway}, in line {first}.",
                "One interface serves one network.",
            )
        elif index is not None and (facts.instance_count is None or index < facts.instance_count):
            reader.fault(
                node,
                f"'{name}' is the tun device of a tunnel instance.",
                "Rename the interface on the gateway, or correct it.",
            )


def _host_keys(facts: PlanFacts, reader: FieldReader) -> None:
    seen: dict[str, PlacedHostKey] = {}
    for placed in facts.host_keys:
        first = seen.setdefault(placed.text, placed)
        if first is not placed:
            place = f"{first.gateway} in line {first.node.line}"
            reader.fault(placed.node, f"is also the host key of {place}; a cloned image.", names.CLONED_RULE)


def _address_order(facts: PlanFacts, reader: FieldReader) -> None:
    """Equal VRRP priorities are settled by the higher address: it must be the same gateway on every network."""
    if len(facts.gateway_names) != _PAIR:
        return
    one, other = facts.gateway_names
    pairs: dict[str, dict[str, PlacedAddress]] = {}
    for placed in facts.addresses:
        if placed.owner in facts.gateway_names:
            pairs.setdefault(placed.home, {})[placed.owner] = placed
    complete = {home: pair for home, pair in pairs.items() if len(pair) == _PAIR}
    # Two alike are a fault of their own.
    complete = {home: pair for home, pair in complete.items() if pair[one].address != pair[other].address}
    higher = {home: pair[one].address < pair[other].address for home, pair in complete.items()}
    if len(set(higher.values())) <= 1:
        return
    reference = next(iter(complete))
    for home, pair in complete.items():
        if higher[home] == higher[reference]:
            continue
        winner, loser = (one, other) if not higher[home] else (other, one)
        reader.fault(
            pair[winner].node,
            f"{pair[winner].address} of {winner} is higher than {pair[loser].address} of {loser}, on {reference} "
            "it is the other way round: both would give way when a split of the pair heals.",
            f"Give {loser} the higher address on {home}, as on {reference}.",
        )


def _bastion(facts: PlanFacts, reader: FieldReader) -> None:
    """A gateway may be the bastion, a virtual address may not: the host behind it changes, and its key with it."""
    bastion = facts.bastion
    if bastion is None:
        return
    for placed in facts.addresses:
        if placed.address == bastion.address and placed.owner not in facts.gateway_names:
            reader.fault(
                bastion.node,
                f"{bastion.address} is the address of {placed.owner} in line {placed.node.line}.",
                "Write the bastion's own address.",
            )
            return
    for one in facts.networks:
        if one.node.path.startswith(("tunnels.", "site_networks")) and bastion.address in one.network:
            reader.fault(
                bastion.node,
                f"{bastion.address} lies in {one.network} of {one.node.path} in line {one.node.line}: keys never "
                "travel through the tunnel.",
                "Write the address the bastion answers SSH on, outside the tunnels.",
            )
            return
