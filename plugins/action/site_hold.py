# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold many sites at once, or release them at a rate."""

from __future__ import annotations

import time
import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.module_utils.basic import missing_required_lib
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.hold import (
    USUAL_RATE,
    Hold,
    read_rate,
    read_span,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.own_run import own_run
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_lock import who

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import Progress
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet

PROGRESS_SECONDS = 3.0

display = Display()


class ActionModule(ActionBase):
    """Entry point of spokewright.fleet.site_hold."""

    _VALID_ARGS = frozenset(("plan", "state", "names", "sites", "time", "reason", "rate"))
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Do it; a site that fails is part of the answer, never a failed task."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            argument_spec={
                "plan": {"type": "path", "required": True},
                "state": {"type": "str", "required": True, "choices": ["held", "released"]},
                "names": {"type": "list", "elements": "str", "required": True},
                "sites": {"type": "list", "elements": "str"},
                "time": {"type": "str", "default": "2h"},
                "reason": {"type": "str", "default": ""},
                "rate": {"type": "str", "default": USUAL_RATE},
            },
        )
        try:
            from ansible_collections.spokewright.fleet.plugins.plugin_utils import brake  # noqa: PLC0415
        except ImportError as exc:
            raise AnsibleActionFail(missing_required_lib(exc.name or "paramiko")) from exc
        if not args["names"]:
            raise AnsibleActionFail("No site is named: -e group=NAME, or -e sites=ID,ID. Nothing was changed.")
        try:
            fleet = load_fleet(plan_file=Path(args["plan"]))
            named = brake.named_sites(fleet=fleet, names=args["names"])
            sites = [site for site in named if args["sites"] is None or site in args["sites"]]
            do = _hold if args["state"] == "held" else _release
            report = do(fleet=fleet, sites=sites, args=args, dry=self._task.check_mode)
        except FleetError as exc:
            raise AnsibleActionFail(str(exc)) from None
        for line in [report["said"], *report.get("next", ())]:
            display.display(f"  {line}")
        result.update(report, msg=report["said"])
        return result


def _hold(*, fleet: Fleet, sites: list[str], args: dict[str, t.Any], dry: bool) -> dict[str, t.Any]:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.brake import Brake, brake_report  # noqa: PLC0415

    hold = Hold(seconds=read_span(args["time"]), by=who(), reason=args["reason"])
    say = _every()

    def on_progress(step: Progress) -> None:
        if not step.last.ok:
            display.warning(step.last.message)
        say(f"hold: {step.done} of {step.total} sites, {step.failed} failed")

    results = Brake(fleet=fleet, verb="hold", hold=hold, dry_run=dry).carry_out(sites=sites, on_progress=on_progress)
    return brake_report(verb="hold", check=dry, results=results, until=hold.until)


def _release(*, fleet: Fleet, sites: list[str], args: dict[str, t.Any], dry: bool) -> dict[str, t.Any]:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.pace import Rules  # noqa: PLC0415
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.release_run import (  # noqa: PLC0415
        Release,
        foretell,
        release_report,
    )

    rate = read_rate(args["rate"])
    if dry:
        return foretell(fleet=fleet, sites=sites, rate=rate)
    run = Release(fleet=fleet, rules=Rules(rate=rate), owner=own_run())
    done = run.carry_out(sites=sites, on_step=lambda counts: display.display(f"  release: {counts.said}"))
    for one in done.results.values():
        if not one.ok:
            display.warning(one.message)
    return release_report(done=done, rate=rate)


def _every() -> Callable[[str], None]:
    """Says how far it is, now and then."""
    due = time.monotonic() + PROGRESS_SECONDS

    def say(text: str) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + PROGRESS_SECONDS
            display.display(f"  {text}")

    return say
