#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_keys
short_description: Bring a gateway its keys out of the encrypted key store
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - Opens the gateway's keys in the encrypted key store on the controller, proves that they fit each other, and has them
    on the gateway, the CA certificate, the gateway's certificate and private key, the tls-crypt-v2 server key and the
    revocation list.
  - The gateway is asked first what it has, by digest. What it has already is not sent again.
  - The files travel over Ansible's own connection, with or without C(become) and pipelining, on the standard input of
    one POSIX shell command. No temporary file is made, on the controller or on the gateway, outside of O(directory) and
    of the directory of O(crl).
  - The keys lie in a directory named by a digest of all four, so that a new set comes to lie beside the one in use. It
    is written under another name, synced, and renamed whole. Remove old sets when no daemon names them any more.
  - The revocation list is replaced in one step, mode 0644. A daemon reads it with the next handshake.
  - The result never holds a key.
options:
  key_store:
    description: The key store, a directory on the controller.
    type: path
    required: true
  key_store_key:
    description:
      - The key of the key store, a file on the controller, or a program that prints it as a vault password client does.
    type: path
    required: true
  gateway:
    description: The gateway's name in the key store.
    type: str
    required: true
  directory:
    description: Directory on the gateway below which the sets of keys lie. Its parent must be there.
    type: str
    required: true
  crl:
    description: Where the revocation list belongs on the gateway.
    type: str
    required: true
  crl_minimum_days:
    description: Days that the revocation list must still be good for. With one that ran out no site connects.
    type: int
    default: 14
  state:
    description:
      - V(checked) opens and proves the keys on the controller and leaves the gateway alone.
      - V(present) does that and has them on the gateway.
    type: str
    choices: [checked, present]
    default: present
attributes:
  check_mode:
    description:
      - Asks the gateway for digests and says what would be brought. Nothing secret travels.
      - Keys that are not made yet, before a first run, are no error then, and RV(digest) is empty.
    support: full
  diff_mode:
    description: Names, modes and digests. The digest of a key says nothing about the key.
    support: full
  platform:
    description: The gateway needs sh, ls, id, dd, mv, sync and sha256sum, and no Python.
    platforms: posix
    support: full
requirements:
  - cryptography >= 43 on the controller
seealso:
  - module: spokewright.fleet.site_generation
"""

EXAMPLES = r"""
- name: Check the gateway's keys before anything is touched
  spokewright.fleet.gateway_keys:
    key_store: "{{ fleet_key_store }}"
    key_store_key: "{{ fleet_key_store_key }}"
    gateway: gw1
    directory: /etc/openvpn/server/material
    crl: /etc/openvpn/server/crl.pem
    state: checked

- name: Bring them
  spokewright.fleet.gateway_keys:
    key_store: "{{ fleet_key_store }}"
    key_store_key: "{{ fleet_key_store_key }}"
    gateway: gw1
    directory: /etc/openvpn/server/material
    crl: /etc/openvpn/server/crl.pem
  register: keys
"""

RETURN = r"""
msg:
  description: What happened, in one line.
  returned: always
  type: str
  sample: "gw1: its keys are 5f0c7a3be1d94286"
digest:
  description: Name of this set of keys. Empty in check mode when they are not made yet.
  returned: always
  type: str
  sample: 5f0c7a3be1d94286
directory:
  description: Where the set lies on the gateway.
  returned: always
  type: str
  sample: /etc/openvpn/server/material/5f0c7a3be1d94286
brought:
  description: >-
    The files that were sent, or would be; C(crl) is the revocation list. When one of the four keys is missing or is not
    right, all four are sent.
  returned: when O(state=present) and the keys are made
  type: list
  elements: str
  sample: [ca.crt, gateway.crt, gateway.key, tls-crypt-v2.key, crl]
certificate_days:
  description: Days the gateway's certificate is still good for.
  returned: always
  type: int
  sample: 3649
crl_days:
  description: Days the revocation list is still good for.
  returned: always
  type: int
  sample: 3649
crl_revoked:
  description: How many certificates the revocation list names.
  returned: always
  type: int
  sample: 0
"""
