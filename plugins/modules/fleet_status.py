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
  - It remembers in C(state/) beside the plan when each site was seen and how its last sessions began; without that
    memory no site is V(flapping), and two boxes that use one key in turn are not told from one.
  - Runs on the controller only and changes nothing on any host.
options:
  plan:
    description: Path of the plan, C(*.fleet.yml).
    type: path
    required: true
  groups:
    description: Look at the sites of these site groups only. The pair is looked at as a whole all the same.
    type: list
    elements: str
    default: []
  oob:
    description:
      - Ask each site over its out-of-band link as well, many at a time, whether it answers and what it runs.
      - It then fails, too, when a site does not answer.
    type: bool
    default: false
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

- name: See that a group is up and can be worked on
  spokewright.fleet.fleet_status:
    plan: "{{ fleet_plan_file }}"
    groups: [canary]
    oob: true
  run_once: true
"""

RETURN = r"""
summary:
  description: How many sites there are with each verdict, and whether all is well.
  returned: always
  type: dict
  sample:
    total: 8
    up: 8
    down: 0
    duplicate_session: 0
    wrong_address: 0
    wrong_instance: 0
    wrong_epoch: 0
    old_epoch: 0
    flapping: 0
    handshaking: 0
    never_seen: 0
    held: 0
    oob_up: 0
    oob_down: 0
    oob_not_asked: 8
    well: true
problems:
  description: What is wrong with the gateway pair as such.
  returned: always
  type: list
  elements: str
  sample: []
oob_down:
  description: Ids of the sites that do not answer over their out-of-band links; empty when O(oob) is false.
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
