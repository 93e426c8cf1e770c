# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A look at the gateway pair, for a play."""

from __future__ import annotations

import time
import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_problem import (
    FORBID_CHANGE,
    FORBID_MOVE,
    HOLDER,
    PATH,
    STANDBY,
    said,
    unproven,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_report import (
    look_at_pair,
    pair_report,
    pair_table,
)

display = Display()


class ActionModule(ActionBase):
    """Entry point of spokewright.fleet.pair_info."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Ask both gateways and sort what is wrong by what it forbids."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            argument_spec={
                "plan": {"type": "path", "required": True},
                "gateway": {"type": "str", "default": ""},
                "seconds": {"type": "float", "default": 0.0},
                "show": {"type": "bool", "default": False},
            },
        )
        try:
            fleet = load_fleet(plan_file=Path(args["plan"]))
            pair = look_at_pair(fleet=fleet)
            deadline = time.monotonic() + args["seconds"]
            while unproven(pair.problems, gateway=args["gateway"]) and time.monotonic() < deadline:
                time.sleep(1)
                pair = look_at_pair(fleet=fleet)
        except (FleetError, OSError) as exc:
            raise AnsibleActionFail(str(exc)) from None
        report = pair_report(fleet=fleet, pair=pair)
        if args["show"]:
            for line in pair_table(report).splitlines():
                display.display(line)
        result.update(
            changed=False,
            owner=pair.owner,
            standby=pair.standby,
            built=pair.built,
            well=report["well"],
            problems=[one.text for one in pair.problems],
            forbids_change=said(pair.problems, *FORBID_CHANGE),
            forbids_move=said(pair.problems, *FORBID_MOVE),
            to_mend=said(pair.problems, STANDBY),
            standby_unfit=said(pair.problems, HOLDER, PATH, STANDBY),
            unproven=unproven(pair.problems, gateway=args["gateway"]),
        )
        return result
