#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_verdict
short_description: Give each site its own part of what a fan-out found
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - Reads registered results of M(spokewright.fleet.site_generation) and reports this host's part of them as its own, so
    that failed hosts, C(--limit), the recap and thresholds of the play are right.
  - The first result in which the site failed decides. A site that is in none of the results is fine.
options:
  results:
    description: Names of the variables the results were registered in. Names, not values.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    description: It reports what the fan-out reported.
    support: full
  diff_mode:
    description: Shows what the fan-out found to differ on this host. It changes nothing itself.
    support: full
seealso:
  - module: spokewright.fleet.site_generation
"""

EXAMPLES = r"""
- name: Say what became of each site
  spokewright.fleet.site_verdict:
    results: [staged, activated]
"""

RETURN = r"""
reason:
  description: Why the site failed, in one word.
  returned: failure
  type: str
  sample: unreachable
msg:
  description: What happened, and what to do next if it failed.
  returned: always
  type: str
  sample: staged as generation 2
"""
