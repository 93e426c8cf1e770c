# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `tools/fleet keystore` does: look after the directory of all keys."""

from __future__ import annotations

import json
import sys
import typing as t
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.plugin_utils import rekey_record
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import open_store
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_backup import back_up, restore
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_check import check_store
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_rekey import rekey
from fleetlib.progress import Progress

if t.TYPE_CHECKING:
    import argparse

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Plan


def add(verbs: t.Any, *, common: argparse.ArgumentParser, shape: argparse.ArgumentParser) -> None:
    """The verbs of `keystore`."""
    what = verbs.add_parser(
        "keystore", help="the directory of all keys: check, back up, restore, lock anew"
    ).add_subparsers(dest="what", required=True, metavar="WHAT")
    check = what.add_parser("check", parents=[common, shape], help="open and prove every key; touch nothing")
    check.set_defaults(run=check_keystore)

    backup = what.add_parser(
        "backup",
        parents=[common],
        help="write the encrypted store into one file",
        description="The file never holds the store's own key, without which it is of no use: keep that apart from it.",
    )
    backup.add_argument("file", metavar="FILE", help="a new file; a backup never replaces another")
    backup.set_defaults(run=back_up_keystore)

    back = what.add_parser(
        "restore",
        parents=[common],
        help="put a backup in place",
        description="Everything is unpacked beside its place, proven whole and opened with the store's own key first.",
    )
    back.add_argument("file", metavar="FILE", help="what `keystore backup` wrote")
    back.add_argument("--to", metavar="DIR", help="another directory than the plan's key_store")
    back.set_defaults(run=restore_keystore)

    anew = what.add_parser(
        "rekey",
        parents=[common],
        help="lock the store with a new key of its own",
        description="Encrypts every file with a new key. Stopped at any moment and run again, it finishes. Sites and "
        "gateways notice nothing: their keys stay as they are.",
    )
    anew.add_argument(
        "--to",
        metavar="FILE",
        help="a key file (made when it is not there) or a vault password program, as in ansible-vault "
        "(default: a new random key in the place of the old one)",
    )
    anew.set_defaults(run=rekey_keystore)


def check_keystore(args: argparse.Namespace) -> bool:
    """Look at everything; true when nothing is wrong."""
    plan = _plan(args)
    progress = Progress(what="sites")
    try:
        found = check_store(store=open_store(plan), on_progress=progress)
    finally:
        progress.end()
    if args.format == "json":
        facts = {"sites": found.sites, "keys": found.keys, "crl_days_left": found.crl_days_left}
        print(json.dumps({"store": str(plan.key_store), "problems": found.problems, **facts}, indent=2))
        return not found.problems
    for problem in found.problems:
        print(problem, file=sys.stderr)
    if found.fatal:
        print(f"{plan.key_store}: no key can be used")
    else:
        said = f"{len(found.problems)} problems" if found.problems else "all well"
        print(
            f"{plan.key_store}: {found.keys} keys of {found.sites} sites opened and proven, the revocation list lives "
            f"for {found.crl_days_left} more days; {said}"
        )
    return not found.problems


def back_up_keystore(args: argparse.Namespace) -> bool:
    """Write a backup."""
    plan = _plan(args)
    progress = Progress(what="files")
    try:
        made = back_up(store=open_store(plan), target=Path(args.file), on_progress=progress)
    finally:
        progress.end()
    print(f"{made.path}: {made.files} files, {made.size} bytes, written, read back and found right.")
    print(
        f"The store's own key is not in it: {plan.key_store_key}. Without that key the backup cannot be opened; keep a "
        "copy of it in another place than the backup."
    )
    return True


def restore_keystore(args: argparse.Namespace) -> bool:
    """Put a backup in place; false when it is in place but not all of it is well."""
    plan = _plan(args)
    to = Path(args.to) if args.to else plan.key_store
    progress = Progress(what="sites")
    try:
        found, problems = restore(source=Path(args.file), to=to, key=plan.key_store_key, on_progress=progress)
    finally:
        progress.end()
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{to}: {found.files} files as they were at {found.made}, opened with {plan.key_store_key} and in place.")
    print(
        "Keys made since then are not in it. Sites that were given one keep it: look at `tools/fleet key status`, then "
        "deliver."
    )
    if to.absolute() != plan.key_store.absolute():
        print(f"The plan names another key store, {plan.key_store}. Say key_store: {to} there to use this one.")
    return not problems


def rekey_keystore(args: argparse.Namespace) -> bool:
    """Lock the store with another key."""
    plan = _plan(args)
    progress: dict[str, Progress] = {}

    def say(step: str, done: int, total: int) -> None:
        if step not in progress:
            for one in progress.values():
                one.end()
            progress[step] = Progress(what=step)
        progress[step](done, total, " files")

    try:
        done = rekey(store=open_store(plan), to=Path(args.to) if args.to else None, on_progress=say)
    except KeyboardInterrupt:
        if rekey_record.read(plan.key_store) is not None:
            print("Half done: until it is run again and ends, both keys are needed.", file=sys.stderr)
        raise
    finally:
        for one in progress.values():
            one.end()
    print(f"{plan.key_store}: {done.files} files open with {done.key} and with no other key.")
    print(f"Keep a copy of {done.key} apart from the store, and make a new backup.")
    print(f"Backups made before open only with the former key, which stays as {done.kept}.")
    if done.key.absolute() != plan.key_store_key.absolute():
        print(f"Before anything else, say in {plan.file}:\n    key_store_key: {done.key}")
    return True


def _plan(args: argparse.Namespace) -> Plan:
    return load_fleet(plan_file=args.plan_file, require_host_keys=False).plan
