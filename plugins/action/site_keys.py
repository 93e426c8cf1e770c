# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the fleet's keys that are missing from the key store."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.module_utils.basic import missing_required_lib
from ansible.plugins.action import ActionBase

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet


class ActionModule(ActionBase):
    """Entry point of spokewright.fleet.site_keys."""

    _VALID_ARGS = frozenset(("plan",))
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Ensure all keys; the answer names what was made and holds no key."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(argument_spec={"plan": {"type": "path", "required": True}})
        try:
            from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore  # noqa: PLC0415
        except ImportError as exc:
            raise AnsibleActionFail(missing_required_lib(exc.name or "cryptography")) from exc
        try:
            fleet = load_fleet(plan_file=Path(args["plan"]))
            store = KeyStore(path=fleet.plan.key_store)
            made = store.ensure(
                fleet=fleet.plan.name,
                key_type=fleet.plan.tunnels.key_type,
                gateways=[gateway.name for gateway in fleet.plan.gateways],
                sites=[site.id for site in fleet.sites],
                dry_run=self._task.check_mode,
            )
            known = store.index().get("sites", {})
        except FleetError as exc:
            raise AnsibleActionFail(str(exc)) from exc
        verb = "would make" if self._task.check_mode else "made"
        result.update(
            changed=made.changed,
            ca=made.made_ca,
            server_key=made.made_server_key,
            gateways=list(made.made_gateways),
            sites={site: known.get(site, {}).get("1", {}) for site in made.made_sites},
            key_store=str(fleet.plan.key_store),
            msg=f"{verb} keys of {len(made.made_sites)} of {len(fleet.sites)} sites and of "
            f"{len(made.made_gateways)} gateways in {fleet.plan.key_store}",
        )
        if self._task.diff and made.changed:
            new = (["fleet CA"] if made.made_ca else []) + (["server key"] if made.made_server_key else [])
            lines = new + [f"key of {name}" for name in (*made.made_gateways, *made.made_sites)]
            result["diff"] = {
                "before_header": "key store",
                "after_header": "key store",
                "before": "",
                "after": "".join(f"{line}\n" for line in lines),
            }
        return result
