#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action rollout; its code is the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: rollout
short_description: Decide who has a turn in a rollout, and whether it goes on
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - The steps of a rollout around its deliveries, M(spokewright.fleet.site_generation) and
    M(spokewright.fleet.tunnel_gate). Sites are sorted into waves by site group, in the order of the plan, or of the
    rollout's own plan C(rollouts/ID/plan.yml) beside the fleet's.
  - Before each wave it looks whether the rollout is paused or aborted, whether the wave is approved, whether too many
    sites could not be reached, and whether the gateway pair is healthy. After each wave it compares what the gateways
    have seen with the budgets. What is decided is kept in C(rollouts/ID/state.json).
  - What a site runs is asked of the site. A run that was killed is gone on with by running the same playbook again.
  - Runs on the controller only.
options:
  plan:
    description: Path of the plan, C(*.fleet.yml). The rollouts lie beside it.
    type: path
    required: true
  state:
    description:
      - V(planned) reads what O(rollout) is about and who takes part.
      - V(claimed) begins a run of a rollout, or refuses because another one is at work or is not finished.
      - V(opened) sorts the sites into waves by what they answered to the staging, O(stage).
      - V(begun) says which sites of O(wave) are to be activated, if the rollout may go on.
      - V(ended) enters what became of them, waits for the end of the wave's soak time, and judges.
      - V(closed) ends the run, says what became of each site and writes the report.
    type: str
    choices: [planned, claimed, opened, begun, ended, closed]
    required: true
  rollout:
    description:
      - Id of the rollout. With V(claimed) and V(opened), without it, the one of this kind that is not finished is gone
        on with, or a new one begins.
    type: str
    default: ""
  what:
    description: What is brought to the sites.
    type: str
    choices: [configuration, keys]
    default: configuration
  reason:
    description: Why.
    type: str
    default: ""
  beside:
    description: Work beside a rollout that is not finished, for what cannot wait for it.
    type: bool
    default: false
  sites:
    description: With V(opened), the ids of all sites of the play, also those that have failed.
    type: list
    elements: str
    default: []
  stage:
    description: With V(opened), what M(spokewright.fleet.site_generation) with C(verb=stage) returned.
    type: dict
    default: {}
  wave:
    description: With V(begun) and V(ended), the name of the wave.
    type: str
    default: ""
  activate:
    description: With V(ended), what C(verb=activate) returned.
    type: dict
    default: {}
  gate:
    description: With V(ended), what M(spokewright.fleet.tunnel_gate) returned.
    type: dict
    default: {}
  confirm:
    description: With V(ended), what C(verb=confirm) returned.
    type: dict
    default: {}
  any_pair:
    description: Go on also with a gateway pair that is not healthy.
    type: bool
    default: false
  gate_seconds:
    description: How long a site may take to be well again at the end of a soak time.
    type: float
    default: 60
attributes:
  check_mode:
    description: Says which waves there would be, and why none of them would begin; keeps nothing.
    support: full
  diff_mode:
    description: Changes nothing that has a difference to show.
    support: none
requirements:
  - cryptography >= 43 on the controller
seealso:
  - module: spokewright.fleet.site_generation
  - module: spokewright.fleet.tunnel_gate
"""

EXAMPLES = r"""
- name: Sort the sites into waves
  spokewright.fleet.rollout:
    plan: "{{ fleet_plan_file }}"
    state: opened
    sites: "{{ ansible_play_hosts_all }}"
    stage: "{{ staged }}"
  run_once: true
  register: opened
"""

RETURN = r"""
rollout:
  description: Id of the rollout. Empty where there is nothing to roll out.
  returned: with V(claimed) and V(opened)
  type: str
  sample: 20261126-235001-keys
waves:
  description: The waves with a site to change or a soak time to wait for, in order.
  returned: with V(opened)
  type: list
  elements: str
  sample: [canary, north 1/2, north 2/2]
sites:
  description: With V(planned) and V(begun), ids of sites. With V(closed), a verdict for each site.
  returned: with V(planned), V(begun) and V(closed)
  type: raw
  sample: [site-0001]
stopped:
  description: Why the rollout goes no further. Empty when it may go on.
  returned: with V(begun) and V(ended)
  type: str
  sample: 1 site failed, the budget for that is 0
what:
  description: What is brought to the sites.
  returned: with V(planned) and V(claimed)
  type: str
  sample: keys
reason:
  description: Why.
  returned: with V(planned) and V(claimed)
  type: str
  sample: quarter 4
waiting_sites:
  description: Ids of the sites whose turn has not come. They run what they ran.
  returned: with V(closed)
  type: list
  elements: str
  sample: [site-0007]
exit_code:
  description: 0 when all is well, 2 when sites failed or could not be reached, 3 when the rollout was held up.
  returned: with V(closed)
  type: int
  sample: 0
event:
  description: How far the rollout is, for whoever shows it.
  returned: when there is anything to tell
  type: dict
  sample: {event: wave_ended, rollout: 2026-q4, wave: canary, number: 1, waves: 3, sites: 2, done: 2, failed: 0}
"""
