#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: capacity
short_description: Measure how many sites the gateways carry, and record the limits that follow
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - Starts on each gateway, one after another, an OpenVPN daemon with the options of its tunnel instances and has
    clients connect to it, with keys that are made for it and thrown away. It runs at the lowest priority, in a network
    of its own that has only a loopback device, and in bounds of time and memory; nothing of it is left, also when it is
    killed.
  - A gateway that is loaded, or whose health daemon says that something is wrong, is left alone, and the task fails.
  - Records what was measured and what follows in C(NAME.capacity.json) beside the plan. The inventory hands the values
    to the roles where the operator has set none.
options:
  plan:
    description: Path of the plan, C(*.fleet.yml).
    type: path
    required: true
  gateways:
    description: Measure these gateways only, and keep what is recorded of the other one.
    type: list
    elements: str
    default: []
  link:
    description:
      - What a gateway's outside link carries, as in V(10mbit). Empty for the one that is recorded, and if none is, for
        a link that is no limit.
    type: str
    default: ''
  handshakes:
    description: How many handshakes to measure, 10 to 200.
    type: int
    default: 50
  max_load:
    description: Leave a gateway alone that has more load than this for each of its cores.
    type: float
    default: 0.7
attributes:
  check_mode:
    description: In check mode nothing is measured and nothing written; it says what is recorded.
    support: full
  diff_mode:
    description: It shows no difference.
    support: none
"""

EXAMPLES = r"""
- name: Measure both gateways, whose links carry 10 Mbit/s
  spokewright.fleet.capacity:
    plan: "{{ fleet_plan_file }}"
    link: 10mbit
  run_once: true
"""

RETURN = r"""
capacity:
  description: The answer as C(tools/fleet capacity --format json) gives it.
  returned: success
  type: dict
  sample:
    instances_needed: 2
    handshakes_per_second: 231.9
    recovery: {detection: 7.0, cpu: 0.86, link: 0.0, limiter: 0.0, seconds: 7.86, limit: detection}
file:
  description: The file beside the plan.
  returned: success
  type: str
  sample: /etc/spokewright/north.capacity.json
"""
