# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Revoke every key a site ever had, and make it another one where that is asked for."""

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

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.revocation import Revocation


class ActionModule(ActionBase):
    """Entry point of spokewright.fleet.key_revocation."""

    _VALID_ARGS = frozenset(("plan", "sites", "reason", "reissue"))
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Do it; the answer names keys by id and holds none."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            argument_spec={
                "plan": {"type": "path", "required": True},
                "sites": {"type": "list", "elements": "str", "required": True},
                "reason": {"type": "str", "required": True},
                "reissue": {"type": "bool", "default": False},
            },
        )
        try:
            from ansible_collections.spokewright.fleet.plugins.plugin_utils import revocation  # noqa: PLC0415
        except ImportError as exc:
            raise AnsibleActionFail(missing_required_lib(exc.name or "cryptography")) from exc
        dry = self._task.check_mode
        try:
            done = revocation.revoke(
                fleet=load_fleet(plan_file=Path(args["plan"])),
                sites=args["sites"],
                reason=args["reason"],
                reissue=args["reissue"],
                dry_run=dry,
                owner=own_run(),
            )
        except FleetError as exc:
            raise AnsibleActionFail(str(exc), result=refusal(exc)) from None
        result.update(
            changed=bool(done.revoked or done.made),
            revoked=done.revoked,
            made=done.made,
            denied_key_ids=done.denied,
            msg=_say(done, dry=dry),
        )
        if self._task.diff and done.revoked:
            before = "".join(f"{line}\n" for line in done.lines)
            result["diff"] = {"before_header": "keys", "after_header": "keys", "before": before, "after": ""}
        return result


def _say(done: Revocation, *, dry: bool) -> str:
    would = "would be" if dry else "was"
    said = [
        f"{site}: epoch {', '.join(map(str, epochs))} {would} revoked"
        + (f", epoch {done.made[site]} {would} made" if site in done.made else "")
        for site, epochs in done.revoked.items()
    ]
    said += [f"{site}: epoch {epoch} {would} made" for site, epoch in done.made.items() if site not in done.revoked]
    said += [
        f"{site}: its key of epoch {epoch} was made for this reason before, and is let in. To revoke that one as well, "
        "give another reason"
        for site, epoch in done.skipped.items()
    ]
    return "; ".join(said) or "every key of these sites is revoked already"
