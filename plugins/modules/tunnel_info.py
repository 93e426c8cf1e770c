#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the tunnel instances of this gateway."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tunnel_info
short_description: Ask a gateway's tunnel instances by their management sockets
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - Asks each OpenVPN daemon for its process, its version and its sessions, and reads the gateway's own addresses.
  - A daemon that does not answer is part of the result, not a failure of the task.
options:
  instances:
    description: Names of the tunnel instances that should run here.
    type: list
    elements: str
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
- name: Ask the tunnel instances
  spokewright.fleet.tunnel_info:
    instances: [tun0, tun1]
  register: tunnels
  failed_when: tunnels.silent | length > 0
"""

RETURN = r"""
instances:
  description: For each instance its process, version and sessions, or the error.
  returned: always
  type: list
  elements: dict
  sample:
    - name: tun0
      pid: 4711
      version: OpenVPN 2.6.14
      clients: []
silent:
  description: Names of the instances that did not answer.
  returned: always
  type: list
  elements: str
  sample: []
addresses:
  description: The IPv4 addresses of this gateway.
  returned: always
  type: list
  elements: str
  sample: ["198.19.0.1", "198.19.0.2"]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.spokewright.fleet.plugins.module_utils.gateway_look import look


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"instances": {"type": "list", "elements": "str", "required": True}},
        supports_check_mode=True,
    )
    seen = look(instances=module.params["instances"])
    module.exit_json(
        changed=False,
        instances=seen["instances"],
        addresses=seen["addresses"],
        silent=[one["name"] for one in seen["instances"] if "error" in one],
    )


if __name__ == "__main__":
    main()
