# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for the checks before anything is touched."""

from __future__ import annotations

import typing as t

from ansible_collections.spokewright.fleet.plugins.plugin_utils.preflight import (
    gateway_problems,
    paths_to_try,
    silent_paths,
)

DOCUMENTATION = r"""
name: gateway_problems
short_description: Say everything that keeps a host from being the gateway the plan describes
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - Takes the gateway of the plan and what the host says of itself, and returns every fault in words.
positional: _input
options:
  _input:
    description: The gateway as the plan describes it, C(fleet_gateway) of the inventory.
    type: dict
    required: true
  instances:
    description: The planned tunnel instances.
    type: list
    elements: dict
    required: true
  links:
    description: What C(ip -json -4 address show) printed, parsed.
    type: list
    elements: dict
    required: true
  sockets:
    description: What C(ss -Hulnp) printed.
    type: str
    required: true
  free_kib:
    description: Free space under /etc in KiB.
    type: int
    required: true
  cores:
    description: How many processors the host has.
    type: int
    required: true
  has_tun:
    description: Whether /dev/net/tun is a character device.
    type: bool
    required: true
  service_manager:
    description: The name of process 1.
    type: str
    required: true
  transports:
    description: The planned transports, with C(name) and C(mtu).
    type: list
    elements: dict
    default: []
  paths:
    description: What M(spokewright.fleet.path_mtu) found on them.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Say what is wrong
  ansible.builtin.debug:
    msg: "{{ fleet_gateway | spokewright.fleet.gateway_problems(instances=fleet_instances, links=[], sockets='',
      free_kib=100000, cores=2, has_tun=true, service_manager='systemd') }}"
"""

RETURN = r"""
_value:
  description: The faults; empty when there is none.
  type: list
  elements: str
"""


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Map names to functions."""
        return {
            "gateway_problems": lambda gateway, **facts: gateway_problems(gateway=gateway, **facts),
            "gateway_paths": lambda transports, gateway: paths_to_try(gateway=gateway, transports=transports),
            "gateway_silent_paths": lambda paths, gateway: silent_paths(gateway=gateway, paths=paths),
        }
