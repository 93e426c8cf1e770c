#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_generation
short_description: Look at, stage, activate, confirm, leave or forget a generation on many sites at once
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - Talks to all given sites over the out-of-band network at the same time, one SSH connection per site, host keys
    pinned. A site needs a POSIX shell and no Python.
  - V(show) asks what a site holds. V(stage) puts the site's bundle beside what it runs, and sends it only when the site
    does not hold it yet. V(activate) makes it current, restarts the client and arms a dead-man timer. V(confirm)
    disarms the timer. V(revert) goes back to the generation before. V(forget) removes an old generation from the
    site's disk, and refuses the current one, the confirmed one and one on probation.
  - A verb that changes sites takes the key store's lock, and writes down there what each site's key came to. A second
    run meanwhile is refused and told who is at work and since when.
  - A site that fails is part of the result, never a failure of the task. Follow it with
    M(spokewright.fleet.site_verdict), which hands each site its own part.
  - Use it with C(run_once), in a play for the sites. Keys travel on the standard input of the SSH exchange and nowhere
    else; the result never holds one.
options:
  plan:
    description: Path of the plan, C(*.fleet.yml).
    type: path
    required: true
  verb:
    description: What the sites are to do.
    type: str
    required: true
    choices: [show, stage, activate, confirm, revert, forget]
  sites:
    description: Ids of the sites. Without it, the hosts that are left in the play.
    type: list
    elements: str
  generation:
    description:
      - With O(verb=forget), what to remove. A generation's number or digest, V(epoch N) for those with the key of
        that epoch, V(retired) for those with a key older than the one it has confirmed, even if they are the way
        back, or V(old), as without it, for all that are older than the current one and neither confirmed nor the way
        back. What is staged and not active yet is newer, and goes only when it is named.
      - With O(verb=revert), the number of the generation to leave. Without it, the one on probation, else the current.
    type: str
    default: ""
  deadman_seconds:
    description:
      - With O(verb=activate), how long a site waits to be confirmed before it goes back by itself.
      - Without it, what the plan says.
    type: int
  workers:
    description: How many sites are talked to at the same time.
    type: int
    default: 32
  report:
    description:
      - Where to keep what became of each site, without the ending. With V(reports/keys) it is written to
        C(reports/keys-TIME.json) and C(reports/keys-TIME.txt), and C(reports/keys-latest.json) and
        C(reports/keys-latest.txt) lead there.
      - It holds fingerprints and no key. It is not written in check mode, and does not count as a change.
    type: path
attributes:
  check_mode:
    description: Only looks at the sites, and says what would travel where, by digest and by the key's fingerprint.
    support: full
  diff_mode:
    description:
      - With O(verb=stage), hands the client configuration and the digests of the files before and after to
        M(spokewright.fleet.site_verdict), which shows each host its own.
    support: full
requirements:
  - paramiko >= 3.4, < 6 on the controller
  - cryptography >= 43 on the controller
seealso:
  - module: spokewright.fleet.site_verdict
  - module: spokewright.fleet.tunnel_gate
"""

EXAMPLES = r"""
- name: Stage the new bundles
  spokewright.fleet.site_generation:
    plan: "{{ fleet_plan_file }}"
    verb: stage
  run_once: true
  register: staged

- name: Fail the sites that could not be served
  spokewright.fleet.site_verdict:
    results: [staged]

- name: Remove a generation from one site's disk
  spokewright.fleet.site_generation:
    plan: "{{ fleet_plan_file }}"
    verb: forget
    generation: 1
    sites: [site-0003]
  run_once: true
"""

RETURN = r"""
sites:
  description: >-
    What happened at each site, in the fields that M(spokewright.fleet.site_bundle) returns for one.
  returned: always
  type: dict
  sample:
    site-0001:
      ok: true
      changed: true
      reason: ""
      message: staged as generation 2
      generation: 2
      digest: 338abfcf1052103fef1bfb577fee0ce4c8f6add4e761f8d91c640e3d0d3f63bc
      seconds: 0.2
    site-0002:
      ok: false
      changed: false
      reason: unreachable
      message: "site-0002: nothing answers at 198.18.1.2:22 within 10 s."
msg:
  description: What happened, in one line.
  returned: always
  type: str
  sample: "stage: 2 sites, 1 changed, 0 as they should be, 1 failed"
ok_sites:
  description: Ids of the sites where it went well.
  returned: always
  type: list
  elements: str
  sample: [site-0001]
failed_sites:
  description: Ids of the other sites.
  returned: always
  type: list
  elements: str
  sample: [site-0002]
unsettled_sites:
  description: With O(verb=stage), ids of the sites that hold the bundle but do not run it confirmed.
  returned: always
  type: list
  elements: str
  sample: [site-0001]
held_sites:
  description: With O(verb=stage) and O(verb=show), ids of the sites whose client somebody keeps stopped.
  returned: always
  type: list
  elements: str
  sample: []
openvpn_missing:
  description: Ids of the sites that have no OpenVPN.
  returned: always
  type: list
  elements: str
  sample: []
activated:
  description: With O(verb=activate), the Unix time on the controller at which the change of a site began.
  returned: always
  type: dict
  sample:
    site-0001: 1795445718.7
report:
  description: Path of the report as text. One that could not be written is a warning.
  returned: when asked for and written
  type: str
  sample: /srv/fleet/reports/keys-20261123T174203Z.txt
"""
