#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Try how large a packet paths carry."""

from __future__ import annotations

DOCUMENTATION = r"""
module: path_mtu
short_description: Try whether paths carry packets of the planned size in one piece
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - Sends each address echo requests that must not be fragmented, of the planned size first. Where they do not come
    back, it looks for the largest that does.
  - An address that does not answer at all is part of the result, not a failure of the task.
options:
  paths:
    description: What to try.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the network, for the result.
        type: str
        required: true
      interface:
        description: Interface to send from.
        type: str
        required: true
      address:
        description: Address that answers there.
        type: str
        required: true
      mtu:
        description: Size of the largest packet, IP header included.
        type: int
        required: true
attributes:
  check_mode:
    description: It changes nothing and does the same in check mode.
    support: full
  diff_mode:
    description: It changes nothing, so there is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Try whether the provider's router gets full packets
  spokewright.fleet.path_mtu:
    paths: [{name: internet, interface: eno3, address: 203.0.113.14, mtu: 1500}]
  register: paths
"""

RETURN = r"""
paths:
  description: The paths as they were given, each with the size that passed, 0 when nothing did.
  returned: always
  type: list
  elements: dict
  sample: [{name: internet, interface: eno3, address: 203.0.113.14, mtu: 1500, carried: 1480}]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.spokewright.fleet.plugins.module_utils import path_mtu as core


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "paths": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "interface": {"type": "str", "required": True},
                    "address": {"type": "str", "required": True},
                    "mtu": {"type": "int", "required": True},
                },
            }
        },
        supports_check_mode=True,
    )
    found = []
    for path in module.params["paths"]:
        try:
            size = core.carried(address=path["address"], interface=path["interface"], size=path["mtu"])
        except OSError as exc:
            module.fail_json(
                msg=f"{path['name']}: no echo request can be sent from {path['interface']}: {exc.strerror or exc}. "
                "It needs root and an interface of that name; correct the interface in the plan."
            )
        found.append({**path, "carried": size})
    module.exit_json(changed=False, paths=found)


if __name__ == "__main__":
    main()
