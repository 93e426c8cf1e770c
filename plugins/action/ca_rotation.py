# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps by which another CA takes the place of the fleet's in the key store, each done once."""

from __future__ import annotations

import dataclasses
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
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollover_steps import (
    RolloverError,
    State,
    Step,
    blocked,
    staying,
    take,
)

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet


class ActionModule(ActionBase):
    """Entry point of spokewright.fleet.ca_rotation."""

    _VALID_ARGS = frozenset(("plan", "state", "reason", "leave_behind"))
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Take the step unless it is taken; the answer names CAs by fingerprint."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            argument_spec={
                "plan": {"type": "path", "required": True},
                "state": {"type": "str", "required": True, "choices": ["looked", "next", "serving", "keys", "alone"]},
                "reason": {"type": "str", "default": ""},
                "leave_behind": {"type": "list", "elements": "str", "default": []},
            },
        )
        try:
            from ansible_collections.spokewright.fleet.plugins.plugin_utils import key_store  # noqa: F401, PLC0415
        except ImportError as exc:
            raise AnsibleActionFail(missing_required_lib(exc.name or "cryptography")) from exc
        try:
            step = _step(fleet=load_fleet(plan_file=Path(args["plan"])), args=args, dry=self._task.check_mode)
        except FleetError as exc:
            raise AnsibleActionFail(str(exc), result=refusal(exc)) from None
        result.update(step.answer(header="CAs", diff=self._task.diff))
        return result


def _step(*, fleet: Fleet, args: dict[str, t.Any], dry: bool) -> Step:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import open_store  # noqa: PLC0415

    store = open_store(fleet.plan)
    rolled = store.authorities(fleet=fleet.plan.name, key_type=fleet.plan.tunnels.key_type)
    sites = staying(fleet=fleet, leave_behind=args["leave_behind"])
    state, reason = args["state"], args["reason"].strip()
    if state == "alone" and rolled.exists and rolled.there().phase == "former":
        lacking = rolled.outdated(sites=sites)
        if lacking:
            raise RolloverError(blocked(lacking, playbook=rolled.playbook))
    plain: State = "looked" if state == "keys" else state
    step = take(
        state=plain,
        rolled=rolled,
        store=store,
        lacking=lambda: not_ready(
            index=store.index(sites=sites),
            wanted=dict.fromkeys(sites, rolled.next_authority()),
            sites=sites,
            lacks="it has not confirmed that it trusts the next CA",
        ),
        reason=reason,
        dry=dry,
        owner=own_run(),
    )
    if state != "keys" or step.phase != "former":
        return step
    due = rolled.to_reissue(sites=[site.id for site in fleet.sites])
    made: dict[str, int] = {}
    if due:
        key_type = fleet.plan.tunnels.key_type
        with_reason = reason or step.reason
        if dry:
            made = store.regenerate(sites=due, key_type=key_type, reason=with_reason, dry_run=True)
        else:
            with store.operation("CA: keys", owner=own_run()):
                made = store.regenerate(sites=due, key_type=key_type, reason=with_reason)
    return dataclasses.replace(
        step,
        changed=bool(made),
        not_ready=rolled.outdated(sites=sites),
        message=f"{'would make' if dry else 'made'} {len(made)} keys of the CA {step.after.split()[1]}",
    )
