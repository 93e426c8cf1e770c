# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory of a fleet of hub-and-spoke tunnels."""

from __future__ import annotations

DOCUMENTATION = """
name: fleet
short_description: Gateways and sites of a tunnel fleet
author: Spokewright maintainers (@spokewright)
options:
  plugin:
    description: Marks the file as a plan of this plugin.
    type: str
    required: true
    choices: [spokewright.fleet.fleet]
"""

EXAMPLES = ""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import InputErrors
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.inventory_view import build_view


class InventoryModule(BaseInventoryPlugin, Constructable):
    """Hands the hosts of a plan to Ansible."""

    NAME = "spokewright.fleet.fleet"

    def verify_file(self, path: str) -> bool:
        """Take files named like a plan, and no others."""
        return super().verify_file(path) and path.endswith((".fleet.yml", ".fleet.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add the groups, hosts and variables of the plan."""
        super().parse(inventory, loader, path, cache)
        try:
            view = build_view(fleet=load_fleet(plan_file=Path(path)))
        except InputErrors as exc:
            raise AnsibleParserError(str(exc)) from exc
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
