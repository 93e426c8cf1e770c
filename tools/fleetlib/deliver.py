# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `tools/fleet key status|stage|activate|confirm|revert|forget` do: the delivery engine without Ansible."""

from __future__ import annotations

import argparse
import json
import typing as t

from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import WORKERS, Progress
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import open_store
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import delivery_table
from fleetlib import progress
from fleetlib.asked import asked_sites

VERBS: t.Final = {
    "status": "what each site holds and runs, asked over its out-of-band link",
    "stage": "put each site's newest bundle beside what it runs",
    "activate": "let sites run on the staged bundle, on probation",
    "confirm": "keep what sites run on probation",
    "revert": "take sites back to the generation confirmed before",
    "forget": "remove an old generation from sites",
}
MORE: t.Final = {
    "status": "Looks and changes nothing.",
    "stage": "Sends a site its bundle unless it has it. What runs there is not touched.",
    "activate": """Flips the site to the staged bundle and restarts its client, with a dead-man timer armed: a site that
is not confirmed in time goes back by itself. Look at the tunnel (`tools/fleet status`), then confirm.
playbooks/sites.yml does all of this in waves with a gate; this verb is for a site you are looking at.""",
    "confirm": """Disarms the dead-man timer and makes the active bundle the one a site goes back to. Only after you
have seen the tunnel up: nothing here looks at it for you.""",
    "revert": """Leaves the active generation for the one confirmed before it, and restarts the client. For a bundle
that turned out to be bad after it was confirmed, or when you do not want to wait for the dead-man timer.""",
    "forget": "Removes a generation from a site's disk. The current, the confirmed and a pending one are refused.",
}
DEADMAN_VERBS: t.Final = ("activate",)


def add(what: t.Any, *, common: argparse.ArgumentParser, shape: argparse.ArgumentParser) -> None:
    """The verbs that reach the sites."""
    for name, said in VERBS.items():
        verb = what.add_parser(name, parents=[common, shape], help=said, description=MORE[name])
        verb.add_argument("sites", nargs="*", metavar="SITE")
        verb.add_argument("--group", help="the sites of a group")
        verb.add_argument("--all", action="store_true", help="every site of the registry")
        verb.add_argument("--workers", type=_count, default=WORKERS, metavar="N", help=f"at once (default: {WORKERS})")
        if name != "status":
            verb.add_argument("--check", action="store_true", help="only say what would happen")
        if name in DEADMAN_VERBS:
            verb.add_argument(
                "--deadman-seconds", type=_count, metavar="N", help="time to confirm (default: the plan's)"
            )
        if name == "revert":
            verb.add_argument("--generation", metavar="N", help="leave this one (default: the current one)")
        if name == "forget":
            which = verb.add_mutually_exclusive_group(required=True)
            which.add_argument("--generation", metavar="N", help="the one of this number or digest")
            which.add_argument("--epoch", type=_count, metavar="N", help="those with the key of this epoch")
            which.add_argument("--old", action="store_true", help="all that nothing needs any more")
        verb.set_defaults(run=deliver, check=False, deadman_seconds=None, generation=None, epoch=None)


def deliver(args: argparse.Namespace) -> bool:
    """Carry one verb out; true when no site failed."""
    # The SSH library is slow to import, and most commands need none.
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.site_run import (  # noqa: PLC0415
        SiteRun,
        summary,
    )

    fleet = load_fleet(plan_file=args.plan_file)
    sites = asked_sites(fleet=fleet, sites=args.sites, group=args.group, everybody=args.all)
    run = SiteRun(
        fleet=fleet,
        verb="show" if args.what == "status" else args.what,
        deadman_seconds=args.deadman_seconds or fleet.plan.policies.deadman_seconds,
        dry_run=args.check,
        store=open_store(fleet.plan),
        # Without any, `forget` means all old ones.
        generation=f"epoch {args.epoch}" if args.epoch else args.generation or "",
    )
    shown = progress.Progress(what=args.what)

    def say(step: Progress) -> None:
        if not step.last.ok and args.format == "json":
            shown.note(step.last.message)
        shown(step.done, step.total, f" sites, {step.failed} failed")

    try:
        results = run.carry_out(sites=sites, workers=args.workers, on_progress=say)
    finally:
        shown.end()
    report = {"verb": args.what, "check": args.check, **summary(results=results, began=run.began)}
    report["said"] = _said(report)
    print(json.dumps(report, indent=2) if args.format == "json" else delivery_table(report))
    return not report["failed_sites"]


def _said(report: t.Mapping[str, t.Any]) -> str:
    sites, failed = report["sites"], len(report["failed_sites"])
    changed = sum(bool(one["changed"]) for one in sites.values())
    head = f"{report['verb']}: {len(sites)} sites"
    if report["verb"] == "status":
        return f"{head}, {failed} failed"
    word = "would change" if report["check"] else "changed"
    return f"{head}, {changed} {word}, {len(sites) - failed - changed} as they should be, {failed} failed"


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of 1 or more")
    return int(text)
