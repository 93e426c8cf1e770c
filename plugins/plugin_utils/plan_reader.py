# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a `*.fleet.yml`: from a YAML tree to a plan, with every fault noted on the way."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils import names
from ansible_collections.spokewright.fleet.plugins.plugin_utils.gateways_reader import GatewaysReader
from ansible_collections.spokewright.fleet.plugins.plugin_utils.host_key_field import HostKeyField
from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import (
    ETHERNET_MTU,
    Inside,
    OutOfBand,
    Plan,
    Policies,
    Routing,
    Transport,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan_facts import PlacedNetwork
from ansible_collections.spokewright.fleet.plugins.plugin_utils.routing_reader import read_routing
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_reader import read_ssh
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tunnels_reader import read_tunnels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Address, IPv4Network

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.placed_reader import PlacedReader
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.yaml_source import Node

PLUGIN = "spokewright.fleet.fleet"
# Keys of Ansible's own Constructable, served by the inventory plugin. `groups` is ours, so theirs is not offered.
CONSTRUCTED_KEYS = ("compose", "keyed_groups", "leading_separator", "strict")
# Every IPv4 host takes packets of 576 bytes (RFC 791); 9216 is what switches call jumbo.
LEAST_MTU, MOST_MTU = 576, 9216
_ANY_TEXT = re.compile(r"[^\x00-\x1f\ud800-\udfff]+")


class PlanReader:
    """Reads one plan. Sections are read in the order in which they need each other."""

    def __init__(self, *, reader: PlacedReader, plan_file: Path, plan_argument: str, require_host_keys: bool) -> None:
        self._reader = reader
        self._plan_file = plan_file
        self._plan_argument = plan_argument
        self._require_host_keys = require_host_keys

    def read(self, *, root: Node) -> Plan | None:
        """Return the plan, or None when some value of it is missing or bad."""
        reader = self._reader
        self._reader.facts.root = root
        top = reader.section(
            root,
            required=(
                *("plugin", "fleet", "registry", "lock", "key_store", "ssh", "tunnels", "inside", "transports"),
                *("oob", "site_networks", "groups", "gateways"),
            ),
            optional=("key_store_key", "policies", "routing", *CONSTRUCTED_KEYS),
        )
        if top is None:
            return None
        reader.choice(top.get("plugin"), allowed=(PLUGIN,))
        name = reader.matching(top.get("fleet"), pattern=names.LABEL, what="fleet name", remedy=names.LABEL_RULE)
        groups = self._groups(top.get("groups"))
        host_key = HostKeyField(self._reader, self._plan_argument, self._require_host_keys)
        ssh = read_ssh(reader=reader, node=top.get("ssh"), path_of=self._path, host_key=host_key)
        oob = self._oob(top.get("oob"))
        inside = self._inside(top.get("inside"))
        transports = self._transports(top.get("transports"))
        gateways = GatewaysReader(reader=reader, host_key=host_key).read(top.get("gateways"))
        tunnels = read_tunnels(reader=reader, node=top.get("tunnels"), gateways=gateways)
        site_networks = self._site_networks(top.get("site_networks"))
        policies = self._policies(top.get("policies"))
        routing = self._routing(top, inside=inside)
        registry = self._path(top.get("registry"))
        lock = self._path(top.get("lock"))
        key_store = self._path(top.get("key_store"))
        if lock is not None and lock == registry:
            reader.fault(
                top["lock"], "is the registry itself; writing the lock would destroy it.", "Name another file."
            )
            return None
        others = {
            "this file itself": self._plan_file,
            "the registry": registry,
            "the lock": lock,
            "the login key of ssh.private_key_file": None if ssh is None else ssh.private_key_file,
        }
        key_store_key = self._key_store_key(top, key_store=key_store, others=others)
        if (
            name is None
            or groups is None
            or ssh is None
            or oob is None
            or inside is None
            or transports is None
            or gateways is None
            or tunnels is None
            or site_networks is None
            or policies is None
            or routing is None
            or registry is None
            or lock is None
            or key_store is None
            or key_store_key is None
        ):
            return None
        return Plan(
            file=self._plan_file,
            name=name,
            registry=registry,
            lock=lock,
            key_store=key_store,
            key_store_key=key_store_key,
            ssh=ssh,
            tunnels=tunnels,
            inside=inside,
            transports=transports,
            oob=oob,
            site_networks=site_networks,
            groups=groups,
            policies=policies,
            routing=routing,
            gateways=gateways,
        )

    def path_of(self, key: str) -> Path | None:
        """Return a path of the plan even where the plan as a whole is bad, without noting anything."""
        node = None if self._reader.facts.root is None else self._reader.facts.root.entries.get(key)
        return None if node is None or not _ANY_TEXT.fullmatch(node.text) else self._absolute(node.text)

    def _absolute(self, text: str) -> Path | None:
        if not text.strip():
            return None
        try:
            path = Path(text).expanduser()
        except RuntimeError:
            return None
        return Path(os.path.abspath(self._plan_file.parent / path))  # noqa: PTH100 - keep symlinks

    def _path(self, node: Node | None) -> Path | None:
        text = self._reader.matching(node, pattern=_ANY_TEXT, what="path", remedy="Write a path relative to this file.")
        if node is None or text is None:
            return None
        path = self._absolute(text)
        if path is None:
            remedy = "Name a user that exists, or write a path relative to this file."
            self._reader.fault(node, f"'{text}' starts in the home of a user this computer does not know.", remedy)
        return path

    def _groups(self, node: Node | None) -> tuple[str, ...] | None:
        items = self._reader.items(node, of="site group names, in rollout order")
        if items is None:
            return None
        found: list[str] = []
        for item in items:
            name = self._reader.matching(item, pattern=names.GROUP, what="group name", remedy=names.GROUP_RULE)
            if name is None:
                continue
            if names.reserved_group(name):
                self._reader.fault(item, f"'{name}' is a group the inventory makes itself.", "Choose another name.")
            elif name in found:
                self._reader.fault(
                    item, f"'{name}' stands in the list twice.", "Name each group once, in rollout order."
                )
            else:
                found.append(name)
        if len(found) != len(items):
            return None
        self._reader.facts.groups = tuple(found)
        return self._reader.facts.groups

    def _key_store_key(
        self, top: Mapping[str, Node], *, key_store: Path | None, others: Mapping[str, Path | None]
    ) -> Path | None:
        """The key the key store is encrypted with: beside the store by default, never inside it."""
        written = top.get("key_store_key")
        if written is not None:
            path = self._path(written)
        else:
            path = None if key_store is None else key_store.parent / f"{key_store.name}.key"
        node = written or top.get("key_store")
        if path is None or node is None:
            return None
        where = "" if written is not None else f"the default of key_store_key, {path.name}, "
        remedy = "Name another file for key_store_key."
        for what, other in others.items():
            if path == other:
                self._reader.fault(node, f"{where}is {what}.", remedy)
                return None
        if key_store is not None and path.is_relative_to(key_store):
            message = "is the key store itself" if path == key_store else "lies inside the key store"
            remedy = "Keep the key apart from what it opens: name a file outside the key store."
            self._reader.fault(node, f"{where}{message}.", remedy)
            return None
        return path

    def _oob(self, node: Node | None) -> OutOfBand | None:
        entries = self._reader.section(node, required=("network", "vrrp_id"))
        if entries is None:
            return None
        network = self._reader.placed_network(entries.get("network"), home="oob")
        vrrp_id = self._reader.vrrp_id(entries.get("vrrp_id"))
        if network is None or vrrp_id is None:
            return None
        return OutOfBand(network=network, vrrp_id=vrrp_id)

    def _inside(self, node: Node | None) -> Inside | None:
        entries = self._reader.section(
            node, required=("network", "vip", "vrrp_id"), optional=("core_networks", "core_next_hop", "probes")
        )
        if entries is None:
            return None
        network = self._reader.placed_network(entries.get("network"), home="inside")
        vip = self._reader.placed_address(entries.get("vip"), home="inside", owner="the inside VIP")
        vrrp_id = self._reader.vrrp_id(entries.get("vrrp_id"))
        next_hop = self._reader.placed_address(entries.get("core_next_hop"), home="inside", owner="the core router")
        core: list[IPv4Network | None] = [network]
        if "core_networks" in entries:
            items = self._reader.items(entries["core_networks"], of="networks behind the core router")
            core = [None] if items is None else [self._core_network(item, inside=network) for item in items]
        good = tuple(one for one in core if one is not None)
        # The core router is what the inside is there for, so it is what proves the inside.
        probes: tuple[IPv4Address, ...] = () if next_hop is None else (next_hop,)
        if "probes" in entries:
            written = self._reader.targets(entries["probes"], home="inside", role="probe")
            if written is None:
                return None
            probes = written
        if network is None or vip is None or vrrp_id is None or len(good) != len(core):
            return None
        if next_hop is None and "core_next_hop" not in entries and any(one != network for one in good):
            self._reader.fault(
                entries["core_networks"],
                "names networks other than the inside network, but no core_next_hop leads to them.",
                "Add inside.core_next_hop: the core router's own address in the inside network.",
            )
        return Inside(
            network=network, vip=vip, vrrp_id=vrrp_id, core_networks=good, core_next_hop=next_hop, probes=probes
        )

    def _routing(self, top: Mapping[str, Node], *, inside: Inside | None) -> Routing | None:
        next_hop = None if inside is None else inside.core_next_hop
        return read_routing(
            reader=self._reader, node=top.get("routing"), next_hop=next_hop, inside_known=inside is not None
        )

    def _core_network(self, node: Node, *, inside: IPv4Network | None) -> IPv4Network | None:
        network = self._reader.network(node)
        if network is not None and network != inside:
            self._reader.facts.networks.append(PlacedNetwork(network, node))
        return network

    def _transports(self, node: Node | None) -> tuple[Transport, ...] | None:
        items = self._reader.items(node, of="transports, in order of preference")
        if items is None:
            return None
        found: list[Transport | None] = []
        seen: list[str] = []
        all_named = True
        for item in items:
            entries = self._reader.section(
                item, required=("name", "network", "vip", "vrrp_id"), optional=("probes", "mtu")
            )
            if entries is None:
                all_named = False
                found.append(None)
                continue
            name = self._reader.matching(
                entries.get("name"), pattern=names.TRANSPORT, what="transport name", remedy=names.TRANSPORT_RULE
            )
            if name is None:
                all_named = False
            elif name in seen:
                self._reader.fault(entries["name"], f"'{name}' is the name of two transports.", "Rename one of them.")
                all_named, name = False, None
            elif name in names.NO_TRANSPORT:
                self._reader.fault(entries["name"], f"'{name}' is a network of the plan itself.", "Rename it.")
                all_named, name = False, None
            else:
                seen.append(name)
            found.append(self._transport(entries, name=name or item.path))
        self._reader.facts.transport_names = tuple(seen) if all_named else None
        good = tuple(one for one in found if one is not None)
        return good if len(good) == len(found) else None

    def _transport(self, entries: Mapping[str, Node], *, name: str) -> Transport | None:
        home = f"transports.{name}"
        network = self._reader.placed_network(entries.get("network"), home=home)
        vip = self._reader.placed_address(entries.get("vip"), home=home, owner=f"the VIP of {name}")
        vrrp_id = self._reader.vrrp_id(entries.get("vrrp_id"))
        probes: tuple[IPv4Address, ...] | None = ()
        mtu: int | None = ETHERNET_MTU
        if "probes" in entries:
            probes = self._reader.targets(entries["probes"], home=home, role="probe")
        if "mtu" in entries:
            mtu = self._reader.integer(entries["mtu"], low=LEAST_MTU, high=MOST_MTU)
        if network is None or vip is None or vrrp_id is None or probes is None or mtu is None:
            return None
        return Transport(name=name, network=network, vip=vip, vrrp_id=vrrp_id, probes=probes, mtu=mtu)

    def _site_networks(self, node: Node | None) -> tuple[IPv4Network, ...] | None:
        items = self._reader.items(node, of="networks that hold every site's LANs")
        if items is None:
            return None
        found = [self._reader.placed_network(item) for item in items]
        good = tuple(one for one in found if one is not None)
        if len(good) != len(items):
            return None
        paths = {item.path for item in items}
        self._reader.facts.site_networks = tuple(
            placed for placed in self._reader.facts.networks if placed.node.path in paths
        )
        return good

    def _policies(self, node: Node | None) -> Policies | None:
        if node is None:
            return Policies()
        entries = self._reader.section(
            node, required=(), optional=("gate_seconds", "deadman_seconds", "advert_seconds")
        )
        if entries is None:
            return None
        usual = Policies()
        gate: int | None = usual.gate_seconds
        deadman: int | None = usual.deadman_seconds
        advert: float | None = usual.advert_seconds
        if "gate_seconds" in entries:
            gate = self._reader.integer(entries["gate_seconds"], low=1, high=3600)
        if "deadman_seconds" in entries:
            deadman = self._reader.integer(entries["deadman_seconds"], low=10, high=7200)
        if "advert_seconds" in entries:
            # As the role ha_agent: quicker ones flap on a busy host, slower ones make an outage of every failover.
            advert = self._reader.number(entries["advert_seconds"], low=0.05, high=10)
        if gate is None or deadman is None or advert is None:
            return None
        if deadman <= gate:
            self._reader.fault(
                entries.get("deadman_seconds", node),
                f"a site would go back after {deadman} s, before its gate has waited {gate} s.",
                "Make deadman_seconds greater than gate_seconds.",
            )
        return Policies(gate_seconds=gate, deadman_seconds=deadman, advert_seconds=advert)
