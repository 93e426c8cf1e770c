# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One verb of the delivery engine on many sites at once."""

from __future__ import annotations

import time
import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.module_utils.basic import missing_required_lib
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.spokewright.fleet.plugins.plugin_utils.counts import check_counts
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import not_begun
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.own_run import own_run
from ansible_collections.spokewright.fleet.plugins.plugin_utils.refusal import refusal
from ansible_collections.spokewright.fleet.plugins.plugin_utils.run_report import (
    Circumstances,
    ReportError,
    report,
    write_report,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.site_verbs import VERBS, check_generation

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import Progress, SiteResult
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet

PROGRESS_SECONDS = 3.0
IN_A_WAVE = ("activate", "confirm")

display = Display()


class ActionModule(ActionBase):
    """Entry point of spokewright.fleet.site_generation."""

    _VALID_ARGS = frozenset(("plan", "sites", "verb", "generation", "deadman_seconds", "workers", "report"))
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Do it; a site that fails is part of the answer, never a failed task."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            argument_spec={
                "plan": {"type": "path", "required": True},
                "verb": {"type": "str", "required": True, "choices": list(VERBS)},
                "sites": {"type": "list", "elements": "str"},
                "generation": {"type": "str", "default": ""},
                "deadman_seconds": {"type": "int"},
                "workers": {"type": "int", "default": 32},
                "report": {"type": "path"},
            },
        )
        try:
            from ansible_collections.spokewright.fleet.plugins.plugin_utils import key_store, site_run, store_lock  # noqa: PLC0415
        except ImportError as exc:
            raise AnsibleActionFail(missing_required_lib(exc.name or "paramiko")) from exc
        dry = self._task.check_mode
        began = time.time()
        try:
            check_generation(verb=args["verb"], generation=args["generation"])
            check_counts(workers=args["workers"], deadman_seconds=args["deadman_seconds"])
            fleet = load_fleet(plan_file=Path(args["plan"]))
            store = key_store.open_store(fleet.plan)
            wanted = _wanted(fleet=fleet, asked=args["sites"], task_vars=task_vars or {})
            run = site_run.SiteRun(
                fleet=fleet,
                verb=args["verb"],
                generation=args["generation"],
                deadman_seconds=args["deadman_seconds"] or fleet.plan.policies.deadman_seconds,
                dry_run=dry,
                store=store,
                owner=own_run(),
                texts=self._task.diff,
            )
            try:
                results = run.carry_out(sites=wanted, workers=args["workers"], on_progress=_Reporter(verb=args["verb"]))
            except FleetError as exc:
                if args["verb"] not in IN_A_WAVE:
                    raise
                # A task that fails for all sites at once drops all but one from the play, as if they were well.
                results = {site: not_begun(site, str(exc)) for site in wanted}
            result.update(site_run.summary(results=results, began=run.began))
            result["msg"] = _say(verb=args["verb"], results=results, dry_run=dry)
            keys = store.index(sites=list(results)) if args["report"] and not dry else {}
            if dry:
                _foretell(results=results)
            elif args["report"]:
                circumstances = Circumstances(
                    fleet=fleet.plan.name, verb=args["verb"], began=began, ended=time.time(), by=store_lock.who()
                )
                data = report(circumstances=circumstances, sites=result["sites"], keys=keys)
                try:
                    result["report"] = str(write_report(base=Path(args["report"]), data=data))
                    result["msg"] += f". Report: {result['report']}"
                except ReportError as exc:
                    # The sites still want their verdicts.
                    display.warning(str(exc))
            display.display(f"  {result['msg']}")
            if self._task.diff and args["verb"] == "stage":
                for site in [name for name, one in results.items() if one.changed]:
                    result["sites"][site]["diff"] = run.differences(results={site: results[site]})
        except FleetError as exc:
            raise AnsibleActionFail(str(exc), result=refusal(exc)) from None
        return result


def _foretell(*, results: Mapping[str, SiteResult]) -> None:
    """Say what would be done where, in the order of the names: a play's lists come in any."""
    for site, one in sorted(results.items()):
        if one.changed:
            display.display(f"  {site}: {one.message}")


def _wanted(*, fleet: Fleet, asked: list[str] | None, task_vars: dict[str, t.Any]) -> list[str]:
    names = list(task_vars.get("ansible_play_batch", ())) if asked is None else asked
    known = {site.id for site in fleet.sites}
    strange = [name for name in names if name not in known]
    if strange:
        raise AnsibleActionFail(
            f"{', '.join(strange[:5])}{' and more' if len(strange) > 5 else ''}: not in the registry of "
            f"{fleet.plan.file}. Run this task in a play for sites only, with run_once. If the registry was changed "
            "after this run began, run again."
        )
    return names


def _say(*, verb: str, results: dict[str, SiteResult], dry_run: bool) -> str:
    failed = sum(not one.ok for one in results.values())
    changed = sum(one.changed for one in results.values())
    return (
        f"{verb}: {len(results)} sites, {changed} {'would change' if dry_run else 'changed'}, "
        f"{len(results) - failed - changed} as they should be, {failed} failed"
        if verb != "show"
        else f"show: {len(results)} sites, {failed} failed"
    )


class _Reporter:
    """Says every few seconds how far the fan-out is; a failed site is named at once."""

    def __init__(self, *, verb: str) -> None:
        self._verb = verb
        self._next = time.monotonic() + PROGRESS_SECONDS

    def __call__(self, progress: Progress) -> None:
        if not progress.last.ok:
            display.warning(progress.last.message)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + PROGRESS_SECONDS
            display.display(f"  {self._verb}: {progress.done} of {progress.total} sites, {progress.failed} failed")
