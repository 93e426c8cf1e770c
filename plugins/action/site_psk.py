# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make sure that the key store holds the keys a fleet wants."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.module_utils.basic import missing_required_lib
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_wish import Wish, grant
from ansible_collections.spokewright.fleet.plugins.plugin_utils.own_run import own_run
from ansible_collections.spokewright.fleet.plugins.plugin_utils.refusal import refusal

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_wish import Granted

display = Display()


class ActionModule(ActionBase):
    """Entry point of spokewright.fleet.site_psk."""

    _VALID_ARGS = frozenset(("plan", "sites", "state", "epoch", "regenerate", "reason"))
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Do it; the answer names keys by epoch and fingerprint and holds none."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            argument_spec={
                "plan": {"type": "path", "required": True},
                "sites": {"type": "list", "elements": "str"},
                "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                "epoch": {"type": "int"},
                "regenerate": {"type": "bool", "default": False},
                "reason": {"type": "str", "default": ""},
            },
        )
        try:
            from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import open_store  # noqa: PLC0415
        except ImportError as exc:
            raise AnsibleActionFail(missing_required_lib(exc.name or "cryptography")) from exc
        dry = self._task.check_mode
        try:
            fleet = load_fleet(plan_file=Path(args["plan"]))
            granted = grant(
                wish=Wish(
                    sites=None if args["sites"] is None else tuple(args["sites"]),
                    state=args["state"],
                    epoch=args["epoch"],
                    regenerate=args["regenerate"],
                    reason=args["reason"],
                ),
                fleet=fleet,
                store=open_store(fleet.plan),
                dry_run=dry,
                owner=own_run(),
            )
        except FleetError as exc:
            raise AnsibleActionFail(str(exc), result=refusal(exc)) from None
        key_file = granted.ensured.made_store_key if granted.ensured else None
        if key_file is not None and not dry:
            display.warning(
                f"{key_file} was made: it alone opens the key store {fleet.plan.key_store}. Back it up NOW, to a place "
                "apart from the store's own backup. Without it every key of the fleet is lost."
            )
        result.update(
            changed=granted.changed,
            sites=_sites(granted, dry=dry),
            made=dict(granted.made),
            destroyed=dict(granted.destroyed),
            **_shared(granted),
            key_store=str(fleet.plan.key_store),
            made_store_key="" if key_file is None else str(key_file),
            msg=_say(granted, dry=dry, store=str(fleet.plan.key_store)),
        )
        if self._task.diff and granted.changed:
            result["diff"] = _difference(granted)
        return result


def _shared(granted: Granted) -> dict[str, t.Any]:
    ensured = granted.ensured
    return {
        "ca": ensured is not None and ensured.made_ca,
        "crl": ensured is not None and ensured.made_crl,
        "server_key": ensured is not None and ensured.made_server_key,
        "gateways": [] if ensured is None else list(ensured.made_gateways),
    }


def _sites(granted: Granted, *, dry: bool) -> dict[str, dict[str, t.Any]]:
    """Each site's newest key; in check mode of a key that would be made only its epoch."""
    found: dict[str, dict[str, t.Any]] = {}
    for site in dict.fromkeys((*granted.index, *granted.made)):
        epochs = granted.index.get(site, {})
        entry: dict[str, t.Any] = dict(epochs[max(epochs)]) if epochs else {}
        made, gone = granted.made.get(site), granted.destroyed.get(site)
        message = ""
        if made is not None:
            message = f"{'would make' if dry else 'made'} its key of epoch {made}"
            entry = {"epoch": made} if dry else entry
        elif gone is not None:
            message = f"{'would destroy' if dry else 'destroyed'} its key of epoch {gone}"
        found[site] = {"ok": True, "changed": bool(message), "message": message, **entry}
    return found


def _say(granted: Granted, *, dry: bool, store: str) -> str:
    would = "would have " if dry else ""
    said = [f"{len(granted.made)} keys of sites made"] if granted.made else []
    said += [f"{len(granted.destroyed)} keys of sites destroyed"] if granted.destroyed else []
    shared = _shared(granted)
    names = {"ca": "fleet CA", "server_key": "server key", "crl": "revocation list"}
    new = [name for part, name in names.items() if shared[part]]
    new += [f"certificate of {name}" for name in shared["gateways"]]
    said += [f"{', '.join(new)} made"] if new else []
    if not said:
        return f"{store} holds what is wanted of {len(granted.index)} sites"
    return f"{store}: {would}{'; '.join(said)}"


def _difference(granted: Granted) -> dict[str, str]:
    """The keys of what changes, by name and epoch, before and after."""
    before = [
        f"{site} epoch {epoch}"
        for site in sorted({*granted.made, *granted.destroyed})
        for epoch, entry in sorted(granted.before.get(site, {}).items())
        if entry.get("state") != "destroyed"
    ]
    gone = {f"{site} epoch {epoch}" for site, epoch in granted.destroyed.items()}
    after = [line for line in before if line not in gone]
    after = sorted([*after, *(f"{site} epoch {epoch}" for site, epoch in granted.made.items())])
    shared = _shared(granted)
    new = [part.replace("_", " ") for part in ("ca", "crl", "server_key") if shared[part]]
    new += [f"certificate of {name}" for name in shared["gateways"]]
    return {
        "before_header": "keys",
        "after_header": "keys",
        "before": "".join(f"{line}\n" for line in before),
        "after": "".join(f"{line}\n" for line in [*new, *after]),
    }
