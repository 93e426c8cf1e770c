# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate as an action: ask the pair until the sites are up as planned."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.module_utils.basic import missing_required_lib
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.gate import Passed, wait_for_sites

display = Display()


class ActionModule(ActionBase):
    """Entry point of spokewright.fleet.tunnel_gate."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Wait; a site that does not pass is part of the answer, never a failed task."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            argument_spec={
                "plan": {"type": "path", "required": True},
                "sites": {"type": "list", "elements": "str", "required": True},
                "since": {"type": "dict", "default": {}},
                "seconds": {"type": "float", "default": 60.0},
                "deadman_seconds": {"type": "int"},
            },
        )
        if self._task.check_mode:
            result.update(changed=False, sites={}, msg=f"would wait for {len(args['sites'])} sites")
            return result
        try:
            from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import open_store  # noqa: PLC0415
        except ImportError as exc:
            raise AnsibleActionFail(missing_required_lib(exc.name or "cryptography")) from exc
        try:
            fleet = load_fleet(plan_file=Path(args["plan"]))
            passed = wait_for_sites(
                fleet=fleet,
                sites=args["sites"],
                seconds=args["seconds"],
                since={site: float(when) for site, when in args["since"].items()},
                deadman_seconds=args["deadman_seconds"],
                keys=open_store(fleet.plan).index(sites=args["sites"]),
                on_look=lambda done, total: display.display(f"  gate: {done} of {total} sites are up as planned"),
            )
        except FleetError as exc:
            # A task that fails for all of them at once drops all but one from the play, and the recap calls them well.
            passed = {site: Passed(site, ok=False, message=str(exc)) for site in args["sites"]}
        failed = [one for one in passed.values() if not one.ok]
        result.update(
            changed=False,
            sites={one.site: {"ok": one.ok, "message": one.message, "seconds": one.seconds} for one in passed.values()},
            msg=f"{len(passed) - len(failed)} of {len(passed)} sites passed the gate",
        )
        return result
