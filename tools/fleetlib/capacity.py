# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `tools/fleet capacity` does: measure the gateways, or say what would be."""

from __future__ import annotations

import json
import sys
import typing as t

from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_answer import Asked, answer, rate
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_file import capacity_file
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_report import capacity_table
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_run import (
    BUSIEST,
    HANDSHAKES,
    MOST_HANDSHAKES,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet

if t.TYPE_CHECKING:
    import argparse


def add(verbs: t.Any, *, common: argparse.ArgumentParser, shape: argparse.ArgumentParser) -> None:
    """`capacity` and its options."""
    capacity = verbs.add_parser(
        "capacity",
        parents=[common, shape],
        help="measure how many sites the gateways carry, beside what they do; or say what would be",
        description="Without --sites, --cores, --link and --recorded it measures on every gateway, one after another: "
        "at the lowest priority, in a network of its own, in bounds of time and memory, with keys made for it.",
    )
    capacity.add_argument("--sites", metavar="N", type=int, help="what if there were so many sites")
    capacity.add_argument("--cores", metavar="N", type=int, help="what if a gateway had so many cores")
    capacity.add_argument("--link", metavar="RATE", help="what if a gateway's link carried so much, as in 10mbit")
    capacity.add_argument("--recorded", action="store_true", help="measure nothing, say what is recorded")
    capacity.add_argument(
        "--write",
        action="store_true",
        help="measure, and record it beside the plan, where the roles take values from (with --link, for that link)",
    )
    capacity.add_argument(
        "--gateway", metavar="NAME", action="append", default=[], help="measure this one only (may be repeated)"
    )
    capacity.add_argument(
        "--handshakes",
        metavar="N",
        type=int,
        default=HANDSHAKES,
        help=f"how many handshakes to measure, {MOST_HANDSHAKES} at most (default: %(default)s)",
    )
    capacity.add_argument(
        "--max-load",
        metavar="LOAD",
        type=float,
        default=BUSIEST,
        help="leave a gateway alone that has more load for each of its cores (default: %(default)s)",
    )
    capacity.set_defaults(run=show_capacity)


def show_capacity(args: argparse.Namespace) -> bool:
    """Answer; true when every gateway was measured that was to be."""
    fleet = load_fleet(plan_file=args.plan_file)
    asked = Asked(
        sites=args.sites,
        cores=args.cores,
        link_mbit=0.0 if args.link is None else rate(args.link),
        gateways=args.gateway,
        handshakes=args.handshakes,
        busiest=args.max_load,
        recorded=args.recorded,
        write=args.write,
    )
    report, written = answer(fleet=fleet, asked=asked, say=lambda text: print(text, file=sys.stderr))
    print(json.dumps(report, indent=2) if args.format == "json" else capacity_table(report))
    if args.write:
        file = capacity_file(fleet.plan_file)
        print(f"{file}: {'written' if written else 'already up to date'}", file=sys.stderr)
    return not report["not_measured"]
