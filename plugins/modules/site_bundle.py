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
        that epoch, or V(old), as without it, for all that are older than the current one and neither confirmed nor the
        way back. What is staged and not active yet is newer, and goes only when it is named.
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
  description: The generation it was about; 0 when it was about none.
  returned: when the site answered
  type: int
  sample: 2
digest:
  description: The digest of its files, as the site read them back.
  returned: when the site answered
  type: str
  sample: 338abfcf1052103fef1bfb577fee0ce4c8f6add4e761f8d91c640e3d0d3f63bc
epoch:
  description: The epoch of the key in the plan's bundle.
  returned: when the site answered, with O(verb=stage), O(verb=activate) and O(verb=confirm)
  type: int
  sample: 1
current:
  description: The generation that the site is set to run; 0 when there is none.
  returned: when the site answered
  type: int
  sample: 1
confirmed:
  description: The generation that has proven itself, to which the site goes back; 0 when there is none.
  returned: when the site answered
  type: int
  sample: 1
previous:
  description: The generation confirmed before that one; 0 when there is none.
  returned: when the site answered
  type: int
  sample: 0
pending:
  description: The generation on probation; 0 when there is none.
  returned: when the site answered
  type: int
  sample: 0
reverted:
  description: The generation the site went back from last; 0 when it did not, or when something was activated since.
  returned: when the site answered
  type: int
  sample: 0
forgotten:
  description: The numbers of the generations that were removed.
  returned: with O(verb=forget)
  type: list
  elements: int
  sample: [1]
generations:
  description: >-
    What lies on the site, with number, digest, whether all files are as their manifest says, and C(facts), the epoch,
    key id and PSK fingerprint of the key in it, and the first and last day on which its certificates are valid.
  returned: with O(verb=show), and in check mode
  type: list
  elements: dict
  sample:
    - generation: 1
      digest: 338abfcf1052103fef1bfb577fee0ce4c8f6add4e761f8d91c640e3d0d3f63bc
      intact: true
      facts:
        epoch: 1
        kid: f3fba48077b753db
        psk_fingerprint: SHA256:0465a8c53005abd6ab22b072711d215b
        valid: ["2026-11-26", "2036-11-23"]
init:
  description: What starts and keeps the client there, one of C(systemd), C(openrc), C(sysv), C(busybox) and C(none).
  returned: when the site answered
  type: str
  sample: systemd
service:
  description: The state of the client, C(active) when it runs.
  returned: with O(verb=show), and when the site was asked for it
  type: str
  sample: active
enabled:
  description: Whether the client is started at boot.
  returned: with O(verb=show), and when the site was asked for it
  type: bool
  sample: true
openvpn:
  description: The version of OpenVPN there; empty when there is none.
  returned: with O(verb=show), and in check mode
  type: str
  sample: 2.6.14
free_kb:
  description: Free space where the generations lie.
  returned: with O(verb=show), and in check mode
  type: int
  sample: 82586316
tools:
  description: Which of the programs that make work there quicker or safer it has.
  returned: with O(verb=show), and when something would change
  type: list
  elements: str
  sample: [flock, setsid, systemd-run, logger]
seconds:
  description: How long it took.
  returned: always
  type: float
  sample: 0.2
"""
