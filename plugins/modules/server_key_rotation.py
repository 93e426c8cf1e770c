#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action server_key_rotation; its code is the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: server_key_rotation
short_description: Take one step of a rotation of the gateways' server key
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - The steps of the rotation in the key store. Between them lie the deliveries to the sites and to the gateways.
  - While two server keys are there, every site has a PSK for each of them. Its bundle carries both, the one for the
    serving key first.
  - A step that is taken already is not taken again, so a rotation that was killed goes on when it is run again.
  - Runs on the controller only. The result never holds a key.
options:
  plan:
    description: Path of the plan, C(*.fleet.yml). It names the key store.
    type: path
    required: true
  state:
    description:
      - V(looked) says what is there.
      - V(next) makes a server key that is to follow the one in use, once for each O(reason), and a PSK for it in every
        key of every site.
      - V(serving) makes the next one the key that gateways are given from then on. It is refused while a site of the
        registry has not confirmed its PSK for it.
      - V(undone) makes the former one that key again.
      - V(alone) ends the key that does not serve, and every PSK for it, for good.
    type: str
    choices: [looked, next, serving, alone, undone]
    required: true
  reason:
    description: Why there is a new server key. It is kept in the ledger and names the rotation.
    type: str
    default: ""
  leave_behind:
    description: Ids of sites that need not be ready for V(serving). They are without a tunnel from then on.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Says what the step would do, and touches nothing.
    support: full
  diff_mode:
    description: Names the server keys before and after by fingerprint.
    support: full
requirements:
  - cryptography >= 43 on the controller
seealso:
  - module: spokewright.fleet.key_rotation
  - module: spokewright.fleet.gateway_keys
"""

EXAMPLES = r"""
- name: Have a next server key
  spokewright.fleet.server_key_rotation:
    plan: "{{ fleet_plan_file }}"
    state: next
    reason: gw2 was stolen
  run_once: true

- name: Have the gateways serve with it from their next run on
  spokewright.fleet.server_key_rotation:
    plan: "{{ fleet_plan_file }}"
    state: serving
    leave_behind: [site-0007]
  run_once: true
"""

RETURN = r"""
phase:
  description:
    - What is there. V(one) is a server key and no other.
    - V(next) and V(former) say what the other one is to the one that serves.
  returned: always
  type: str
  sample: next
not_ready:
  description: With O(state=looked) and O(state=serving), the sites that the next server key would shut out, and why.
  returned: always
  type: dict
  sample: {site-0007: it has not confirmed its PSK for the next server key}
reason:
  description: Why the newest server key was made.
  returned: always
  type: str
  sample: gw2 was stolen
msg:
  description: What is there, in one line.
  returned: always
  type: str
  sample: >-
    server key SHA256:6f0e2c5d1c6f4f5b8b1b3a1c7d9e0f12 is to follow SHA256:0a1b2c3d4e5f60718293a4b5c6d7e8f9, for 'gw2
    was stolen'
"""
