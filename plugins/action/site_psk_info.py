# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the key store knows of the sites' keys, without showing one."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.module_utils.basic import missing_required_lib
from ansible.plugins.action import ActionBase

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.refusal import refusal

if t.TYPE_CHECKING:
    from collections.abc import Mapping


class ActionModule(ActionBase):
    """Entry point of spokewright.fleet.site_psk_info."""

    _VALID_ARGS = frozenset(("plan", "sites", "verify"))
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Read the index; open the keys and the ledger only when asked to."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            argument_spec={
                "plan": {"type": "path", "required": True},
                "sites": {"type": "list", "elements": "str"},
                "verify": {"type": "bool", "default": False},
            },
        )
        try:
            from ansible_collections.spokewright.fleet.plugins.plugin_utils import store_check  # noqa: PLC0415
            from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import open_store  # noqa: PLC0415
            from ansible_collections.spokewright.fleet.plugins.plugin_utils.rotation import denied  # noqa: PLC0415
        except ImportError as exc:
            raise AnsibleActionFail(missing_required_lib(exc.name or "cryptography")) from exc
        try:
            fleet = load_fleet(plan_file=Path(args["plan"]))
            store = open_store(fleet.plan)
            sites = [site.id for site in fleet.sites] if args["sites"] is None else list(dict.fromkeys(args["sites"]))
            index = store.index(sites=sites)
            ended = denied(store.index())
            whole, problems = 0, []
            if args["verify"] and args["sites"] is None:
                everything = store_check.check_store(store=store)
                whole, problems = everything.keys, everything.problems
            elif args["verify"]:
                checked = [store_check.check_site(store=store, site=site, index=index.get(site, {})) for site in sites]
                whole = sum(keys for keys, _problems in checked)
                problems = [*(problem for _keys, found in checked for problem in found), *store.ledger.verify()]
        except FleetError as exc:
            raise AnsibleActionFail(str(exc), result=refusal(exc)) from None
        found = {site: _keys(index.get(site, {})) for site in sites}
        without = [site for site, one in found.items() if not one["epochs"]]
        result.update(
            changed=False,
            sites=found,
            without_key=without,
            denied_key_ids=ended,
            key_store=str(fleet.plan.key_store),
            verified=whole,
            problems=problems,
            msg=f"{len(found) - len(without)} of {len(found)} sites have a key in {fleet.plan.key_store}",
        )
        if args["verify"]:
            result["failed"] = bool(problems)
            result["msg"] += f"; {whole} keys opened and whole, {len(problems)} problems" + "".join(
                f"\n{problem}" for problem in problems[:10]
            )
        return result


def _keys(epochs: Mapping[int, Mapping[str, t.Any]]) -> dict[str, t.Any]:
    """The newest key's facts, and all of them under their epoch."""
    every = {str(epoch): dict(epochs[epoch]) for epoch in sorted(epochs)}
    return {**(every[str(max(epochs))] if epochs else {}), "epochs": every}
