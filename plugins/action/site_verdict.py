# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site's own part of what a fan-out found, so that failed hosts, recap and thresholds of a play are right."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Entry point of spokewright.fleet.site_verdict."""

    _VALID_ARGS = frozenset(("results",))
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Say what happened here: the first failure decides, any change counts."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            argument_spec={"results": {"type": "list", "elements": "str", "required": True}},
        )
        variables = task_vars or {}
        site = str(variables["inventory_hostname"])
        mine = []
        for name in args["results"]:
            # Taken as it is: templating the answer of 400 sites once per site would cost 400 times 400.
            registered = variables.get(name)
            if not isinstance(registered, t.Mapping):
                raise AnsibleActionFail(f"{name!r} is no registered result. Name the variable, not its value.")
            entry = registered.get("sites", {}).get(site)
            if entry is not None:
                mine.append(entry)
        failed = next((entry for entry in mine if not entry["ok"]), None)
        result["changed"] = any(entry.get("changed") for entry in mine)
        if self._task.diff:
            result["diff"] = [part for entry in mine for part in entry.get("diff", ())]
        if failed is not None:
            result.update(failed=True, reason=failed.get("reason", ""), msg=failed.get("message", ""))
        else:
            result["msg"] = "; ".join(entry["message"] for entry in mine if entry.get("message"))
        return result
