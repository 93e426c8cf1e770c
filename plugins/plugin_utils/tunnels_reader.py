# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the tunnels section of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ansible_collections.spokewright.fleet.plugins.plugin_utils.allocation import MAX_INSTANCES
from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import (
    Gateway,
    Instances,
    Keepalive,
    KeyType,
    TunnelMode,
    Tunnels,
)

if TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.placed_reader import PlacedReader
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.yaml_source import Node

_MODES = ("single",)
_KEY_TYPES = ("p256", "ed25519")
_LAST_PORT = 65535
# 65,536 addresses in a block; every free one of a block is listed when sites are placed.
_SHORTEST_BLOCK_PREFIX = 16


def read_tunnels(*, reader: PlacedReader, node: Node | None, gateways: tuple[Gateway, ...] | None) -> Tunnels | None:
    """Return the section, None when something in it is missing or bad. `count: auto` asks the gateways."""
    entries = reader.section(
        node,
        required=("network",),
        optional=("mode", "block_prefix", "second_network", "keepalive", "instances", "key_type"),
    )
    if entries is None:
        return None
    mode = reader.choice(entries["mode"], allowed=_MODES) if "mode" in entries else "single"
    network = reader.placed_network(entries.get("network"))
    second = reader.placed_network(entries.get("second_network"))
    block_prefix = (
        reader.integer(entries["block_prefix"], low=_SHORTEST_BLOCK_PREFIX, high=30)
        if "block_prefix" in entries
        else 28
    )
    key_type = reader.choice(entries["key_type"], allowed=_KEY_TYPES) if "key_type" in entries else "p256"
    keepalive = _keepalive(reader, entries.get("keepalive"))
    instances = _instances(reader, entries.get("instances"), gateways=gateways)
    reader.facts.tunnel_network, reader.facts.block_prefix = network, block_prefix
    if (
        mode is None
        or network is None
        or block_prefix is None
        or key_type is None
        or keepalive is None
        or instances is None
        or (second is None and "second_network" in entries)
    ):
        return None
    return Tunnels(
        mode=cast(TunnelMode, mode),
        network=network,
        block_prefix=block_prefix,
        second_network=second,
        keepalive=keepalive,
        instances=instances,
        key_type=cast(KeyType, key_type),
    )


def _keepalive(reader: PlacedReader, node: Node | None) -> Keepalive | None:
    if node is None:
        return Keepalive(interval=2, timeout=6)
    entries = reader.section(node, required=("interval", "timeout"))
    if entries is None:
        return None
    interval = reader.integer(entries.get("interval"), low=1, high=3600)
    timeout = reader.integer(entries.get("timeout"), low=2, high=7200)
    if interval is None or timeout is None:
        return None
    if timeout < 2 * interval:
        reader.fault(
            entries["timeout"],
            f"{timeout} is less than twice the interval of {interval}: one lost ping would end a tunnel.",
            f"Write {3 * interval}, or at least {2 * interval}.",
        )
    return Keepalive(interval=interval, timeout=timeout, decided=True)


def _instances(reader: PlacedReader, node: Node | None, *, gateways: tuple[Gateway, ...] | None) -> Instances | None:
    entries = {} if node is None else reader.section(node, required=(), optional=("count", "base_port"))
    if entries is None:
        return None
    count: int | None = None
    written = entries.get("count")
    if written is None or written.text == "auto":
        if gateways:
            count = min(MAX_INSTANCES, *(gateway.cores for gateway in gateways))
    elif written.kind == "text":
        reader.fault(
            written, f"'{written.text}' is neither a number nor auto.", f"Write 1 to {MAX_INSTANCES}, or auto."
        )
    else:
        count = reader.integer(written, low=1, high=MAX_INSTANCES)
    base_port = reader.integer(entries["base_port"], low=1, high=_LAST_PORT) if "base_port" in entries else 1194
    reader.facts.instance_count = count
    if count is None or base_port is None:
        return None
    if base_port + count - 1 > _LAST_PORT:
        place = entries.get("base_port", node)
        if place is not None:
            reader.fault(
                place,
                f"{count} instances from port {base_port} on end at {base_port + count - 1}, "
                f"the last port is {_LAST_PORT}.",
                f"Write at most {_LAST_PORT + 1 - count}.",
            )
    return Instances(count=count, base_port=base_port)
