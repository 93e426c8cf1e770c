# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory of a fleet of hub-and-spoke tunnels."""

from __future__ import annotations

DOCUMENTATION = """
name: fleet
short_description: Gateways and sites of a tunnel fleet
description:
  - Reads the plan of a fleet (C(*.fleet.yml) or C(*.fleet.yaml)), the registry of its sites (CSV) and the lock of its
    address allocations (JSON), and makes of them the hosts, groups and variables the roles of this collection use.
  - Everything is checked before the first host is added; all faults of all files are reported at once, with remedy.
  - New sites get their address in memory, the same each time; C(tools/fleet plan --write) persists it in the lock.
author: Spokewright maintainers (@spokewright)
notes:
  - Groups are C(gateways), C(sites), those of O(groups) below it, C(instance_NAME). See C(docs/registry-and-plan.md).
  - A broken plan never becomes an empty inventory, and two plans never one; the plugin ends the run itself if need be.
options:
  plugin:
    description: Marks the file as a plan for this plugin.
    type: str
    required: true
    choices: [spokewright.fleet.fleet]
  fleet:
    description: Name of the fleet, in certificates and reports. A lower-case host name label.
    type: str
    required: true
  registry:
    description: The CSV file of the sites. Relative to the plan, like every path.
    type: path
    required: true
  lock:
    description: The JSON file of allocations, kept in git. Made on the first write.
    type: path
    required: true
  key_store:
    description: The controller's directory of keys.
    type: path
    required: true
  key_store_key:
    description: What the key store is encrypted with; O(key_store) with C(.key) behind its name if not given.
    type: path
  ssh:
    description: How the controller logs in over the out-of-band network.
    type: dict
    required: true
    suboptions:
      user:
        description: Login on gateways and sites; a site may have another by its option C(oob_user).
        type: str
        default: root
      port:
        description: TCP port of sshd; a site may have another by its option C(oob_port).
        type: int
        default: 22
      private_key_file:
        description: The private key. Passwords are never used.
        type: path
        required: true
      bastion:
        description: The host all others are reached through (C(address), C(host_key), C(channels), a login if need be).
        type: dict
  tunnels:
    description: Tunnel addresses and the openvpn instances that serve them.
    type: dict
    required: true
    suboptions:
      mode:
        description: V(single) is one tunnel per site, to the gateway that holds the virtual address.
        type: str
        choices: [single]
        default: single
      network:
        description: Where tunnel addresses come from. Its first block is the gateways' own.
        type: str
        required: true
      block_prefix:
        description: Prefix length of a block; a block is served by one instance.
        type: int
        default: 28
      second_network:
        description: Kept for a second tunnel per site, with the same offsets as in O(tunnels.network).
        type: str
      keepalive:
        description: Seconds between pings (C(interval)) and until a peer is given up (C(timeout)).
        type: dict
        default: {interval: 2, timeout: 6}
      instances:
        description: Number of daemons (C(count), V(auto) for one per core) and their first UDP port (C(base_port)).
        type: dict
        default: {count: auto, base_port: 1194}
      key_type:
        description: Kind of key certificates are made with.
        type: str
        choices: [p256, ed25519]
        default: p256
  inside:
    description: The core LAN (C(network), C(vip), C(vrrp_id), C(core_networks), C(core_next_hop), C(probes)).
    type: dict
    required: true
  transports:
    description: By preference, each with C(name), C(network), C(vip), C(vrrp_id), maybe C(probes) and C(mtu).
    type: list
    elements: dict
    required: true
  oob:
    description: The out-of-band network (C(network), C(vrrp_id)).
    type: dict
    required: true
  site_networks:
    description: Aggregates that hold every LAN of every site.
    type: list
    elements: str
    required: true
  groups:
    description: Site groups, in the order of a rollout.
    type: list
    elements: str
    required: true
  policies:
    description: C(gate_seconds), C(deadman_seconds) and C(advert_seconds).
    type: dict
    default: {gate_seconds: 60, deadman_seconds: 120, advert_seconds: 0.1}
  routing:
    description: How the core learns the way to the sites (C(protocol) V(static), V(ospf) or V(bgp), and its settings).
    type: dict
  gateways: {type: dict, required: true, description: "The pair, by name (C(host_key), C(cores), interfaces)."}
  compose:
    description: Variables made from Jinja expressions, for each host.
    type: dict
    default: {}
  keyed_groups:
    description: Groups made from the value of an expression, for each host.
    type: list
    elements: dict
    default: []
  leading_separator:
    description: Whether a keyed group without prefix starts with its separator.
    type: bool
    default: true
  strict:
    description: Whether an expression of O(compose) or O(keyed_groups) that fails is an error.
    type: bool
    default: false
"""

