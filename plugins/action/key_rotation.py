# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two ends of a rotation in the key store: new keys for those that are due, and the old ones retired."""

from __future__ import annotations

import datetime as dt
import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.module_utils.basic import missing_required_lib
from ansible.plugins.action import ActionBase

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_states import newest_of
from ansible_collections.spokewright.fleet.plugins.plugin_utils.own_run import own_run
from ansible_collections.spokewright.fleet.plugins.plugin_utils.refusal import refusal

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.rotation import Turn

KINDS = {"due": "due", "under way": "under_way", "done": "not_due", "no key": "without_key"}


class ActionModule(ActionBase):
    """Entry point of spokewright.fleet.key_rotation."""

    _VALID_ARGS = frozenset(("plan", "sites", "state", "reason", "days"))
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Do it; the answer names keys by epoch and fingerprint and holds none."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            argument_spec={
                "plan": {"type": "path", "required": True},
                "sites": {"type": "list", "elements": "str", "required": True},
                "state": {"type": "str", "choices": ["issued", "retired"], "default": "issued"},
                "reason": {"type": "str", "default": ""},
                "days": {"type": "int", "default": 90},
            },
        )
        try:
            from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import open_store  # noqa: PLC0415
        except ImportError as exc:
            raise AnsibleActionFail(missing_required_lib(exc.name or "cryptography")) from exc
        step = _issue if args["state"] == "issued" else _retire
        try:
            fleet = load_fleet(plan_file=Path(args["plan"]))
            said = step(fleet=fleet, store=open_store(fleet.plan), args=args, dry=self._task.check_mode)
        except FleetError as exc:
            raise AnsibleActionFail(str(exc), result=refusal(exc)) from None
        diff = said.pop("diff")
        result.update(said)
        if self._task.diff and said["changed"]:
            result["diff"] = diff
        return result


def _issue(*, fleet: Fleet, store: KeyStore, args: dict[str, t.Any], dry: bool) -> dict[str, t.Any]:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils import rotation  # noqa: PLC0415
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_wish import Wish, grant  # noqa: PLC0415

    days, reason = args["days"], args["reason"].strip()
    if days < 1:
        raise FleetError(f"days: {days}: a key becomes at least 1 day old.")
    index = store.index(sites=args["sites"])
    turns = rotation.turns(
        index=index,
        reasons=rotation.reasons_of(store.ledger.entries()) if reason else {},
        sites=args["sites"],
        reason=reason,
        days=days,
        now=dt.datetime.now(tz=dt.UTC),
    )
    due = [site for site, turn in turns.items() if turn.kind == "due"]
    if due:
        wish = Wish(sites=tuple(due), regenerate=True, reason=reason or f"older than {days} days")
        grant(wish=wish, fleet=fleet, store=store, dry_run=dry, owner=own_run())
    groups = {name: [site for site, turn in turns.items() if turn.kind == kind] for kind, name in KINDS.items()}
    counts = ", ".join(f"{len(sites)} {name.replace('_', ' ')}" for name, sites in groups.items() if sites)
    return {
        "changed": bool(due),
        **groups,
        "to_do": groups["due"] + groups["under_way"],
        # In check mode a due site has no new key yet that could be asked after.
        "to_bring": ([] if dry else groups["due"]) + groups["under_way"],
        "sites": {site: _brief(turn, epochs=index.get(site, {}), dry=dry) for site, turn in turns.items()},
        "msg": f"keys of {len(turns)} sites: {counts or 'none'}",
        "diff": _difference(before=index, after=store.index(sites=due), due=due),
    }


def _retire(*, fleet: Fleet, store: KeyStore, args: dict[str, t.Any], dry: bool) -> dict[str, t.Any]:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils import rotation  # noqa: PLC0415
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import Seen  # noqa: PLC0415

    index = store.index(sites=args["sites"])
    old = {site: epochs for site in args["sites"] if (epochs := rotation.retirable(index.get(site, {})))}
    if old and not dry:
        with store.operation(f"retire keys of {len(old)} sites", owner=own_run()):
            store.mark(
                seen=[Seen(site=site, epoch=epoch, state="retired") for site, epochs in old.items() for epoch in epochs]
            )
    number = sum(len(epochs) for epochs in old.values())
    return {
        "changed": bool(old),
        "retired": old,
        "denied_key_ids": rotation.denied(store.index(), ending=old),
        "msg": f"{'would retire' if dry else 'retired'} {number} keys of {len(old)} sites of {fleet.plan.name}",
        "diff": {
            "before_header": "keys in use",
            "after_header": "keys in use",
            "before": "".join(f"{rotation.named(site, index[site][epoch])}\n" for site in old for epoch in old[site]),
            "after": "",
        },
    }


def _brief(turn: Turn, *, epochs: t.Mapping[int, t.Mapping[str, t.Any]], dry: bool) -> dict[str, t.Any]:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils import rotation  # noqa: PLC0415

    message = rotation.foretold(turn, epochs=epochs) if dry else turn.why
    return {"ok": True, "changed": turn.kind == "due", "epoch": turn.epoch, "turn": turn.kind, "message": message}


def _difference(
    *,
    before: t.Mapping[str, t.Mapping[int, t.Mapping[str, t.Any]]],
    after: t.Mapping[str, t.Mapping[int, t.Mapping[str, t.Any]]],
    due: t.Sequence[str],
) -> dict[str, str]:
    """Each due site's keys by fingerprint; in check mode the new one has none yet."""
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.rotation import named  # noqa: PLC0415

    def lines(index: t.Mapping[str, t.Mapping[int, t.Mapping[str, t.Any]]]) -> list[str]:
        return [named(site, index[site][newest_of(index[site])]) for site in due if site in index]

    would = [f"{site} epoch {max(before[site]) + 1} (to be made)" for site in due if before[site] == after.get(site)]
    return {
        "before_header": "newest keys",
        "after_header": "newest keys",
        "before": "".join(f"{line}\n" for line in lines(before)),
        "after": "".join(f"{line}\n" for line in would or lines(after)),
    }
