#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_bundle
short_description: Look at, stage, activate, confirm, leave or forget a generation on this one site
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - Does for the host it runs for what M(spokewright.fleet.site_generation) does for many, with the same engine and the
    same receipts. A site where it goes wrong is a failed host, as with any other module.
  - Fits a handful of sites and plays that treat each site on its own. Ansible starts a process for each host, so for a
    whole fleet the fan-out is many times quicker.
  - The engine opens its own connection over the out-of-band network, with the registry's pinned host key; the
    connection plugin of the host is not used.
options:
  plan:
    description: Path of the plan, C(*.fleet.yml).
    type: path
    required: true
  verb:
    description: What the site is to do. M(spokewright.fleet.site_generation) says what each verb does.
    type: str
    required: true
    choices: [show, stage, activate, confirm, revert, forget]
  generation:
    description:
      - With O(verb=forget), what to remove. A generation's number or digest, V(epoch N) for those with the key of
        that epoch, or V(old), as without it, for all that are neither current nor confirmed nor the way back. What is
        staged and not active yet is among these.
      - With O(verb=revert), the number of the generation to leave. Without it, the one on probation, else the current.
    type: str
    default: ""
  deadman_seconds:
    description:
      - With O(verb=activate), how long the site waits to be confirmed before it goes back by itself.
      - Without it, what the plan says.
    type: int
attributes:
  check_mode:
    description: Only looks at the site, and says what would travel there, by digest.
    support: full
  diff_mode:
    description: With O(verb=stage), shows the client configuration and the digests of the files before and after.
    support: full
requirements:
  - paramiko >= 3.4, < 6 on the controller
  - cryptography >= 43 on the controller
seealso:
  - module: spokewright.fleet.site_generation
"""

EXAMPLES = r"""
- name: Stage this site's bundle
  spokewright.fleet.site_bundle:
    plan: "{{ fleet_plan_file }}"
    verb: stage
"""

RETURN = r"""
reason:
  description: Why it went wrong, in one word.
  returned: always
  type: str
  sample: ""
msg:
  description: What happened, and what to do next if it went wrong.
  returned: always
  type: str
  sample: staged as generation 2
generation:
  description: The generation it was about.
  returned: success
  type: int
  sample: 2
digest:
  description: The digest of its files, as the site read them back.
  returned: success
  type: str
  sample: 338abfcf1052103fef1bfb577fee0ce4c8f6add4e761f8d91c640e3d0d3f63bc
"""
