#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_psk_info
short_description: Tell what the key store knows of the sites' keys
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - Reads the key store's index, which holds no secret. The store's own key is not needed for it.
  - With O(verify=true) every key is opened and proven as before a delivery, and the ledger is verified.
  - Runs on the controller only. The result never holds a key.
options:
  plan:
    description: Path of the plan, C(*.fleet.yml). It names the key store.
    type: path
    required: true
  sites:
    description: Ids of the sites, also of such as have left the registry. Without it, all sites of the registry.
    type: list
    elements: str
  verify:
    description:
      - Opens each key of O(sites), old epochs too, and checks that the server key sealed it, that the CA signed its
        certificate, that it belongs to its site and epoch, and that the index says the same. Verifies the ledger.
      - Without O(sites), does so for every key of the store, those of gateways and of sites that left the registry
        included, and checks that no file is open to others and that the revocation list lives.
      - The task fails when anything is wrong.
    type: bool
    default: false
attributes:
  check_mode:
    description: It changes nothing.
    support: full
  diff_mode:
    description: It changes nothing.
    support: none
requirements:
  - cryptography >= 43 on the controller
seealso:
  - module: spokewright.fleet.site_psk
"""

EXAMPLES = r"""
- name: Ask which keys the sites have
  spokewright.fleet.site_psk_info:
    plan: "{{ fleet_plan_file }}"
  run_once: true
  register: keys

- name: Open every key and the ledger
  spokewright.fleet.site_psk_info:
    plan: "{{ fleet_plan_file }}"
    verify: true
  run_once: true
"""

RETURN = r"""
sites:
  description: The newest key of each site, and all of them under C(epochs).
  returned: always
  type: dict
  sample:
    site-0003:
      epoch: 1
      kid: de77bac98661ba3d
      psk_fingerprint: SHA256:0dd8326e6f0a7d926f4943d0a92cabbc
      state: confirmed
      epochs:
        "1":
          epoch: 1
          kid: de77bac98661ba3d
          psk_fingerprint: SHA256:0dd8326e6f0a7d926f4943d0a92cabbc
          state: confirmed
msg:
  description: What happened, in one line.
  returned: always
  type: str
  sample: 4 of 4 sites have a key in /srv/fleet/keystore
without_key:
  description: Ids of the sites that have no key.
  returned: always
  type: list
  elements: str
  sample: []
denied_key_ids:
  description: Ids of all keys that are retired, revoked or destroyed, of whichever site. No gateway is to let them in.
  returned: always
  type: list
  elements: str
  sample: [0123456789abcdef]
key_store:
  description: Path of the key store.
  returned: always
  type: str
  sample: /srv/fleet/keystore
verified:
  description: With O(verify=true), how many keys of sites were opened and found whole. Otherwise 0.
  returned: always
  type: int
  sample: 10
problems:
  description: With O(verify=true), what is wrong, one line each.
  returned: always
  type: list
  elements: str
  sample: []
"""
