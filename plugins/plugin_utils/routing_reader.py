# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the routing section of a plan: how the core learns the way to the sites."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING, cast

from ansible_collections.spokewright.fleet.plugins.plugin_utils.field_reader import listing
from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Routing, RoutingProtocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.placed_reader import PlacedReader
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.yaml_source import Node

_KEYS: dict[str, tuple[str, ...]] = {
    "static": (),
    "ospf": ("area", "hello_seconds", "dead_seconds", "bfd"),
    "bgp": ("local_as", "peer_as", "neighbors", "bfd"),
}
_LAST_AS = 4294967294
_BACKBONE = IPv4Address(0)
# What the protocol itself and every router of the core begin with: both ends of a link must agree.
_HELLO_SECONDS, _DEAD_SECONDS = 10, 40


def read_routing(
    *, reader: PlacedReader, node: Node | None, next_hop: IPv4Address | None, inside_known: bool
) -> Routing | None:
    """Return the section, None when something in it is missing or bad; static routes when there is none.

    `next_hop` is the core router, the only neighbor unless others are named.
    """
    if node is None:
        return Routing()
    known = tuple(dict.fromkeys(key for keys in _KEYS.values() for key in keys))
    entries = reader.section(node, required=("protocol",), optional=known)
    if entries is None:
        return None
    protocol = reader.choice(entries.get("protocol"), allowed=tuple(_KEYS))
    if protocol is None or _strange_keys(reader, entries, known=known, protocol=protocol):
        return None
    if protocol == "ospf":
        return _ospf(reader, entries, node)
    if protocol == "bgp":
        return _bgp(reader, entries, node, next_hop=next_hop, inside_known=inside_known)
    return Routing(protocol=cast(RoutingProtocol, protocol))


def _strange_keys(reader: PlacedReader, entries: Mapping[str, Node], *, known: tuple[str, ...], protocol: str) -> bool:
    keys = _KEYS[protocol]
    strange = [key for key in entries if key in known and key not in ("protocol", *keys)]
    for key in strange:
        reader.fault(
            entries[key],
            f"means nothing with the protocol {protocol}.",
            f"Remove it; {protocol} has {listing(keys)}." if keys else "Remove it, or choose ospf or bgp.",
        )
    return bool(strange)


def _ospf(reader: PlacedReader, entries: Mapping[str, Node], node: Node) -> Routing | None:
    area = reader.address(entries["area"]) if "area" in entries else _BACKBONE
    hello: int | None = _HELLO_SECONDS
    dead: int | None = _DEAD_SECONDS
    if "hello_seconds" in entries:
        hello = reader.integer(entries["hello_seconds"], low=1, high=65535)
    if "dead_seconds" in entries:
        dead = reader.integer(entries["dead_seconds"], low=1, high=65535)
    bfd = reader.boolean(entries["bfd"]) if "bfd" in entries else True
    if area is None or hello is None or dead is None or bfd is None:
        return None
    if dead < 2 * hello:
        reader.fault(
            entries.get("dead_seconds", entries.get("hello_seconds", node)),
            f"a neighbor would be given up after {dead} s, with a hello every {hello} s.",
            f"Make dead_seconds {4 * hello}, or at least {2 * hello}, and the same on the core.",
        )
        return None
    return Routing(protocol="ospf", bfd=bfd, area=area, hello_seconds=hello, dead_seconds=dead)


def _bgp(
    reader: PlacedReader, entries: Mapping[str, Node], node: Node, *, next_hop: IPv4Address | None, inside_known: bool
) -> Routing | None:
    numbers: dict[str, int | None] = {}
    for key in ("local_as", "peer_as"):
        if key in entries:
            numbers[key] = reader.integer(entries[key], low=1, high=_LAST_AS)
        else:
            numbers[key] = None
            reader.fault(node, f"has no {key}.", f"Add routing.{key}: an autonomous system, as in 64512.")
    bfd = reader.boolean(entries["bfd"]) if "bfd" in entries else True
    neighbors: tuple[IPv4Address, ...] | None = () if next_hop is None else (next_hop,)
    if "neighbors" in entries:
        neighbors = reader.targets(entries["neighbors"], home="inside", role="neighbor", least=1)
    elif next_hop is None and inside_known:
        reader.fault(
            node,
            "names no neighbor, and the plan has no inside.core_next_hop.",
            "Add routing.neighbors: the core routers' own addresses in the inside network.",
        )
    if numbers["local_as"] is None or numbers["peer_as"] is None or bfd is None or not neighbors:
        return None
    return Routing(
        protocol="bgp", bfd=bfd, local_as=numbers["local_as"], peer_as=numbers["peer_as"], neighbors=neighbors
    )
