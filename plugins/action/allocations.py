# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the allocations (the lock file), or say what would be written."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan_view import (
    describe_change,
    lock_texts,
    record,
    refuse_moves,
)


class ActionModule(ActionBase):
    """Entry point of spokewright.fleet.allocations."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Compare the lock on disk with what the registry and the plan ask for, and record the difference."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            argument_spec={
                "plan": {"type": "path", "required": True},
                "move_sites": {"type": "bool", "default": False},
            },
        )
        try:
            fleet = load_fleet(plan_file=Path(args["plan"]))
            before, after = lock_texts(fleet=fleet)
            result.update(
                changed=before != after,
                changes=[describe_change(change) for change in fleet.changes],
                msg=f"{len(fleet.sites)} sites, {len(fleet.instances)} tunnel instances, {len(fleet.changes)} changes",
            )
            if self._task.diff:
                where = str(fleet.plan.lock)
                result["diff"] = {"before": before, "after": after, "before_header": where, "after_header": where}
            if not self._task.check_mode and before != after:
                if not args["move_sites"]:
                    refuse_moves(fleet=fleet, consent="run again with -e move_sites=true")
                record(fleet=fleet)
        except (FleetError, OSError) as exc:
            raise AnsibleActionFail(str(exc)) from None
        return result
