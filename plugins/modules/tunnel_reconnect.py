#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start anew the sessions that no longer match their ccd file."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: tunnel_reconnect
short_description: Start anew the sessions that no longer match their ccd file
description:
  - Asks each tunnel instance over its management socket for its sessions and compares address and LANs with the plan.
    A session that differs, or that the plan places on another instance or nowhere, is told to start anew and is back
    in one to two seconds with what its ccd file says now.
  - Sessions that match are never touched. The comparison is with the running state, so a run that broke off between
    writing and reconnecting is completed by the next.
  - Write the ccd files and the kernel's routes first.
version_added: 0.1.0
author: Spokewright maintainers (@spokewright)
options:
  socket_directory:
    description: Directory of the management sockets, named C(INSTANCE.sock).
    type: path
    default: /run/openvpn-server
  instances:
    description: Names of the tunnel instances of this gateway.
    type: list
    elements: str
    required: true
  network:
    description: The tunnel network, as V(ADDRESS/LENGTH).
    type: str
    required: true
  sites:
    description: The sites that connect to this gateway, as for M(spokewright.fleet.site_ccd).
    type: list
    elements: dict
    required: true
    suboptions:
      id:
        description: The site's id, which is the common name of its certificate.
        type: str
        required: true
      tunnel_address:
        description: The site's fixed tunnel address.
        type: str
        required: true
      instance:
        description: The tunnel instance the site connects to.
        type: str
        required: true
      lans:
        description: LAN prefixes behind the site.
        type: list
        elements: str
        required: true
  ended_keys:
    description: Ids of keys that are retired or revoked. A session that came with one of them is ended in any case.
    type: list
    elements: str
    default: []
  only:
    description:
      - Ids of sites whose keys were revoked. No session but theirs is looked at.
      - One of theirs is ended as well when the gateway has not noted which key it came with.
    type: list
    elements: str
  per_second:
    description: How many sessions to end per second and instance, so that a large change is no handshake storm.
    type: int
    default: 20
  timeout:
    description: Seconds to wait for each answer of a daemon.
    type: float
    default: 5
attributes:
  check_mode:
    description: >-
      Says which sessions would start anew, compared with the plan that is given, written or not. An instance that
      does not run counts as one without sessions.
    support: full
  diff_mode:
    description: There is no file to show.
    support: none
  platform:
    description: Gateways run Linux.
    platforms: posix
    support: full
"""

EXAMPLES = r"""
- name: Sites whose LAN changed start anew
  spokewright.fleet.tunnel_reconnect:
    instances: [tun0]
    network: 10.101.0.0/16
    sites:
      - id: site-0001
        tunnel_address: 10.101.0.16
        instance: tun0
        lans: [10.202.1.0/24]
"""

RETURN = r"""
reconnected:
  description: The sessions that were told to start anew, and why.
  returned: success
  type: list
  elements: dict
  sample:
    - instance: tun0
      site: site-0001
      why: it serves LANs 10.202.1.0/24 instead of 10.202.9.0/24
"""

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.spokewright.fleet.plugins.module_utils.gateway_look import presented
from ansible_collections.spokewright.fleet.plugins.module_utils.live_sessions import stale_sessions
from ansible_collections.spokewright.fleet.plugins.module_utils.management import Management, ManagementError
from ansible_collections.spokewright.fleet.plugins.module_utils.site_config import (
    SiteConfigError,
    SiteEntry,
    read_sites,
)

ARGUMENT_SPEC = {
    "socket_directory": {"type": "path", "default": "/run/openvpn-server"},
    "instances": {"type": "list", "elements": "str", "required": True},
    "network": {"type": "str", "required": True},
    "sites": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "id": {"type": "str", "required": True},
            "tunnel_address": {"type": "str", "required": True},
            "instance": {"type": "str", "required": True},
            "lans": {"type": "list", "elements": "str", "required": True},
        },
    },
    # A key id names a key and is no secret.
    "ended_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "only": {"type": "list", "elements": "str"},
    "per_second": {"type": "int", "default": 20},
    "timeout": {"type": "float", "default": 5},
}


def _reconnect(
    *,
    socket: Path,
    entries: list[SiteEntry],
    ended: set[str],
    only: list[str] | None,
    timeout: float,
    per_second: int,
    dry: bool,
) -> list[dict[str, str]]:
    with Management(str(socket), timeout) as daemon:
        stale = stale_sessions(lines=daemon.command("status 3"), entries=entries, ended=ended)
        stale = tuple(session for session in stale if only is None or session.site in only)
        for number, session in enumerate(stale):
            if dry:
                continue
            if number:
                time.sleep(1 / per_second)
            try:
                daemon.client_kill(session.client_id)
            except ManagementError as exc:
                # Gone between the question and now: it reads its ccd file when it comes back.
                if "command failed" not in str(exc):
                    raise
    return [{"instance": socket.stem, "site": session.site, "why": session.why} for session in stale]


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    if options["per_second"] < 1:
        module.fail_json(msg=f"per_second: {options['per_second']}: at least 1 session per second")
    try:
        entries = read_sites(sites=options["sites"], instances=options["instances"], network=options["network"])
    except (SiteConfigError, ValueError) as exc:
        module.fail_json(msg=f"The sites cannot be served as planned, no session was touched:\n{exc}")
    noted = presented(Path(options["socket_directory"]))
    ended = {site for site, (kid, _epoch, _when) in noted.items() if kid in options["ended_keys"]}
    only = options["only"]
    ended |= set(only or ()) - set(noted)
    reconnected: list[dict[str, str]] = []
    unanswered: list[str] = []
    for instance in options["instances"]:
        try:
            reconnected += _reconnect(
                socket=Path(options["socket_directory"]) / (f"{instance}.sock"),
                entries=[entry for entry in entries if entry.instance == instance],
                ended=ended,
                only=only,
                timeout=options["timeout"],
                per_second=options["per_second"],
                dry=module.check_mode,
            )
        except ManagementError as exc:
            unanswered.append(str(exc))
    if unanswered and not module.check_mode:
        module.fail_json(
            msg=f"Sessions may still run with an old address or LAN: {'; '.join(unanswered)}. See 'systemctl status "
            "openvpn-server@...' on the gateway, then run again.",
            reconnected=reconnected,
        )
    module.exit_json(changed=bool(reconnected), reconnected=reconnected)


if __name__ == "__main__":
    main()
