#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: allocations
short_description: Record which tunnel address each site has and which instance serves each block
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - Validates the plan, the registry and the lock file, works out the allocations, and writes the lock file when
    they differ from it.
  - An address never changes for a site that stays. A removed site leaves a tombstone.
  - Runs on the controller only.
options:
  plan:
    description: Path of the plan, C(*.fleet.yml).
    type: path
    required: true
  move_sites:
    description:
      - Whether sites that are in the lock may go to another tunnel instance, as they do when the number of instances
        changes. Each of them is cut off from the gateways' change until its own new bundle is active.
      - Without consent such a change is refused before anything is written.
    type: bool
    default: false
attributes:
  check_mode:
    description: In check mode nothing is written; the result says what would be.
    support: full
  diff_mode:
    description: Shows the lock file before and after.
    support: full
"""

EXAMPLES = r"""
- name: Record the allocations
  spokewright.fleet.allocations:
    plan: "{{ fleet_plan_file }}"
  run_once: true
"""

RETURN = r"""
changes:
  description: Each change against the lock file, in words.
  returned: always
  type: list
  elements: str
  sample:
    - "site-0009: new, 10.101.0.21 on tun0 (it had the fewest sites)"
"""
