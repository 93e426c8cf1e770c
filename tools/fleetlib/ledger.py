# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `tools/fleet ledger` does."""

from __future__ import annotations

import json
import sys
import typing as t

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import open_store
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import ledger_table

if t.TYPE_CHECKING:
    import argparse

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore


def add(verbs: t.Any, *, common: argparse.ArgumentParser, shape: argparse.ArgumentParser) -> None:
    """The verbs of `ledger`."""
    what = verbs.add_parser("ledger", help="the record of everything done with a key").add_subparsers(
        dest="what", required=True, metavar="WHAT"
    )
    verify = what.add_parser("verify", parents=[common, shape], help="prove that no line was changed, lost or put in")
    verify.set_defaults(run=verify_ledger)
    show = what.add_parser("show", parents=[common, shape], help="print its lines, oldest first")
    show.add_argument("--site", metavar="SITE", help="only the lines about a site")
    show.add_argument("--last", type=int, metavar="N", help="only the last N of them")
    show.set_defaults(run=show_ledger)


def verify_ledger(args: argparse.Namespace) -> bool:
    """Verify the chain; true when it is whole."""
    store = _store(args)
    problems = store.verify()
    count = sum(1 for _entry in store.ledger.entries())
    if args.format == "json":
        print(json.dumps({"whole": not problems, "lines": count, "problems": problems}, indent=2))
        return not problems
    for problem in problems:
        print(problem, file=sys.stderr)
    said = f"NOT whole, {len(problems)} problems" if problems else "whole, and the index says the same"
    print(f"{store.ledger.path}: {count} lines, {said}")
    return not problems


def show_ledger(args: argparse.Namespace) -> bool:
    """Print lines of the ledger."""
    entries = [one for one in _store(args).ledger.entries() if args.site in {None, one.get("site")}]
    if args.last is not None:
        entries = entries[-args.last :] if args.last > 0 else []
    print(json.dumps(entries, indent=2) if args.format == "json" else ledger_table(entries))
    return True


def _store(args: argparse.Namespace) -> KeyStore:
    """A ledger that was never begun is no whole one."""
    store = open_store(load_fleet(plan_file=args.plan_file, require_host_keys=False).plan)
    if not store.path.is_dir():
        raise FleetError(f"there is no key store at {store.path} yet, so there is no ledger. Run playbooks/site.yml.")
    return store