EXAMPLES = """
# lab.fleet.yml; look at it with: ansible-inventory -i lab.fleet.yml --graph
plugin: spokewright.fleet.fleet
fleet: lab
registry: sites.csv
lock: lab.lock.json
key_store: keystore
ssh: {user: root, private_key_file: ssh/id_ed25519}
tunnels: {network: 10.101.0.0/16, instances: {count: 2, base_port: 1194}}
inside: {network: 10.200.0.0/24, vip: 10.200.0.1, vrrp_id: 10}
transports: [{name: internet, network: 203.0.113.0/24, vip: 203.0.113.1, vrrp_id: 30}]
oob: {network: 172.20.0.0/16, vrrp_id: 40}
site_networks: [10.64.0.0/14]
groups: [canary, north, south]
gateways:
  gw1:
    host_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmQxlFN0RYyqSpDzKMr2JpEnWPBl0pzkN4U5Zq0lZ1w
    cores: 2
    oob: {interface: eno1, address: 172.20.0.1}
    inside: {interface: eno2, address: 10.200.0.2}
    transports: {internet: {interface: eno3, address: 203.0.113.2}}
  gw2:
    host_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBq3v0T2O0CQ1VVLDHRE1hKqY8RtVQbHkZQ3x3yqP2cT
    cores: 2
    oob: {interface: eno1, address: 172.20.0.2}
    inside: {interface: eno2, address: 10.200.0.3}
    transports: {internet: {interface: eno3, address: 203.0.113.3}}
keyed_groups: [{prefix: prefers, key: "fleet_site_transports[0]"}]  # your own groups beside ours
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible import constants as C  # noqa: N812 - Ansible's own name for it
from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.inventory_view import build_view, others_would_take

if TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.inventory_view import InventoryView

_SUFFIXES = (".fleet.yml", ".fleet.yaml")


class InventoryModule(BaseInventoryPlugin, Constructable):
    """Hands the hosts of a plan to Ansible."""

    NAME = "spokewright.fleet.fleet"

    def verify_file(self, path: str) -> bool:
        """Take what is named like a plan, readable or not: an unreadable plan deserves its error."""
        return path.endswith(_SUFFIXES) and Path(path).exists()

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:  # noqa: FBT001, FBT002
        """Add the groups, hosts and variables of the plan, or nothing at all."""
        try:
            super().parse(inventory, loader, path, cache)
            self._take(inventory, path)
        except Exception as exc:  # whatever it is: Ansible would go on without the fleet
            text = str(exc) if isinstance(exc, FleetError) else f"{path}: {exc or type(exc).__name__}"
            must_fail = C.config.get_config_value("INVENTORY_ANY_UNPARSED_IS_FAILED")
            if not must_fail or others_would_take(plan_file=Path(path)):
                self.display.error(text, wrap_text=False)
                raise SystemExit(1) from exc
            raise AnsibleParserError(text) from exc

    def _take(self, inventory: Any, path: str) -> None:
        view = build_view(fleet=load_fleet(plan_file=Path(path)))
        view.refuse_second_fleet(known=inventory.groups["all"].vars)
        self._read_config_data(path)
        # Ansible shows every value it does not trust as {"__ansible_unsafe": ...}. Where nothing could be a template,
        # trust changes nothing but that: `ansible-inventory --list` stays readable for people and programs.
        self.trusted_by_default = not self.get_option("compose") and not view.holds_template()
        self._add(view)
        if self.get_option("compose") or self.get_option("keyed_groups"):
            self._construct(view)

    def _add(self, view: InventoryView) -> None:
        inventory: Any = self.inventory
        for name, group in view.groups.items():
            inventory.add_group(name)
            for key, value in group.variables.items():
                inventory.set_variable(name, key, value)
        for name, variables in view.hosts.items():
            inventory.add_host(name)
            for key, value in variables.items():
                inventory.set_variable(name, key, value)
        for name, group in view.groups.items():
            for child in (*group.children, *group.hosts):
                inventory.add_child(name, child)

    def _construct(self, view: InventoryView) -> None:
        strict = self.get_option("strict")
        shared = view.groups["all"].variables
        for name, variables in view.hosts.items():
            self._set_composite_vars(self.get_option("compose"), {**shared, **variables}, name, strict=strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), shared, name, strict=strict)
