#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pair_move
short_description: Let one gateway give the virtual addresses to the other, and measure what the sites see of it
version_added: 0.2.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - Looks at the pair as M(spokewright.fleet.pair_info) does and refuses when it is not fit for a planned move.
  - Asks the owner to give all virtual addresses away (C(/run/spokewright/hold); on a gateway whose health daemon does
    not run, by the score itself), and watches on both gateways until exactly the other one holds all of them.
  - Both gateways send every site that is up an echo request through its tunnel every 50 ms (with more than 200 sites,
    less often). The time between a site's last answer at the old owner and its first at the new one is how long it was
    away.
  - The request is taken back at the end in any case; the addresses stay where they are then.
options:
  plan:
    description: Path of the plan, C(*.fleet.yml).
    type: path
    required: true
  to:
    description: The gateway that is to hold the addresses. Empty means the one that does not hold them now.
    type: str
    default: ''
  back:
    description: Whether to move the addresses back at the end, if all went well so far.
    type: bool
    default: false
  undo:
    description: Whether to move them back when more than one in twenty sites does not come back.
    type: bool
    default: false
  unlike:
    description: Whether a pair that is not alike may be moved, as in the middle of being changed one after the other.
    type: bool
    default: false
  worst_seconds:
    description: How long any site may be away. 0 sets no limit.
    type: float
    default: 0.0
  reports:
    description: Directory for a report as JSON and as text. Without it none is written.
    type: path
attributes:
  check_mode:
    description: Looks, refuses as it would, says what it would move, and moves nothing.
    support: full
  diff_mode:
    description: There is no file to show.
    support: none
"""

EXAMPLES = r"""
- name: Have the other gateway carry the sites
  spokewright.fleet.pair_move:
    plan: "{{ fleet_plan_file }}"
  run_once: true
"""

RETURN = r"""
owner:
  description: Who holds the addresses in the end.
  returned: success
  type: str
  sample: gw2
moves:
  description: What each move was like. C(sites) holds the seconds each site was away, null for those not back.
  returned: when something was moved
  type: list
  elements: dict
  sample:
    - from: gw1
      to: gw2
      asked_by: hold
      began: "2026-11-26T16:42:03Z"
      addresses_seconds: 0.06
      worst_seconds: 0.62
      median_seconds: 0.58
      resolution_seconds: 0.05
      sites: {site-0001: 0.58, site-0002: 0.62}
      silent_before: []
faults:
  description: What was not as it should be.
  returned: when something was moved
  type: list
  elements: str
  sample: []
"""
