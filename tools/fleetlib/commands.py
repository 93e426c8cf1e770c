# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each verb of tools/fleet does: call the core, print its answer."""

from __future__ import annotations

import json
import sys
import typing as t

from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_report import look_at_pair, pair_report, pair_table
from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan_view import plan_report, record, refuse_moves
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import plan_table

if t.TYPE_CHECKING:
    import argparse

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet


def _print(args: argparse.Namespace, data: t.Mapping[str, t.Any], human: str) -> None:
    print(json.dumps(data, indent=2) if args.format == "json" else human)


def _first_lock(fleet: Fleet) -> str:
    """What an operator must not overlook: without a lock every site starts anew."""
    if fleet.lock_on_disk is not None:
        return ""
    return f"\nthere is no lock file yet: all {len(fleet.sites)} sites get their first address"


def check(args: argparse.Namespace) -> bool:
    """Validate everything that can be validated without touching a host."""
    fleet = load_fleet(plan_file=args.plan_file)
    fleet.refuse_bad_capacity()
    pending = len(fleet.changes)
    data = {
        "fleet": fleet.plan.name,
        "valid": True,
        "sites": len(fleet.sites),
        "gateways": [gateway.name for gateway in fleet.plan.gateways],
        "instances": len(fleet.instances),
        "pending_changes": pending,
        "lock_exists": fleet.lock_on_disk is not None,
    }
    human = (
        f"{args.plan_file}: valid. {len(fleet.sites)} sites in {len(fleet.plan.groups)} groups, "
        f"{len(fleet.instances)} tunnel instances on {' and '.join(gateway.name for gateway in fleet.plan.gateways)}."
    )
    if pending:
        human += f"\n{pending} changes are not in the lock file yet: see `tools/fleet plan`."
    _print(args, data, human + _first_lock(fleet))
    return True


def plan(args: argparse.Namespace) -> bool:
    """Show where each site goes, and record it when told to."""
    fleet = load_fleet(plan_file=args.plan_file, release_sites=args.release)
    said = ""
    if args.write:
        # Before anything is printed: with --format json a refusal would be a second document.
        if not args.move_sites:
            refuse_moves(fleet=fleet, consent="add --move-sites")
        said = f"{fleet.plan.lock}: {'written' if record(fleet=fleet) else 'already up to date'}"
    data = {**plan_report(fleet=fleet), "lock_exists": fleet.lock_on_disk is not None}
    _print(args, data, plan_table(data) + _first_lock(fleet))
    if said:
        print(said, file=sys.stderr)
    return True


def pair(args: argparse.Namespace) -> bool:
    """Look at the gateway pair; true only when nothing at all is wrong with it."""
    fleet = load_fleet(plan_file=args.plan_file)
    data = pair_report(fleet=fleet, pair=look_at_pair(fleet=fleet))
    _print(args, data, pair_table(data))
    return bool(data["well"])
