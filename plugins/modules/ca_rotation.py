#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action ca_rotation; its code is the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: ca_rotation
short_description: Take one step by which another CA takes the place of the fleet's
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - The steps of the rollover in the key store. Between them lie the deliveries to the sites and to the gateways.
  - While two CAs are there, every site trusts both, and there is a revocation list for each of them.
  - A step that is taken already is not taken again, so a rollover that was killed goes on when it is run again.
  - Runs on the controller only. The result never holds a key.
options:
  plan:
    description: Path of the plan, C(*.fleet.yml). It names the key store.
    type: path
    required: true
  state:
    description:
      - V(looked) says what is there.
      - V(next) makes a CA that is to follow, once for each O(reason), with a revocation list of its own.
      - V(serving) has it issue from then on, and gives the gateways certificates of it. It is refused while a site of
        the registry has not confirmed that it trusts the next CA.
      - V(keys) makes a key of the next epoch for each site whose newest one the serving CA has not issued.
      - V(alone) ends the CA that does not serve, and every key it issued, for good. It is refused while a site has not
        confirmed a key of the one that serves.
    type: str
    choices: [looked, next, serving, keys, alone]
    required: true
  reason:
    description: Why there is a new CA. It is kept in the ledger and names the rollover.
    type: str
    default: ""
  leave_behind:
    description: Ids of sites that need not be ready. They are without a tunnel from then on.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Says what the step would do, and touches nothing.
    support: full
  diff_mode:
    description: Names the CAs before and after by fingerprint.
    support: full
requirements:
  - cryptography >= 43 on the controller
seealso:
  - module: spokewright.fleet.server_key_rotation
  - module: spokewright.fleet.key_rotation
"""

EXAMPLES = r"""
- name: Have a next CA
  spokewright.fleet.ca_rotation:
    plan: "{{ fleet_plan_file }}"
    state: next
    reason: the controller's disk was lost
  run_once: true

- name: Have it issue from now on
  spokewright.fleet.ca_rotation:
    plan: "{{ fleet_plan_file }}"
    state: serving
  run_once: true
"""

RETURN = r"""
phase:
  description:
    - What is there. V(one) is a CA and no other.
    - V(next) and V(former) say what the other one is to the one that serves.
  returned: always
  type: str
  sample: next
not_ready:
  description: The sites that the step after this one would shut out, and why.
  returned: always
  type: dict
  sample: {site-0007: it has not confirmed that it trusts the next CA}
reason:
  description: Why the newest CA was made.
  returned: always
  type: str
  sample: the controller's disk was lost
msg:
  description: What is there, in one line.
  returned: always
  type: str
  sample: made 8 keys of the CA SHA256:6f0e2c5d1c6f4f5b8b1b3a1c7d9e0f12
"""
