# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments in, exit status out: 0 all is well, 1 something is not, 2 the input or the call is wrong."""

from __future__ import annotations

import argparse
import configparser
import contextlib
import io
import json
import os
import sys
import typing as t
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from fleetlib import brake, capacity, commands, deliver, hostkeys, keys, keystore, ledger, rollout, simulate, status

if t.TYPE_CHECKING:
    from collections.abc import Sequence

WELL, NOT_WELL, UNUSABLE = 0, 1, 2
# As a shell says it of a program that wrote into a closed pipe.
CUT_SHORT, STOPPED = 141, 130
PLAN_SUFFIXES = (".fleet.yml", ".fleet.yaml")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="tools/fleet", description="Look after a fleet of hub-and-spoke tunnels.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "-i",
        "--inventory",
        metavar="PLAN",
        help="the plan (*.fleet.yml), or a directory with one in it (default: the inventory of ansible.cfg)",
    )
    shape = argparse.ArgumentParser(add_help=False)
    shape.add_argument("--format", choices=["human", "json"], default="human")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    check = verbs.add_parser("check", parents=[common, shape], help="validate registry, plan and lock; touch nothing")
    check.set_defaults(run=commands.check)

    plan = verbs.add_parser("plan", parents=[common, shape], help="where each site goes and why, and what would change")
    plan.add_argument("--write", action="store_true", help="record the allocations in the lock file")
    plan.add_argument(
        "--release", metavar="SITE", action="append", default=[], help="give a removed site's address free again"
    )
    plan.add_argument("--move-sites", action="store_true", help="with --write: sites may go to another instance")
    plan.set_defaults(run=commands.plan)

    status.add(verbs, common=common)

    pair = verbs.add_parser(
        "pair", parents=[common, shape], help="who holds the addresses, and whether the other one could"
    )
    pair.set_defaults(run=commands.pair)

    capacity.add(verbs, common=common, shape=shape)

    pinned = verbs.add_parser("hostkeys", help="the pinned host keys").add_subparsers(
        dest="what", required=True, metavar="WHAT"
    )
    collect = pinned.add_parser(
        "collect", parents=[common], help="fetch missing host keys over the trusted link and show their fingerprints"
    )
    collect.add_argument("--write", action="store_true", help="write the keys that were missing into the registry")
    collect.add_argument("sites", nargs="*", metavar="SITE", help="only these sites (default: all without a key)")
    collect.set_defaults(run=hostkeys.hostkeys_collect)
    pins = pinned.add_parser("known-hosts", parents=[common], help="print the pins as a known_hosts file for ssh")
    pins.set_defaults(run=hostkeys.hostkeys_known_hosts)

    key = keys.add(verbs, common=common, shape=shape)
    deliver.add(key, common=common, shape=shape)
    ledger.add(verbs, common=common, shape=shape)
    keystore.add(verbs, common=common, shape=shape)
    rollout.add(verbs, common=common, shape=shape)
    brake.add(verbs, common=common, shape=shape)
    simulate.add(verbs, common=common, shape=shape)
    return top


def main(argv: Sequence[str]) -> int:
    """Run one command."""
    _prepare_output()
    args = parser().parse_args(argv)
    try:
        args.plan_file = find_plan(args.inventory) if simulate.wants_plan(args) else None
        well = args.run(args)
        # Here, and not at the end of the process, where nobody could say what went wrong.
        sys.stdout.flush()
        return WELL if well else NOT_WELL
    except BrokenPipeError:
        # Who read our output wants no more of it, as `head` does.
        _drop_output()
        return CUT_SHORT
    except FleetError as exc:
        _complain(args=args, text=str(exc))
        return UNUSABLE
    except OSError as exc:
        _complain(args=args, text=f"{exc.filename or 'fleet'}: {exc.strerror or exc}")
        return UNUSABLE
    except KeyboardInterrupt:
        _complain(args=args, text="stopped")
        return STOPPED


def find_plan(given: str | None) -> Path:
    """The plan's path from what was given, else from ansible.cfg.

    Raises:
        FleetError: nothing there, or a directory that does not hold exactly one plan.
    """
    path = Path(given) if given else _default_inventory()
    if path.is_dir():
        plans = sorted(one for one in path.iterdir() if one.name.endswith(PLAN_SUFFIXES))
        if len(plans) != 1:
            found = ", ".join(one.name for one in plans) or "none"
            raise FleetError(f"{path}: expected one *.fleet.yml in this directory, found {found}. Name it with -i.")
        return plans[0].absolute()
    if not path.exists():
        hint = " For the lab, run `tools/lab up` first." if "lab" in path.parts else ""
        raise FleetError(f"{path}: there is no such plan. Name one with -i PATH.{hint}")
    return path.absolute()


def _default_inventory() -> Path:
    named = os.environ.get("ANSIBLE_INVENTORY")
    if named:
        return Path(named)
    root = Path(__file__).resolve().parents[2]
    config = configparser.ConfigParser(interpolation=None)
    config.read(root / "ansible.cfg", encoding="utf-8")
    inventory = config.get("defaults", "inventory", fallback="inventories/lab/lab.fleet.yml")
    return root / inventory


def _complain(*, args: argparse.Namespace, text: str) -> None:
    try:
        if getattr(args, "format", "human") == "json":
            print(json.dumps({"error": text.splitlines()}, indent=2))
        sys.stdout.flush()
    except OSError:
        # It may be the output itself that is full.
        _drop_output()
    print(text, file=sys.stderr)


def _prepare_output() -> None:
    """Closed ones get a place to go, before a file of ours gets their number; odd letters of a text stop nothing."""
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - for good
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """What is left to be written goes nowhere: the process would try again at its end, and complain once more."""
    with contextlib.suppress(OSError):
        place = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.dup2(place, sys.stdout.fileno())
        finally:
            os.close(place)
