# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A planned move of the virtual addresses, for a play."""

from __future__ import annotations

import time
import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.spokewright.fleet.plugins.plugin_utils import switchover
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_problem import (
    FORBID_MOVE,
    HOLDER,
    PATH,
    STANDBY,
    Weight,
)

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet

display = Display()

ARGUMENTS = {
    "plan": {"type": "path", "required": True},
    "to": {"type": "str", "default": ""},
    "back": {"type": "bool", "default": False},
    "undo": {"type": "bool", "default": False},
    "unlike": {"type": "bool", "default": False},
    "worst_seconds": {"type": "float", "default": 0.0},
    "reports": {"type": "path"},
}


class ActionModule(ActionBase):
    """Entry point of spokewright.fleet.pair_move."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Look, move, measure, look again; say what it was like."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(argument_spec=ARGUMENTS)
        forbid: tuple[Weight, ...] = (HOLDER, PATH, STANDBY) if args["unlike"] else FORBID_MOVE
        try:
            fleet = load_fleet(plan_file=Path(args["plan"]))
            before = switchover.look(fleet=fleet, forbid=forbid)
            after = switchover.destination(fleet=fleet, before=before, to=args["to"])
            if not after:
                return {**result, "changed": False, "owner": before.owner, "msg": f"{before.owner} holds them already"}
            if self._task.check_mode:
                way = (
                    f"{before.owner} would give the addresses to {after}{' and get them back' if args['back'] else ''}"
                )
                display.display(way)
                return {**result, "changed": True, "owner": before.owner, "msg": way}
            return {**result, **_move(fleet=fleet, args=args, before=before, after=after, forbid=forbid)}
        except (FleetError, OSError) as exc:
            raise AnsibleActionFail(str(exc)) from None


def _move(
    *, fleet: Fleet, args: dict[str, t.Any], before: switchover.Look, after: str, forbid: tuple[Weight, ...]
) -> dict[str, t.Any]:
    wish = switchover.Wish(
        back=args["back"], undo=args["undo"], worst=args["worst_seconds"], forbid=forbid, began=time.time()
    )
    data = switchover.switch_over(fleet=fleet, before=before, after=after, wish=wish, say=display.display)
    for line in switchover.switchover_table(data).splitlines():
        display.display(line)
    told = "; ".join(data["faults"]) or f"{data['owner_after']} holds the addresses"
    if args["reports"]:
        path = switchover.write_switchover(directory=Path(args["reports"]), data=data)
        display.display(f"\nreport: {path}")
        told += f". Report: {path}"
    return {
        "changed": True,
        "failed": not data["passed"],
        "owner": data["owner_after"],
        "moves": data["moves"],
        "faults": data["faults"],
        "msg": told,
    }
