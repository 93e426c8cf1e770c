# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the gateways of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils import names
from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Gateway, Nic
from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan_facts import PlacedHostKey, PlacedInterface

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.host_key_field import HostKeyField
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.placed_reader import PlacedReader
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.yaml_source import Node

_PAIR = 2


class GatewaysReader:
    """Reads the pair, after groups and transports are known."""

    def __init__(self, *, reader: PlacedReader, host_key: HostKeyField) -> None:
        self._reader = reader
        self._host_key_field = host_key

    def read(self, node: Node | None) -> tuple[Gateway, ...] | None:
        """Return both gateways, None when something about them is missing or bad."""
        if node is None:
            return None
        if node.kind != "mapping":
            self._reader.section(node, required=("NAME-OF-GATEWAY",))
            return None
        if len(node.entries) != _PAIR:
            self._reader.fault(
                node,
                f"names {len(node.entries)} where a fleet has exactly two.",
                "Describe the pair: one owner, one standby.",
            )
        found = [self._gateway(name=name, node=entry) for name, entry in node.entries.items()]
        self._reader.facts.gateway_names = tuple(node.entries)
        good = tuple(one for one in found if one is not None)
        return good if len(good) == len(found) else None

    def _gateway(self, *, name: str, node: Node) -> Gateway | None:
        reader = self._reader
        groups = self._reader.facts.groups or ()
        if not names.LABEL.fullmatch(name):
            reader.fault(node, f"'{name}' is no host name.", names.LABEL_RULE)
        elif name in names.RESERVED_HOSTS or names.reserved_group(name) or name in groups:
            reader.fault(node, f"'{name}' is the name of a group too.", "Rename the gateway.")
        required = ("cores", "oob", "inside", "transports")
        entries = reader.section(node, required=required, optional=("host_key",))
        if entries is None:
            return None
        host_key = self._host_key(entries, name=name, node=node)
        cores = reader.integer(entries.get("cores"), low=1, high=1024)
        oob = self._nic(entries.get("oob"), gateway=name, home="oob")
        inside = self._nic(entries.get("inside"), gateway=name, home="inside")
        nics = self._transport_nics(entries.get("transports"), gateway=name)
        if host_key is None or cores is None or oob is None or inside is None or nics is None:
            return None
        return Gateway(name=name, host_key=host_key, cores=cores, oob=oob, inside=inside, transports=nics)

    def _host_key(self, entries: Mapping[str, Node], *, name: str, node: Node) -> str | None:
        text = self._host_key_field.read(entries, whose=f"gateway {name}", node=node)
        if text:
            self._reader.facts.host_keys.append(PlacedHostKey(name, text, entries["host_key"]))
        return text

    def _nic(self, node: Node | None, *, gateway: str, home: str) -> Nic | None:
        entries = self._reader.section(node, required=("interface", "address"))
        if entries is None:
            return None
        interface = self._reader.matching(
            entries.get("interface"), pattern=names.INTERFACE, what="interface name", remedy=names.INTERFACE_RULE
        )
        if interface in names.NO_INTERFACE:
            remedy = "Name the network interface of the gateway that is on this network."
            self._reader.fault(entries["interface"], f"'{interface}' is no interface of a network.", remedy)
            interface = None
        if interface is not None:
            self._reader.facts.interfaces.append(PlacedInterface(gateway, interface, entries["interface"]))
        address = self._reader.placed_address(entries.get("address"), home=home, owner=gateway)
        if interface is None or address is None:
            return None
        return Nic(interface=interface, address=address)

    def _transport_nics(self, node: Node | None, *, gateway: str) -> Mapping[str, Nic] | None:
        if node is None:
            return None
        wanted = self._reader.facts.transport_names
        entries = self._reader.section(node, required=node.entries if wanted is None else wanted)
        if entries is None:
            return None
        nics: dict[str, Nic] = {}
        for name, entry in entries.items():
            nic = self._nic(entry, gateway=gateway, home=f"transports.{name}")
            if nic is not None:
                nics[name] = nic
        # In the plan's order of preference, however the gateway lists them.
        return {name: nics[name] for name in wanted} if wanted is not None and set(nics) == set(wanted) else None
