# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of the whole fleet, for a play."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.status import look_at_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import status_table

display = Display()


class ActionModule(ActionBase):
    """Entry point of spokewright.fleet.fleet_status."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Ask the pair, print the table, and fail unless all is well."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            argument_spec={
                "plan": {"type": "path", "required": True},
                "groups": {"type": "list", "elements": "str", "default": []},
                "oob": {"type": "bool", "default": False},
            },
        )
        try:
            status = look_at_fleet(
                fleet=load_fleet(plan_file=Path(args["plan"])), groups=args["groups"], oob=args["oob"]
            )
        except (FleetError, OSError) as exc:
            raise AnsibleActionFail(str(exc)) from None
        for line in status_table(status).splitlines():
            display.display(line)
        summary = status["summary"]
        result.update(
            changed=False,
            failed=not summary["well"],
            summary=summary,
            problems=status["problems"],
            not_up=[site["id"] for site in status["sites"] if site["verdict"] != "up"],
            oob_down=[site["id"] for site in status["sites"] if site["oob"] == "down"],
            msg=f"{summary['up']} of {summary['total']} sites are up"
            + (f"; {summary['oob_down']} out-of-band links are down" if summary["oob_down"] else "")
            + (f"; {len(status['problems'])} problems with the pair" if status["problems"] else ""),
        )
        return result
