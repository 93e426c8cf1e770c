# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `tools/fleet hold` and `release` do: stop the clients of sites in a storm, and let them back in, paced."""

from __future__ import annotations

import argparse
import json
import typing as t

from ansible_collections.spokewright.fleet.plugins.plugin_utils.durations import duration
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import WORKERS, Progress
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.hold import (
    LONGEST,
    USUAL,
    USUAL_RATE,
    Hold,
    HoldError,
    read_rate,
    read_span,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_lock import who
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import delivery_table
from fleetlib import progress

if t.TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.release_run import Counts

HOLD: t.Final = f"""Stops the tunnel client of sites over the out-of-band link, and keeps it stopped, also across a
reboot of the site. The site starts it again by itself when the time is over, whether anybody comes back or not.
A site is held for {duration(USUAL)} unless you say otherwise, and for {duration(LONGEST)} at most; to hold it again
sets a new time. docs/storm-runbook.md says when to do this."""
RELEASE: t.Final = """Lets held sites back in at a rate, one after the other in the plan's order of groups, and watches
the gateways see their tunnels up. It waits when they do not come up, and stops when that does not become better.
Killed at any moment, the same command goes on."""


def add(verbs: t.Any, *, common: argparse.ArgumentParser, shape: argparse.ArgumentParser) -> None:
    """The verbs of the brake."""
    meant = argparse.ArgumentParser(add_help=False)
    meant.add_argument("names", nargs="*", metavar="GROUP|SITE")
    meant.add_argument("--all", action="store_true", help="every site of the registry")
    meant.add_argument("--check", action="store_true", help="only say what would happen")

    hold = verbs.add_parser(
        "hold",
        parents=[common, shape, meant],
        help="the brake: stop the clients of sites for a while",
        description=HOLD,
    )
    hold.add_argument(
        "--for",
        dest="span",
        type=_read(read_span),
        default=USUAL,
        metavar="TIME",
        help=f"as 2h, 90m or 45s (default: {duration(USUAL)}, at most {duration(LONGEST)})",
    )
    hold.add_argument("--reason", default="", help="why; the status shows it")
    hold.set_defaults(run=hold_sites)

    release = verbs.add_parser(
        "release", parents=[common, shape, meant], help="let held sites back in, at a rate", description=RELEASE
    )
    release.add_argument(
        "--rate",
        type=_read(read_rate),
        default=read_rate(USUAL_RATE),
        metavar="RATE",
        help=f"as 20/min, 2/s or 600/h (default: {USUAL_RATE})",
    )
    release.set_defaults(run=release_sites)


def hold_sites(args: argparse.Namespace) -> bool:
    """Stop them; true when every one that was named is held."""
    # The SSH library is slow to import, and most commands need none.
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.brake import (  # noqa: PLC0415
        Brake,
        brake_report,
        named_sites,
    )

    fleet = load_fleet(plan_file=args.plan_file)
    sites = named_sites(fleet=fleet, names=args.names, everybody=args.all)
    hold = Hold(seconds=args.span, by=who(), reason=args.reason)
    shown = progress.Progress(what="hold")

    def say(step: Progress) -> None:
        shown(step.done, step.total, f" sites, {step.failed} failed")

    try:
        results = Brake(fleet=fleet, verb="hold", hold=hold, dry_run=args.check).carry_out(
            sites=sites, workers=WORKERS, on_progress=say
        )
    finally:
        shown.end()
    return _print(args, brake_report(verb="hold", check=args.check, results=results, until=hold.until))


def release_sites(args: argparse.Namespace) -> bool:
    """Let them back in; true when every one that was named is no longer held, and those it released are up."""
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.brake import named_sites  # noqa: PLC0415
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.pace import Rules  # noqa: PLC0415
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.release_run import (  # noqa: PLC0415
        Release,
        foretell,
        release_report,
    )

    fleet = load_fleet(plan_file=args.plan_file)
    sites = named_sites(fleet=fleet, names=args.names, everybody=args.all)
    if args.check:
        return _print(args, foretell(fleet=fleet, sites=sites, rate=args.rate))
    shown = progress.Progress(what="release")

    def on_step(counts: Counts) -> None:
        shown(counts.released, counts.released + counts.waiting, f" sites: {counts.said}")

    try:
        done = Release(fleet=fleet, rules=Rules(rate=args.rate)).carry_out(sites=sites, on_step=on_step)
    finally:
        shown.end()
    return _print(args, release_report(done=done, rate=args.rate))


def _print(args: argparse.Namespace, report: t.Mapping[str, t.Any]) -> bool:
    if args.format == "json":
        print(json.dumps(report, indent=2))
    else:
        print("\n".join([delivery_table(report), *_lines(report)]))
    return not report["failed_sites"]


def _lines(report: t.Mapping[str, t.Any]) -> Sequence[str]:
    """Whom it would touch, until when, and what to do next."""
    lines = []
    if report["check"]:
        lines += [f"{site}: {one['message']}" for site, one in report["sites"].items() if one["changed"]]
    elif report.get("until") and report["ok_sites"]:
        lines.append(f"A site that was held now starts its client again by itself at {report['until']}.")
    return [*lines, *report.get("next", ())]


def _read(reader: Callable[[str], t.Any]) -> Callable[[str], t.Any]:
    """As argparse wants to be told of a mistake."""

    def read(text: str) -> t.Any:
        try:
            return reader(text)
        except HoldError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from None

    return read
