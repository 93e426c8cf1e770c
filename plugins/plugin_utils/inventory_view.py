# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet as Ansible sees it: groups, hosts, variables. Pure data; the inventory plugin hands it on."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from ansible_collections.spokewright.fleet.plugins.plugin_utils.announced import announced
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ansible_ssh import connection_variables
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.targets import gateway_target, site_target
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tunnel_fit import tunnel_fit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet, Site
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Gateway, Nic, Routing

Variables = dict[str, Any]


@dataclass(slots=True)
class Group:
    """A group: its variables, the groups below it, the hosts in it."""

    variables: Variables = field(default_factory=dict)
    children: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)


@dataclass(slots=True)
class InventoryView:
    """Everything the inventory plugin adds, in order: parents come before their children."""

    groups: dict[str, Group]
    hosts: dict[str, Variables]

    def holds_template(self) -> bool:
        """Say whether a string anywhere in the variables would mean something to Jinja."""
        return _template_in([group.variables for group in self.groups.values()]) or _template_in(self.hosts)

    def refuse_second_fleet(self, *, known: Mapping[str, Any]) -> None:
        """Refuse to add a fleet to another: hosts of one would get variables and groups of both.

        Raises:
            FleetError: `known`, the variables of the group all so far, are those of another plan.
        """
        first, second = known.get("fleet_plan_file"), self.groups["all"].variables["fleet_plan_file"]
        if first is not None and first != second:
            raise FleetError(
                f"{second}: the inventory already holds the fleet of {first}. One run serves one fleet: name one plan "
                "with -i."
            )


def build_view(*, fleet: Fleet) -> InventoryView:
    """Return the groups and hosts of a fleet.

    Raises:
        InputErrors: the file of measured capacity has faults, and hosts would get other limits than the recorded.
    """
    fleet.refuse_bad_capacity()
    plan = fleet.plan
    groups = {
        "all": Group(variables=_fleet_variables(fleet)),
        "gateways": Group(variables=_gateway_group_variables(fleet), hosts=[gateway.name for gateway in plan.gateways]),
        "sites": Group(children=list(plan.groups)),
        **{name: Group() for name in plan.groups},
        **{f"instance_{instance.name}": Group() for instance in fleet.instances},
    }
    hosts: dict[str, Variables] = {}
    shapes = {gateway.name: _gateway_shape(gateway) for gateway in plan.gateways}
    for gateway in plan.gateways:
        hosts[gateway.name] = {
            **connection_variables(target=gateway_target(plan=plan, gateway=gateway)),
            "fleet_gateway": shapes[gateway.name],
            "fleet_gateway_peers": [shape for name, shape in shapes.items() if name != gateway.name],
        }
    for site in fleet.sites:
        hosts[site.id] = {
            **connection_variables(target=site_target(plan=plan, site=site)),
            **_site_variables(site),
        }
        groups[site.group].hosts.append(site.id)
        groups[f"instance_{site.instance}"].hosts.append(site.id)
    return InventoryView(groups=groups, hosts=hosts)


def others_would_take(*, plan_file: Path) -> bool:
    """Say whether Ansible's own yaml or ini plugin would read a plan as hosts after we refused it.

    They leave a file alone that says `plugin:`; one without, or an empty one, becomes an inventory without hosts.
    """
    try:
        text = plan_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError):
        return not re.search(r"^plugin:\s", text, re.MULTILINE)
    return not (isinstance(document, dict) and document.get("plugin"))


def _template_in(value: object) -> bool:
    if isinstance(value, str):
        return "{{" in value or "{%" in value or "{#" in value
    if isinstance(value, dict):
        return any(_template_in(item) for item in value.values())
    return isinstance(value, list) and any(_template_in(item) for item in value)


