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
    configuration and the unit drop-in that are now on disk, or whose program or TLS library was replaced by an upgrade.
    One after another; each must answer on its management socket, from the process that systemd started, before the next
    is touched.
  - Sites with a live session are told first, at a stated rate. An instance without sessions is restarted without delay.
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
  state:
    description:
      - V(present) brings the instances to what is on disk.
      - V(looked) says what that would do and touches nothing.
    type: str
    choices: [present, looked]
    default: present
  ports:
    description:
      - UDP port that each instance is to have. If one of them is held by a program that is none of the instances, the
        module names that program and fails before it touches anything.
    type: dict
    default: {}
  will_change:
    description: Names of instances whose files this run changes. Only check mode needs them, to tell the truth.
    type: list
    elements: str
    default: []
  restart_outdated:
    description: Whether an instance is restarted because its program or a TLS library was replaced since it started.
    type: bool
    default: true
  per_second:
    description: How many live sessions per second are told to start anew before their instance is restarted.
    type: int
    default: 100
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

- name: Ask whether that would restart one
  spokewright.fleet.tunnel_service: {instances: [tun0, tun1], state: looked}
"""

RETURN = r"""
started:
  description: Instances that did not run and were started.
  returned: O(state=present)
  type: list
  elements: str
  sample: [tun1]
restarted:
  description: Instances that ran with another configuration or an old program and were restarted.
  returned: O(state=present)
  type: list
  elements: str
  sample: []
enabled:
  description: Instances that would not have come back after a boot and were enabled.
  returned: O(state=present)
  type: list
  elements: str
  sample: [tun1]
removed:
  description: Instances that are no longer in the plan.
  returned: O(state=present)
  type: list
  elements: str
  sample: []
told:
  description: How many live sessions each restarted instance told to start anew.
  returned: O(state=present), outside of check mode
  type: dict
  sample: {tun0: 14}
would_start:
  description: Instances that O(state=present) would start.
  returned: O(state=looked)
  type: list
  elements: str
  sample: []
would_restart:
  description: Instances that O(state=present) would restart.
  returned: O(state=looked)
  type: list
  elements: str
  sample: [tun0]
would_remove:
  description: Instances that O(state=present) would stop and remove.
  returned: O(state=looked)
  type: list
  elements: str
  sample: []
outdated:
  description: Instances that run with a replaced program or TLS library and are left alone.
  returned: success
  type: list
  elements: str
  sample: []
reasons:
  description: Why instances that ran are restarted, and which are left with an old program. One sentence each.
  returned: success
  type: list
  elements: str
  sample: ["tun0: libssl.so.3 was replaced since it started"]
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.spokewright.fleet.plugins.module_utils.tunnel_unit import (
    Paths,
    Run,
    Step,
    UnitError,
    bring_up,
    daemon_reload,
    look,
    make_room,
    needed,
    outdated,
    retire,
    strangers,
    strangers_on_ports,
)

ARGUMENT_SPEC = {
    "instances": {"type": "list", "elements": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "looked"], "default": "present"},
    "ports": {"type": "dict", "default": {}},
    "will_change": {"type": "list", "elements": "str", "default": []},
    "restart_outdated": {"type": "bool", "default": True},
    "per_second": {"type": "int", "default": 100},
    "timeout": {"type": "float", "default": 15},
}


def _apply(
    *,
    steps: t.Sequence[Step],
    removed: t.Sequence[str],
    run: Run,
    paths: Paths,
    timeout: float,
    per_second: float,
) -> dict[str, int]:
    if any(step.state.needs_reload for step in steps):
        daemon_reload(run=run)
    # What leaves makes room (its port, its sites) before what stays is touched.
    for name in removed:
        retire(name=name, run=run, paths=paths)
    make_room(steps=steps, run=run, paths=paths)
    told = {
        step.state.name: bring_up(step=step, run=run, paths=paths, timeout=timeout, per_second=per_second)
        for step in steps
    }
    return {name: number for name, number in told.items() if number}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options, names, paths = module.params, module.params["instances"], Paths()
    if options["per_second"] < 1:
        module.fail_json(msg=f"per_second: {options['per_second']}: at least 1 session per second")

    def run(argv: t.Sequence[str]) -> tuple[int, str, str]:
        if argv[0] == "nft" and not module.get_bin_path("nft"):
            return 127, "", "nft is not installed"
        code, out, err = module.run_command(list(argv))
        return int(code), str(out), str(err)

    ports = {name: int(port) for name, port in options["ports"].items()}
    taken = strangers_on_ports(ports=ports, names=names, run=run, paths=paths)
    if taken:
        module.fail_json(msg=f"{'; '.join(taken)}. Stop it, or give the instances other ports. Nothing was changed.")
    steps = [
        needed(
            state=look(name=name, run=run, paths=paths),
            will_change=name in options["will_change"],
            restart_outdated=options["restart_outdated"],
        )
        for name in names
    ]
    removed = list(strangers(names=names, paths=paths))
    left = [step.state for step in steps if step.state.replaced and step.action == "none"]
    reasons = [f"{step.state.name}: {step.why}" for step in steps if step.action == "restart"]
    said: dict[str, t.Any] = {
        "outdated": [state.name for state in left],
        "reasons": reasons + [f"{state.name}: {outdated(state=state)}" for state in left],
    }
    starts, restarts = ([step.state.name for step in steps if step.action == kind] for kind in ("start", "restart"))
    if options["state"] == "looked":
        module.exit_json(changed=False, would_start=starts, would_restart=restarts, would_remove=removed, **said)
    if not module.check_mode:
        try:
            pace = {"timeout": options["timeout"], "per_second": options["per_second"]}
            said["told"] = _apply(steps=steps, removed=removed, run=run, paths=paths, **pace)
        except (UnitError, OSError) as exc:
            module.fail_json(msg=str(exc))
    result = {
        "started": starts,
        "restarted": restarts,
        "enabled": [step.state.name for step in steps if not step.state.enabled],
        "removed": removed,
    }
    module.exit_json(changed=any(result.values()), **result, **said)


if __name__ == "__main__":
    main()
