# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a rotation of the server key in the key store, each done once."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.module_utils.basic import missing_required_lib
from ansible.plugins.action import ActionBase

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.own_run import own_run
from ansible_collections.spokewright.fleet.plugins.plugin_utils.refusal import refusal
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollover import not_ready
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollover_steps import staying, take


class ActionModule(ActionBase):
    """Entry point of spokewright.fleet.server_key_rotation."""

    _VALID_ARGS = frozenset(("plan", "state", "reason", "leave_behind"))
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Take the step unless it is taken; the answer names server keys by fingerprint."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            argument_spec={
                "plan": {"type": "path", "required": True},
                "state": {"type": "str", "required": True, "choices": ["looked", "next", "serving", "alone", "undone"]},
                "reason": {"type": "str", "default": ""},
                "leave_behind": {"type": "list", "elements": "str", "default": []},
            },
        )
        try:
            from ansible_collections.spokewright.fleet.plugins.plugin_utils import key_store  # noqa: PLC0415
        except ImportError as exc:
            raise AnsibleActionFail(missing_required_lib(exc.name or "cryptography")) from exc
        try:
            fleet = load_fleet(plan_file=Path(args["plan"]))
            store = key_store.open_store(fleet.plan)
            sites = staying(fleet=fleet, leave_behind=args["leave_behind"])
            step = take(
                state=args["state"],
                rolled=store.server_keys,
                store=store,
                lacking=lambda: not_ready(
                    index=store.index(sites=sites),
                    wanted=store.server_keys.other_psks(sites=sites),
                    sites=sites,
                    lacks="it has not confirmed its PSK for the next server key",
                ),
                reason=args["reason"].strip(),
                dry=self._task.check_mode,
                owner=own_run(),
            )
        except FleetError as exc:
            raise AnsibleActionFail(str(exc), result=refusal(exc)) from None
        result.update(step.answer(header="server keys", diff=self._task.diff))
        return result
