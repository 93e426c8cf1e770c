#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_status
short_description: Say for each site whether its tunnel is up as planned
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - Reads every tunnel instance of both gateways by its management socket, over the out-of-band network, prints a
    table, and fails unless every site is up and the pair is as planned.
  - Runs on the controller only and changes nothing on any host.
options:
  plan:
    description: Path of the plan, C(*.fleet.yml).
    type: path
    required: true
attributes:
  check_mode:
    description: It does the same in check mode.
    support: full
  diff_mode:
    description: It changes nothing, so there is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Look at the fleet
  spokewright.fleet.fleet_status:
    plan: "{{ fleet_plan_file }}"
  run_once: true
"""

RETURN = r"""
summary:
  description: How many sites there are with each verdict, and whether all is well.
  returned: always
  type: dict
  sample: {total: 8, up: 8, down: 0, wrong_address: 0, wrong_instance: 0, handshaking: 0, never_seen: 0, well: true}
problems:
  description: What is wrong with the gateway pair as such.
  returned: always
  type: list
  elements: str
  sample: []
not_up:
  description: Ids of the sites that are not up as planned.
  returned: always
  type: list
  elements: str
  sample: []
"""
