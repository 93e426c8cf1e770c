#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a gateway's tun devices, loopback address and routes be as wanted, with the fewest commands."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_routes
short_description: Make a gateway's tun devices and routes be as wanted, touching nothing that is right
version_added: "0.1.0"
description:
  - Compares persistent tun devices, loopback addresses and IPv4 routes with the kernel's own and runs only the C(ip)
    commands that are missing. A route that is right is never deleted and added again, so no packet over it is lost.
  - Routes made by this module carry the protocol number 201, devices the alias C(spokewright). Only those are ever
    removed.
  - It changes the running kernel only. What makes the same state at boot is the caller's business.
options:
  devices:
    description: Names of the tun devices.
    type: list
    elements: str
    required: true
  mtu:
    description: MTU of the devices; V(0) leaves it as it is.
    type: int
    default: 0
  addresses:
    description: Addresses with prefix length that the loopback device carries.
    type: list
    elements: str
    default: []
  stale_addresses:
    description: Loopback addresses of an earlier run that go away when O(addresses) does not name them.
    type: list
    elements: str
    default: []
  routes:
    description: All routes.
    type: list
    elements: dict
    required: true
    suboptions:
      destination:
        description: IPv4 prefix.
        type: str
        required: true
      kind:
        description: Kind of route.
        type: str
        choices: [unicast, unreachable]
        default: unicast
      device:
        description: Device of a unicast route.
        type: str
        default: ""
      gateway:
        description: Next hop of a unicast route; without it the route is on-link.
        type: str
        default: ""
      metric:
        description: Metric.
        type: int
        default: 0
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status without changing anything.
    support: full
  diff_mode:
    description: Shows the devices, addresses and routes before and after.
    support: full
author:
  - Spokewright maintainers (@spokewright)
"""

EXAMPLES = r"""
---
- name: One device, its block and one site's LAN
  spokewright.fleet.kernel_routes:
    devices: [tun0]
    addresses: [10.101.0.1/32]
    routes:
      - {destination: 10.101.0.16/28, device: tun0}
      - {destination: 10.202.1.0/24, device: tun0}
      - {destination: 10.202.0.0/15, kind: unreachable, metric: 4000}
"""

RETURN = r"""
commands:
  description: The C(ip) commands that were run, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: ["route replace 10.202.1.0/24 dev tun0 scope link proto 201"]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.spokewright.fleet.plugins.module_utils import kernel_routes as core


def _ask(module: AnsibleModule, *arguments: str) -> str:
    code, out, err = module.run_command([module.get_bin_path("ip", required=True), *arguments])
    if code != 0:
        raise core.KernelRoutesError(f"ip {' '.join(arguments)} ended with {code}: {err.strip()}")
    return str(out)


def _found(module: AnsibleModule) -> core.State:
    return core.State(
        devices=core.parse_links(_ask(module, "-details", "-json", "link", "show")),
        addresses=core.parse_addresses(_ask(module, "-json", "-4", "address", "show", "dev", "lo")),
        routes=core.parse_routes(
            _ask(module, "-N", "-json", "-4", "route", "show", "table", "main", "proto", str(core.PROTOCOL))
        ),
    )


def _apply(module: AnsibleModule, change: core.Change) -> None:
    batch = "\n".join(change.commands) + "\n"
    code, _out, err = module.run_command([module.get_bin_path("ip", required=True), "-batch", "-"], data=batch)
    if code == 0:
        return
    hint = ""
    if "/dev/net/tun" in err:
        hint = " The host has no usable TUN device: load the module tun, or give the container /dev/net/tun."
    raise core.KernelRoutesError(
        f"ip -batch ended with {code}: {err.strip()}. First of {len(change.commands)} commands: "
        f"{change.commands[0]!r}.{hint} What was done before stays; run again once the cause is gone."
    )


def _prove(left: tuple[str, ...]) -> None:
    if left:
        raise core.KernelRoutesError(
            f"{len(left)} commands ran without error, but the kernel does not show their effect, first {left[0]!r}. "
            f"Something else on this host removes our devices or routes; `ip monitor` shows it "
            f"(systemd-networkd needs ManageForeignRoutes=no)."
        )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "devices": {"type": "list", "elements": "str", "required": True},
            "mtu": {"type": "int", "default": 0},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "stale_addresses": {"type": "list", "elements": "str", "default": []},
            "routes": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "destination": {"type": "str", "required": True},
                    "kind": {"type": "str", "choices": ["unicast", "unreachable"], "default": "unicast"},
                    "device": {"type": "str", "default": ""},
                    "gateway": {"type": "str", "default": ""},
                    "metric": {"type": "int", "default": 0},
                },
            },
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        wanted = core.Wanted(
            devices=tuple(given["devices"]),
            mtu=given["mtu"],
            addresses=tuple(given["addresses"]),
            routes=tuple(
                core.Route(**{**route, "destination": core.network(route["destination"])}) for route in given["routes"]
            ),
        )
        change = core.difference(wanted=wanted, found=_found(module), stale_addresses=tuple(given["stale_addresses"]))
        if change.commands and not module.check_mode:
            _apply(module, change)
            _prove(core.difference(wanted=wanted, found=_found(module)).commands)
    except (core.KernelRoutesError, ValueError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(
        changed=bool(change.commands),
        commands=list(change.commands),
        diff={
            "before": "".join(f"{line}\n" for line in change.before),
            "after": "".join(f"{line}\n" for line in change.after),
        },
    )


if __name__ == "__main__":
    main()
