# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure gateways and record what follows, for a play."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_answer import Asked, answer, rate
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_file import capacity_file
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_report import capacity_table
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_run import BUSIEST, HANDSHAKES
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet

display = Display()


class ActionModule(ActionBase):
    """Entry point of spokewright.fleet.capacity."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Measure, print the table, record it. In check mode nothing is measured: a trial is no look."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            argument_spec={
                "plan": {"type": "path", "required": True},
                "gateways": {"type": "list", "elements": "str", "default": []},
                "link": {"type": "str", "default": ""},
                "handshakes": {"type": "int", "default": HANDSHAKES},
                "max_load": {"type": "float", "default": BUSIEST},
            },
        )
        check = bool(self._task.check_mode)
        try:
            fleet = load_fleet(plan_file=Path(args["plan"]))
            asked = Asked(
                gateways=[] if check else args["gateways"],
                link_mbit=rate(args["link"]) if args["link"] else 0.0,
                handshakes=args["handshakes"],
                busiest=args["max_load"],
                recorded=check,
                write=not check,
            )
            report, written = answer(fleet=fleet, asked=asked, say=display.display)
        except (FleetError, OSError) as exc:
            raise AnsibleActionFail(str(exc)) from None
        for line in capacity_table(report).splitlines():
            display.display(line)
        file = capacity_file(fleet.plan_file)
        said = "nothing was measured in check mode" if check else f"{file} {'was written' if written else 'is right'}"
        result.update(changed=written, capacity=report, file=str(file), msg=said)
        return result