def _fleet_variables(fleet: Fleet) -> Variables:
    plan = fleet.plan
    tunnels, inside = plan.tunnels, plan.inside
    return {
        "fleet_name": plan.name,
        "fleet_plan_file": str(fleet.plan_file),
        "fleet_key_store": str(plan.key_store),
        "fleet_key_store_key": str(plan.key_store_key),
        "fleet_groups": list(plan.groups),
        "fleet_policies": asdict(plan.policies),
        "fleet_tunnels": {
            "mode": tunnels.mode,
            "network": str(tunnels.network),
            "netmask": str(tunnels.network.netmask),
            "prefix": tunnels.network.prefixlen,
            "server_address": str(tunnels.server_address),
            "second_network": None if tunnels.second_network is None else str(tunnels.second_network),
            "keepalive": {"interval": tunnels.keepalive.interval, "timeout": tunnels.keepalive.timeout},
            "block_prefix": tunnels.block_prefix,
            "key_type": tunnels.key_type,
            **asdict(tunnel_fit(mtus=[transport.mtu for transport in plan.transports])),
        },
        "fleet_inside": {
            "network": str(inside.network),
            "vip": str(inside.vip),
            "vrrp_id": inside.vrrp_id,
            "core_networks": [str(network) for network in inside.core_networks],
            "core_next_hop": None if inside.core_next_hop is None else str(inside.core_next_hop),
            "probes": [str(address) for address in inside.probes],
        },
        "fleet_transports": [
            {
                "name": transport.name,
                "network": str(transport.network),
                "vip": str(transport.vip),
                "vrrp_id": transport.vrrp_id,
                "probes": [str(address) for address in transport.probes],
                "mtu": transport.mtu,
            }
            for transport in plan.transports
        ],
        "fleet_oob": {"network": str(plan.oob.network), "vrrp_id": plan.oob.vrrp_id},
        "fleet_routing": _routing_variables(plan.routing),
        "fleet_site_networks": [str(network) for network in plan.site_networks],
    }


def _routing_variables(routing: Routing) -> Variables:
    return {
        **asdict(routing),
        "area": None if routing.area is None else str(routing.area),
        "neighbors": [str(address) for address in routing.neighbors],
    }


def _gateway_group_variables(fleet: Fleet) -> Variables:
    return {
        **_measured_variables(fleet),
        "fleet_instances": [
            {
                "name": instance.name,
                "index": instance.index,
                "port": instance.port,
                "device": instance.device,
                "blocks": list(instance.blocks),
            }
            for instance in fleet.instances
        ],
        "fleet_sites": [
            {
                "id": site.id,
                "tunnel_address": site.tunnel_address,
                "instance": site.instance,
                "lans": list(site.lans),
            }
            for site in fleet.sites
        ],
        "fleet_announced": _announced(fleet),
        "fleet_gateway_names": [gateway.name for gateway in fleet.plan.gateways],
    }


def _measured_variables(fleet: Fleet) -> Variables:
    """What was measured, in the words of the roles: above their defaults, below whatever the operator sets himself."""
    if fleet.capacity is None:
        return {}
    values = fleet.capacity.values
    return {
        "tunnel_server_capacity": values.capacity,
        "tunnel_server_max_clients": values.max_clients,
        "tunnel_server_connect_freq": values.connect_freq,
        "tunnel_server_connect_freq_initial": values.connect_freq_initial,
        "tunnel_server_socket_buffer": values.socket_buffer,
        "tunnel_server_hand_window": values.hand_window,
        "tunnel_server_reconnects_per_second": values.reconnects_per_second,
        # The role's default holds for smaller ones.
        "gateway_routing_socket_buffer": max(4194304, values.socket_buffer),
    }


def _announced(fleet: Fleet) -> list[Variables]:
    plan = fleet.plan
    if plan.routing.protocol == "static":
        return []
    blocks = {block for instance in fleet.instances for block in instance.blocks}
    lans = {lan for site in fleet.sites for lan in site.lans}
    prefixes = announced(aggregates=[plan.tunnels.network, *plan.site_networks], taken=blocks | lans)
    return [{"prefix": prefix} for prefix in prefixes]


def _nic(nic: Nic) -> Variables:
    return {"interface": nic.interface, "address": str(nic.address)}


def _gateway_shape(gateway: Gateway) -> Variables:
    return {
        "name": gateway.name,
        "cores": gateway.cores,
        "oob": _nic(gateway.oob),
        "inside": _nic(gateway.inside),
        "transports": {name: _nic(nic) for name, nic in gateway.transports.items()},
    }


def _site_variables(site: Site) -> Variables:
    timers = site.timers
    return {
        "fleet_site_id": site.id,
        "fleet_site_group": site.group,
        "fleet_site_lans": list(site.lans),
        "fleet_site_transports": list(site.transports),
        "fleet_oob_address": site.oob_address,
        "fleet_tunnel_address": site.tunnel_address,
        "fleet_tunnel_block": site.tunnel_block,
        "fleet_tunnel_instance": site.instance,
        "fleet_tunnel_port": site.port,
        "fleet_tunnel_remotes": [
            {"transport": remote.transport, "address": remote.address, "port": remote.port} for remote in site.remotes
        ],
        "fleet_tunnels_of_site": [{"instance": site.instance, "address": site.tunnel_address, "port": site.port}],
        "fleet_timers": {
            "connect_retry": timers.connect_retry,
            "connect_retry_max": timers.connect_retry_max,
            "server_poll_timeout": timers.server_poll_timeout,
            "hand_window": timers.hand_window,
        },
    }
