#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tunnel_gate
short_description: Wait until sites are up as planned, on the gateways' word
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - Asks every tunnel instance of both gateways over the out-of-band network, again and again, until each site has a
    session on the gateway that holds the virtual IP addresses, on the planned instance, with the planned address,
    and has answered an echo request through its tunnel.
  - A site that does not pass in time is part of the result, not a failure of the task.
  - Runs on the controller only.
options:
  plan:
    description: Path of the plan, C(*.fleet.yml).
    type: path
    required: true
  sites:
    description: Ids of the sites that must pass.
    type: list
    elements: str
    required: true
  since:
    description:
      - For each site the Unix time (on the controller) of its activation.
      - A session that is older than that proves nothing and does not count.
    type: dict
    default: {}
  seconds:
    description: How long to wait in all.
    type: float
    default: 60
  deadman_seconds:
    description:
      - How long each site waits to be confirmed before it goes back by itself.
      - With it the wait ends no later than 30 seconds before the site of O(since) that was activated first would go
        back, so that the sites that passed can still be confirmed. Without it only O(seconds) counts.
    type: int
attributes:
  check_mode:
    description: In check mode it does not wait and says for how many sites it would.
    support: full
  diff_mode:
    description: It changes nothing, so there is nothing to show.
    support: none
seealso:
  - module: spokewright.fleet.site_generation
"""

EXAMPLES = r"""
- name: Wait until the sites of this wave are up
  spokewright.fleet.tunnel_gate:
    plan: "{{ fleet_plan_file }}"
    sites: [site-0001, site-0002]
    seconds: 60
  run_once: true
  register: gate
"""

RETURN = r"""
sites:
  description: For each site whether it passed, and the evidence or what was missing.
  returned: always
  type: dict
  sample:
    site-0001:
      ok: true
      message: connected to tun0 on gw1 as 10.101.0.16, an echo went through the tunnel
"""
