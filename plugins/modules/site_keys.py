#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_keys
short_description: Make the fleet's keys that are missing
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - Makes sure that the key store on the controller holds the fleet CA, the tls-crypt-v2 server key, the revocation
    list, a certificate for each gateway and a key for each site of the plan.
  - What is there stays as it is. Keys of sites that left the registry are kept, so that a site which returns gets the
    key it had.
  - A CA or a server key that is gone while keys made with it are still there is an error, because a new one would lock
    every site out.
  - Runs on the controller only. The result never holds a key.
options:
  plan:
    description: Path of the plan, C(*.fleet.yml). It names the key store.
    type: path
    required: true
attributes:
  check_mode:
    description: Says what would be made, and makes nothing.
    support: full
  diff_mode:
    description: Lists whose keys are new.
    support: full
requirements:
  - cryptography >= 43 on the controller
seealso:
  - module: spokewright.fleet.site_generation
"""

EXAMPLES = r"""
- name: Make the keys that are missing
  spokewright.fleet.site_keys:
    plan: "{{ fleet_plan_file }}"
  run_once: true
"""

RETURN = r"""
ca:
  description: Whether the fleet CA was made.
  returned: always
  type: bool
  sample: false
server_key:
  description: Whether the tls-crypt-v2 server key was made.
  returned: always
  type: bool
  sample: false
gateways:
  description: Names of the gateways that got a certificate.
  returned: always
  type: list
  elements: str
  sample: [gw1]
sites:
  description: For each site that got a key what may be known about it. Empty entries in check mode.
  returned: always
  type: dict
  sample:
    site-0001:
      epoch: 1
      kid: de77bac98661ba3d
      psk_fingerprint: SHA256:0dd8326e6f0a7d926f4943d0a92cabbc
      certificate_serial: 698cd7be5ae14c018c80f31cf08e975245c97c9a
key_store:
  description: Path of the key store.
  returned: always
  type: str
  sample: /srv/fleet/keystore
"""
