# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `tools/fleet status` does: a look at the fleet, once or again and again, for people and for programs."""

from __future__ import annotations

import argparse
import json
import typing as t
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import write_atomic
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.prometheus import exposition
from ansible_collections.spokewright.fleet.plugins.plugin_utils.status import look_at_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import status_table
from fleetlib.watch import watch

if t.TYPE_CHECKING:
    Report = dict[str, t.Any]

EVERY_SECONDS: t.Final = 5.0
LEAST_SECONDS: t.Final = 1.0
# Prometheus' collector of text files runs as somebody else.
MODE: t.Final = 0o644


def add(verbs: t.Any, *, common: argparse.ArgumentParser) -> None:
    """`status` and its options."""
    status = verbs.add_parser("status", parents=[common], help="ask both gateways for a verdict on each site")
    status.add_argument("--format", choices=["human", "json", "prometheus"], default="human")
    status.add_argument(
        "--group", metavar="NAME", action="append", default=[], help="only the sites of this group (may be repeated)"
    )
    status.add_argument(
        "--oob",
        action="store_true",
        help="ask every site over its out-of-band link as well; one that is down is not well",
    )
    status.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=_seconds,
        const=EVERY_SECONDS,
        help="look again every so many seconds (default: %(const)g) until Ctrl-C; the exit status is the last look's",
    )
    status.add_argument(
        "--output", metavar="FILE", type=Path, help="write it into a file, which is replaced as a whole"
    )
    status.set_defaults(run=show_status)


def show_status(args: argparse.Namespace) -> bool:
    """Look; true only when every site is up and the pair is as planned.

    Raises:
        FleetError: the options do not go together, or the file cannot be written.
    """
    if args.output is not None and args.output.exists() and not args.output.is_file():
        # A rename would put a file in the place of, say, /dev/null.
        raise FleetError(f"{args.output}: is no file. Name the file to write.")
    if args.watch and args.format != "human" and args.output is None:
        raise FleetError(
            f"--watch with --format {args.format}: would print one document after the other. Add --output FILE, which "
            "always holds the newest one."
        )
    fleet = load_fleet(plan_file=args.plan_file)

    def look() -> Report:
        report = look_at_fleet(fleet=fleet, groups=args.group, oob=args.oob)
        if args.output is not None:
            write_atomic(args.output, _text(report, shape=args.format).encode(), MODE)
        return report

    if args.watch:
        return watch(look=look, seconds=args.watch)
    report = look()
    if args.output is None:
        print(_text(report, shape=args.format), end="")
    return bool(report["summary"]["well"])


def _text(report: Report, *, shape: str) -> str:
    if shape == "prometheus":
        return exposition(report)
    return (json.dumps(report, indent=2) if shape == "json" else status_table(report)) + "\n"


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not LEAST_SECONDS <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds, {LEAST_SECONDS:g} or more")
    return seconds
