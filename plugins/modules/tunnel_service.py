#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the tunnel instances of a gateway to what their files say."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: tunnel_service
short_description: Bring the tunnel instances of a gateway to what their files say
description:
  - Enables and starts each instance (C(openvpn-server@NAME)), and restarts those that were not started with the
    configuration and the unit drop-in that are now on disk. One after another; each must answer on its management
    socket, from the process that systemd started, before the next is touched.
  - A change of ccd files, of the CRL or of the list of denied keys restarts nothing.
  - Instances that were made by this role and are no longer listed are stopped, disabled and removed.
  - What a daemon was started with is recorded by the drop-in's C(ExecStartPre=). Unlike a handler, this survives a
    run that was cut off between writing a file and restarting the daemon.
version_added: 0.1.0
author: Spokewright maintainers (@spokewright)
options:
  instances:
    description: Names of the tunnel instances of this gateway.
    type: list
    elements: str
    required: true
  will_change:
    description: Names of instances whose files this run changes. Only check mode needs them, to tell the truth.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait until a daemon answers.
    type: float
    default: 15
attributes:
  check_mode:
    description: Says what would be started, restarted and removed.
    support: full
  diff_mode:
    description: There is no file to show.
    support: none
  platform:
    description: Gateways run Linux with systemd.
    platforms: posix
    support: full
"""

EXAMPLES = r"""
- name: Tunnel instances run with what is on disk
  spokewright.fleet.tunnel_service:
    instances: [tun0, tun1]
"""

RETURN = r"""
started:
  description: Instances that did not run and were started.
  returned: success
  type: list
  elements: str
  sample: [tun1]
restarted:
  description: Instances that ran with another configuration and were restarted.
  returned: success
  type: list
  elements: str
  sample: []
enabled:
  description: Instances that would not have come back after a boot and were enabled.
  returned: success
  type: list
  elements: str
  sample: [tun1]
removed:
  description: Instances that are no longer in the plan.
  returned: success
  type: list
  elements: str
  sample: []
outdated:
  description: Instances whose process is older than the installed openvpn program. Nothing restarts them for that.
  returned: success
  type: list
  elements: str
  sample: []
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.spokewright.fleet.plugins.module_utils.tunnel_unit import (
    Action,
    Paths,
    Run,
    UnitError,
    UnitState,
    bring_up,
    daemon_reload,
    look,
    needed,
    retire,
    strangers,
)

ARGUMENT_SPEC = {
    "instances": {"type": "list", "elements": "str", "required": True},
    "will_change": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "float", "default": 15},
}


def _apply(
    *,
    plan: t.Sequence[tuple[UnitState, Action]],
    removed: t.Sequence[str],
    run: Run,
    paths: Paths,
    timeout: float,
) -> None:
    if any(state.needs_reload for state, _action in plan):
        daemon_reload(run=run)
    # What leaves makes room (its port, its sites) before what stays is touched.
    for name in removed:
        retire(name=name, run=run, paths=paths)
    for state, action in plan:
        bring_up(state=state, action=action, run=run, paths=paths, timeout=timeout)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    names, paths = module.params["instances"], Paths()

    def run(argv: t.Sequence[str]) -> tuple[int, str, str]:
        code, out, err = module.run_command(list(argv))
        return int(code), str(out), str(err)

    states = [look(name=name, run=run, paths=paths) for name in names]
    plan = [(state, needed(state=state, will_change=state.name in module.params["will_change"])) for state in states]
    removed = strangers(names=names, paths=paths)
    if not module.check_mode:
        try:
            _apply(plan=plan, removed=removed, run=run, paths=paths, timeout=module.params["timeout"])
        except (UnitError, OSError) as exc:
            module.fail_json(msg=str(exc))
    result = {
        "started": [state.name for state, action in plan if action == "start"],
        "restarted": [state.name for state, action in plan if action == "restart"],
        "enabled": [state.name for state in states if not state.enabled],
        "removed": list(removed),
    }
    outdated = [state.name for state, action in plan if state.binary_replaced and action == "none"]
    module.exit_json(changed=any(result.values()), outdated=outdated, **result)


if __name__ == "__main__":
    main()
