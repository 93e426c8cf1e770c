# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a rollout around its deliveries: who has a turn, what became of it, and whether it goes on."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.module_utils.basic import missing_required_lib
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.own_run import own_run
from ansible_collections.spokewright.fleet.plugins.plugin_utils.refusal import refused

IN_A_WAVE = ("begun", "ended")
UNKNOWN = "what became of it is not known, and the next run asks it"
STATES = ("planned", "claimed", "opened", "begun", "ended", "closed")

display = Display()


class ActionModule(ActionBase):
    """Entry point of spokewright.fleet.rollout."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Take one step; a rollout that goes no further is part of the answer, one that may not begin is a failure."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            argument_spec={
                "plan": {"type": "path", "required": True},
                "state": {"type": "str", "required": True, "choices": list(STATES)},
                "rollout": {"type": "str", "default": ""},
                "what": {"type": "str", "choices": ["configuration", "keys"], "default": "configuration"},
                "reason": {"type": "str", "default": ""},
                "beside": {"type": "bool", "default": False},
                "sites": {"type": "list", "elements": "str", "default": []},
                "stage": {"type": "dict", "default": {}},
                "wave": {"type": "str", "default": ""},
                "activate": {"type": "dict", "default": {}},
                "gate": {"type": "dict", "default": {}},
                "confirm": {"type": "dict", "default": {}},
                "any_pair": {"type": "bool", "default": False},
                "gate_seconds": {"type": "float", "default": 60.0},
            },
        )
        try:
            from ansible_collections.spokewright.fleet.plugins.plugin_utils import (  # noqa: PLC0415
                key_store,
                rollout_files,
                rollout_run,
                rollout_step,
            )
        except ImportError as exc:
            raise AnsibleActionFail(missing_required_lib(exc.name or "cryptography")) from exc
        try:
            fleet = load_fleet(plan_file=Path(args["plan"]))
            store = key_store.open_store(fleet.plan)
            step = rollout_step.Step(
                fleet=fleet,
                store=store,
                run=rollout_run.RolloutRun(fleet=fleet, run=own_run(), book=rollout_run.book_in(store)),
                args=args,
                dry=self._task.check_mode,
                say=display.display,
            )
            result.update(changed=False, **getattr(step, args["state"])())
        except rollout_files.RolloutLockedError as exc:
            result.update(failed=True, msg=str(exc), event=refused(args["rollout"]))
        except FleetError as exc:
            # A task that fails for all sites at once drops all but one from the play, and the recap calls them well.
            if args["state"] in IN_A_WAVE:
                result.update(changed=False, sites=[], stopped=str(exc), msg=f"no other site is touched: {exc}")
            elif args["state"] == "closed":
                unknown = {"ok": False, "changed": False, "reason": "unknown", "message": f"{UNKNOWN}: {exc}"}
                sites = dict.fromkeys((task_vars or {}).get("ansible_play_batch", ()), unknown)
                result.update(changed=False, sites=sites, msg=str(exc))
            else:
                raise AnsibleActionFail(str(exc)) from None
        return result
