#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action key_revocation; its code is the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: key_revocation
short_description: Revoke every key that sites ever had
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - Ends every key of the sites in the key store, and puts every certificate they ever had on the revocation list.
    Gateways are to refuse RV(denied_key_ids) and to have the new list; C(playbooks/revoke_site.yml) does that.
  - A site that is in the registry is refused, because the next run would make it a new key. With O(reissue=true) that
    is what is meant, and done at once.
  - Runs on the controller only. The result never holds a key.
options:
  plan:
    description: Path of the plan, C(*.fleet.yml). It names the key store.
    type: path
    required: true
  sites:
    description: Ids of the sites.
    type: list
    elements: str
    required: true
  reason:
    description: Why. It is kept in the ledger.
    type: str
    required: true
  reissue:
    description: Makes each site a new key at once. A run that was cut off after that makes no second one.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says which keys would be revoked and made, and touches nothing.
    support: full
  diff_mode:
    description: Lists the keys that end by epoch, key id and fingerprint.
    support: full
requirements:
  - cryptography >= 43 on the controller
seealso:
  - module: spokewright.fleet.denied_keys
  - module: spokewright.fleet.gateway_keys
"""

EXAMPLES = r"""
- name: The box was stolen
  spokewright.fleet.key_revocation:
    plan: "{{ fleet_plan_file }}"
    sites: [site-0003]
    reason: stolen from the branch
  run_once: true
"""

RETURN = r"""
revoked:
  description: The epochs that were revoked, by site.
  returned: always
  type: dict
  sample: {site-0003: [1, 2]}
made:
  description: With O(reissue=true), the new epoch of each site.
  returned: always
  type: dict
  sample: {}
denied_key_ids:
  description: Ids of all keys of the fleet that have ended.
  returned: always
  type: list
  elements: str
  sample: [0123456789abcdef]
msg:
  description: What happened, in one line.
  returned: always
  type: str
  sample: "site-0003: epoch 1, 2 was revoked"
"""
