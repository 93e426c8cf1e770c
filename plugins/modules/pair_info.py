#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pair_info
short_description: Say who holds the virtual addresses, and whether the other gateway could
version_added: 0.2.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - Asks both gateways at once over the out-of-band network for their addresses, tunnel instances, scores and health
    checks, for digests of programs, configurations, keys, sites and lists, for their clocks, and who answers for each
    virtual address on its network (ARP). The latter finds a second holder whatever that one says of itself.
  - A gateway that cannot be asked is part of the result, not a failure of the task.
  - Runs on the controller only and changes nothing on any host.
options:
  plan:
    description: Path of the plan, C(*.fleet.yml).
    type: path
    required: true
  gateway:
    description: A gateway that was just changed; RV(unproven) then says what speaks against it.
    type: str
    default: ''
  seconds:
    description: How long to look again and again until nothing speaks against O(gateway).
    type: float
    default: 0.0
  show:
    description: Whether to print the tables of C(tools/fleet pair).
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
- name: Look at the pair
  spokewright.fleet.pair_info:
    plan: "{{ fleet_plan_file }}"
  run_once: true
  register: pair
  failed_when: pair.forbids_move | length > 0
"""

RETURN = r"""
owner:
  description: The gateway that alone holds every virtual address; empty when there is none.
  returned: success
  type: str
  sample: gw1
standby:
  description: The other one; empty when there is no owner.
  returned: success
  type: str
  sample: gw2
built:
  description: Whether keepalived runs on any of the two. Before the first run nobody is expected to hold an address.
  returned: success
  type: bool
  sample: true
well:
  description: Whether nothing at all is wrong.
  returned: success
  type: bool
  sample: true
problems:
  description: Everything that is wrong, one sentence each.
  returned: success
  type: list
  elements: str
  sample: []
forbids_change:
  description: What forbids to change either gateway, because no run mends it or because it would hurt both.
  returned: success
  type: list
  elements: str
  sample: []
forbids_move:
  description: What forbids a planned switchover.
  returned: success
  type: list
  elements: str
  sample: []
to_mend:
  description: Why the standby could not carry the sites now, as far as a run may mend it.
  returned: success
  type: list
  elements: str
  sample: ["gw2: tun1: no answer from the daemon"]
standby_unfit:
  description: Why the standby could not take the addresses now.
  returned: success
  type: list
  elements: str
  sample: []
unproven:
  description: What speaks against O(gateway) carrying the sites.
  returned: success
  type: list
  elements: str
  sample: []
"""
