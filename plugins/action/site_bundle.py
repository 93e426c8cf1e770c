# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One verb of the delivery engine on the host a task runs for."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.module_utils.basic import missing_required_lib
from ansible.plugins.action import ActionBase

from ansible_collections.spokewright.fleet.plugins.plugin_utils.counts import check_counts
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.own_run import own_run
from ansible_collections.spokewright.fleet.plugins.plugin_utils.refusal import refusal
from ansible_collections.spokewright.fleet.plugins.plugin_utils.site_verbs import VERBS, check_generation


class ActionModule(ActionBase):
    """Entry point of spokewright.fleet.site_bundle."""

    _VALID_ARGS = frozenset(("plan", "verb", "generation", "deadman_seconds"))
    # The engine has its own connection, with the registry's pin.
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Do it; a site where it goes wrong is a failed host."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            argument_spec={
                "plan": {"type": "path", "required": True},
                "verb": {"type": "str", "required": True, "choices": list(VERBS)},
                "generation": {"type": "str", "default": ""},
                "deadman_seconds": {"type": "int"},
            },
        )
        site = str((task_vars or {})["inventory_hostname"])
        try:
            from ansible_collections.spokewright.fleet.plugins.plugin_utils import (  # noqa: PLC0415
                key_store,
                one_site,
                site_run,
            )
        except ImportError as exc:
            raise AnsibleActionFail(missing_required_lib(exc.name or "paramiko")) from exc
        try:
            check_generation(verb=args["verb"], generation=args["generation"])
            check_counts(deadman_seconds=args["deadman_seconds"])
            fleet = load_fleet(plan_file=Path(args["plan"]))
            if site not in {one.id for one in fleet.sites}:
                raise AnsibleActionFail(
                    f"{site}: not in the registry of {fleet.plan.file}. Run this task in a play for sites only."
                )
            store = key_store.open_store(fleet.plan)
            owner = own_run()
            run = site_run.SiteRun(
                fleet=fleet,
                verb=args["verb"],
                generation=args["generation"],
                deadman_seconds=args["deadman_seconds"] or fleet.plan.policies.deadman_seconds,
                dry_run=self._task.check_mode,
                store=store,
                owner=owner,
                texts=self._task.diff,
            )
            results = {site: one_site.carry_out_alone(run=run, store=store, site=site, owner=owner)}
        except FleetError as exc:
            raise AnsibleActionFail(str(exc), result=refusal(exc)) from None
        found = site_run.summary(results=results, began=run.began)["sites"][site]
        result.update(
            {name: value for name, value in found.items() if name not in {"ok", "message"}},
            failed=not found["ok"],
            msg=found["message"],
        )
        if self._task.diff and args["verb"] == "stage":
            result["diff"] = run.differences(results=results)
        return result
