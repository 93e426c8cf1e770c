#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_psk
short_description: Make sure that the key store holds the keys a fleet wants
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - A site's key is its tls-crypt-v2 client key (PSK) together with its certificate and private key. Keys are counted
    in epochs, the newest is the one that is delivered.
  - Makes what is missing, the first key of a site, and with it the fleet CA, the tls-crypt-v2 server key, the
    revocation list and the certificates of the gateways. A revocation list with less than a year to live is renewed.
  - What is there stays as it is. Keys of sites that left the registry are kept, so that a site which returns gets the
    key it had.
  - A CA, a server key or a site's key that is gone while the index still knows it is an error, because a new one would
    lock sites out.
  - The first run makes the key store's own key and warns, because whoever loses that file loses every key.
  - Runs on the controller only. The result never holds a key.
options:
  plan:
    description: Path of the plan, C(*.fleet.yml). It names the key store.
    type: path
    required: true
  sites:
    description:
      - Ids of the sites. Without it, all sites of the registry.
      - Required with O(regenerate=true) and O(state=absent).
    type: list
    elements: str
  state:
    description:
      - V(present) makes sure that each site has a key.
      - V(absent) destroys the keys of O(epoch) of O(sites), for good. The newest key of a site is refused, so is one
        that the site still holds or runs until a newer one is confirmed there.
    type: str
    choices: [present, absent]
    default: present
  epoch:
    description:
      - With O(state=present), the epoch that the newest key of each site must have. Otherwise the task fails, and
        nothing is made.
      - With O(regenerate=true), the epoch to make. Sites that are at it already are left alone, so that the same task
        can run again.
      - Required with O(state=absent).
    type: int
  regenerate:
    description:
      - Makes the next epoch of each of O(sites), beside the present one. A site runs on its former key until the new
        one is delivered and active.
      - Without O(epoch) every run makes another one. That is what a person wants who does it once by hand; a play that
        is run again wants O(epoch).
    type: bool
    default: false
  reason:
    description: Why a key is made anew or destroyed. It is kept in the ledger.
    type: str
    default: ""
attributes:
  check_mode:
    description: Says which epochs would be made or destroyed, refuses what would be refused, and touches nothing.
    support: full
  diff_mode:
    description: Lists by name and epoch which keys come and go.
    support: full
requirements:
  - cryptography >= 43 on the controller
seealso:
  - module: spokewright.fleet.site_psk_info
  - module: spokewright.fleet.site_generation
"""

EXAMPLES = r"""
- name: Make the keys that are missing
  spokewright.fleet.site_psk:
    plan: "{{ fleet_plan_file }}"
  run_once: true

- name: Give one site its second key; a second run finds it and makes no third
  spokewright.fleet.site_psk:
    plan: "{{ fleet_plan_file }}"
    sites: [site-0003]
    regenerate: true
    epoch: 2
    reason: the box was away for repair
  run_once: true

- name: Destroy the first one, which no site runs any more
  spokewright.fleet.site_psk:
    plan: "{{ fleet_plan_file }}"
    sites: [site-0003]
    state: absent
    epoch: 1
    reason: replaced by epoch 2
  run_once: true
"""

RETURN = r"""
sites:
  description:
    - The newest key of each site. In check mode, of a key that would be made only the epoch.
    - RV(sites) can be handed to M(spokewright.fleet.site_verdict) like the answer of a fan-out.
  returned: always
  type: dict
  sample:
    site-0003:
      ok: true
      changed: true
      message: made its key of epoch 2
      epoch: 2
      kid: de77bac98661ba3d
      psk_fingerprint: SHA256:0dd8326e6f0a7d926f4943d0a92cabbc
      certificate_serial: 698cd7be5ae14c018c80f31cf08e975245c97c9a
      state: issued
msg:
  description: What happened, in one line.
  returned: always
  type: str
  sample: "/srv/fleet/keystore: 1 keys of sites made"
made:
  description: For each site that got a key its epoch, in check mode for each that would.
  returned: always
  type: dict
  sample: {site-0003: 2}
destroyed:
  description: For each site of which a key was destroyed its epoch.
  returned: always
  type: dict
  sample: {}
ca:
  description: Whether the fleet CA was made.
  returned: always
  type: bool
  sample: false
crl:
  description: Whether the revocation list was made or renewed.
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
key_store:
  description: Path of the key store.
  returned: always
  type: str
  sample: /srv/fleet/keystore
made_store_key:
  description: Path of the key store's own key if it was made by this task, in check mode if it would be. Back it up.
  returned: always
  type: str
  sample: /srv/fleet/keystore.key
"""
