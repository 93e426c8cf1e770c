#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_hold
short_description: Keep the tunnel clients of many sites stopped for a while, and let them back in at a rate
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - Talks to all given sites over the out-of-band network at the same time. It needs no key store, takes no lock and
    waits for no rollout.
  - A held site keeps its client stopped, also across a reboot, and starts it again by itself when the time is over,
    whatever its clock says and whether the controller comes back or not.
  - A release lets held sites back in one after the other, in the plan's order of groups, each at its own time, so that
    the rate is kept whatever a single site takes. It waits while the gateways have many half-open handshakes or
    released sites do not come up, and stops when that does not become better within two minutes.
  - A site that fails is part of the result, never a failure of the task. Follow it with
    M(spokewright.fleet.site_verdict), which hands each site its own part.
  - Use it with C(run_once), in a play for the sites. It may be killed at any moment, and the same task goes on.
options:
  plan:
    description: Path of the plan, C(*.fleet.yml).
    type: path
    required: true
  state:
    description: Whether the sites are to be held or to be let in again.
    type: str
    required: true
    choices: [held, released]
  names:
    description: Groups of the plan and ids of sites.
    type: list
    elements: str
    required: true
  sites:
    description: Of these, only those in this list. Without it, all.
    type: list
    elements: str
  time:
    description: With O(state=held), for how long, as V(2h), V(90m) or V(45s). A day at most.
    type: str
    default: 2h
  reason:
    description: With O(state=held), why. The status shows it.
    type: str
    default: ""
  rate:
    description: With O(state=released), how many sites in which time, as V(20/min), V(2/s) or V(600/h).
    type: str
    default: 60/min
attributes:
  check_mode:
    description: Only asks the sites, and says what each would do.
    support: full
  diff_mode:
    description: There is no file to compare.
    support: none
requirements:
  - paramiko >= 3.4, < 6 on the controller
seealso:
  - module: spokewright.fleet.site_verdict
  - module: spokewright.fleet.fleet_status
"""

EXAMPLES = r"""
- name: Hold a group
  spokewright.fleet.site_hold:
    plan: "{{ fleet_plan_file }}"
    state: held
    names: [north]
    time: 90m
    reason: storm on the frame relay
  run_once: true
  register: held

- name: Say what became of each site
  spokewright.fleet.site_verdict:
    results: [held]

- name: Let it back in
  spokewright.fleet.site_hold:
    plan: "{{ fleet_plan_file }}"
    state: released
    names: [north]
    rate: 20/min
  run_once: true
"""

RETURN = r"""
sites:
  description: What became of each site. C(held) is for how many seconds it is held yet.
  returned: always
  type: dict
  sample:
    site-0001:
      ok: true
      changed: true
      reason: ""
      message: held for 7200 s
      held: 7200
      held_by: ann@desk
      held_reason: storm on the frame relay
      seconds: 0.2
    site-0002:
      ok: false
      changed: false
      reason: unreachable
      message: "site-0002: nothing answers at 198.18.1.2:22 within 6 s."
      seconds: 6.1
ok_sites:
  description: Ids of the sites where it went well.
  returned: always
  type: list
  elements: str
  sample: [site-0001]
failed_sites:
  description: Ids of the other sites.
  returned: always
  type: list
  elements: str
  sample: [site-0002]
until:
  description: With O(state=held), when a site that was held now starts its client again by itself.
  returned: with O(state=held)
  type: str
  sample: "2026-11-27T14:05:00Z"
measured_per_minute:
  description: The rate that was kept, from the first site that was released to the last; none with fewer than two.
  returned: with O(state=released), not in check mode
  type: float
  sample: 19.97
waited_seconds:
  description: How much of the time it waited because the gateways could not bear more.
  returned: with O(state=released), not in check mode
  type: float
  sample: 0.0
stopped:
  description: Why it stopped before its end; empty when it did not.
  returned: with O(state=released), not in check mode
  type: str
  sample: ""
msg:
  description: What happened, in one line.
  returned: always
  type: str
  sample: "hold: 2 sites, 1 held, 0 as they should be, 1 failed"
"""
