#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action key_rotation; its code is the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: key_rotation
short_description: Make the new keys of a rotation, and retire the old ones
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - The two ends of a rotation in the key store. Between them lies the delivery, M(spokewright.fleet.site_generation)
    and M(spokewright.fleet.tunnel_gate).
  - What is to be done follows from the keys themselves. A site whose newest key is not confirmed yet is under way and
    gets no other one, so a rotation that was killed goes on when it is run again.
  - Runs on the controller only. The result never holds a key.
options:
  plan:
    description: Path of the plan, C(*.fleet.yml). It names the key store.
    type: path
    required: true
  sites:
    description: Ids of the sites. With V(retired), only those that the gateways have seen with their newest key.
    type: list
    elements: str
    required: true
  state:
    description:
      - V(issued) makes a key of the next epoch for every site that is due.
      - V(retired) ends every older key of sites whose newest one is confirmed. Gateways are to refuse
        RV(denied_key_ids) from then on.
    type: str
    choices: [issued, retired]
    default: issued
  reason:
    description:
      - Why the sites get new keys. It is kept in the ledger and names the rotation, so that the same task makes no
        second key for the same reason.
      - Without it, only keys older than O(days) are due.
    type: str
    default: ""
  days:
    description: How many days old a key may become.
    type: int
    default: 90
attributes:
  check_mode:
    description: Says whose key would be made or retired, by fingerprint, and touches nothing.
    support: full
  diff_mode:
    description: Lists the keys before and after by epoch, key id and fingerprint.
    support: full
requirements:
  - cryptography >= 43 on the controller
seealso:
  - module: spokewright.fleet.site_psk
  - module: spokewright.fleet.denied_keys
"""

EXAMPLES = r"""
- name: Make the keys that are due
  spokewright.fleet.key_rotation:
    plan: "{{ fleet_plan_file }}"
    sites: "{{ ansible_play_batch }}"
    reason: a laptop with a bundle was lost
  run_once: true

- name: Retire the old keys of sites that were seen with the new one
  spokewright.fleet.key_rotation:
    plan: "{{ fleet_plan_file }}"
    sites: [site-0001]
    state: retired
  run_once: true
"""

RETURN = r"""
due:
  description: With O(state=issued), sites that got a new key, or in check mode would get one.
  returned: O(state=issued)
  type: list
  elements: str
  sample: [site-0001]
under_way:
  description: With O(state=issued), sites whose newest key is not confirmed yet, or whose former one is not retired.
  returned: O(state=issued)
  type: list
  elements: str
  sample: []
not_due:
  description: With O(state=issued), sites with nothing to do.
  returned: O(state=issued)
  type: list
  elements: str
  sample: [site-0002]
without_key:
  description: With O(state=issued), sites that were never given a key.
  returned: O(state=issued)
  type: list
  elements: str
  sample: []
to_do:
  description: RV(due) and RV(under_way).
  returned: O(state=issued)
  type: list
  elements: str
  sample: [site-0001]
to_bring:
  description: Those of RV(to_do) whose new key is made. In check mode only RV(under_way).
  returned: O(state=issued)
  type: list
  elements: str
  sample: [site-0001]
sites:
  description: Each site's newest epoch, its turn and why.
  returned: O(state=issued)
  type: dict
  sample: {site-0001: {ok: true, changed: true, epoch: 1, turn: due, message: a laptop was lost (epoch 1)}}
retired:
  description: With O(state=retired), the epochs that were retired, by site.
  returned: O(state=retired)
  type: dict
  sample: {site-0001: [1]}
denied_key_ids:
  description: With O(state=retired), the ids of all ended keys of the fleet.
  returned: O(state=retired)
  type: list
  elements: str
  sample: [0123456789abcdef]
msg:
  description: What happened, in one line.
  returned: always
  type: str
  sample: "keys of 8 sites: 8 due"
"""
