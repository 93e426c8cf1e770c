# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `tools/fleet rollout` does: plan a rollout, look at it, and have it wait, go on, or given up."""

from __future__ import annotations

import argparse
import dataclasses
import json
import typing as t

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet, shown_path
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import open_store
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_files import (
    RolloutFiles,
    new_id,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_lines import Approval
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_plan import Asked, make_plan, plan_data
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_report import rollout_text
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_run import book_in, named_sites, plan_of
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_tables import plan_table, rollouts_table
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_view import rollout_data
from ansible_collections.spokewright.fleet.plugins.plugin_utils.run_report import ReportError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_lock import who
from ansible_collections.spokewright.fleet.plugins.plugin_utils.wave_plan import WHATS, read_share, wave_plan_text
from ansible_collections.spokewright.fleet.plugins.plugin_utils.waves import FAILED, UNREACHABLE, Share
from fleetlib import progress

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import Progress
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout import Rollout


def add(verbs: t.Any, *, common: argparse.ArgumentParser, shape: argparse.ArgumentParser) -> None:
    """The verbs of `rollout`."""
    what = verbs.add_parser(
        "rollout", help="staged rollouts: plan, show, pause, resume, approve, abort"
    ).add_subparsers(dest="what", required=True, metavar="WHAT")
    plan = what.add_parser(
        "plan", parents=[common, shape], help="write the plan of a rollout, and say what it would touch"
    )
    plan.add_argument("--id", help="its name (default: the time and what it brings)")
    plan.add_argument("--what", dest="brings", choices=WHATS, default="configuration", help="default: configuration")
    plan.add_argument("--reason", default="", help="why; new keys want one")
    plan.add_argument(
        "--group", action="append", metavar="NAME", help="only these site groups (default: all of the plan)"
    )
    plan.add_argument("--exclude", action="append", default=[], metavar="SITE", help="leave this site out")
    plan.add_argument("--canary", type=int, default=0, metavar="N", help="begin with so many sites of the first group")
    plan.add_argument("--limit", type=int, default=0, metavar="N", help="at most so many sites in a wave")
    plan.add_argument("--soak", type=int, default=0, metavar="SECONDS", help="how long a wave has to stay well")
    plan.add_argument("--success", type=int, default=0, metavar="PERCENT", help="how many of a wave have to be well")
    plan.add_argument("--approval", action="store_true", help="every wave but the first wants an approval")
    plan.add_argument(
        "--failed", type=_share, default=FAILED, metavar="N", help="so many sites, or N%%, may fail (default: 0)"
    )
    plan.add_argument(
        "--unreachable",
        type=_share,
        default=UNREACHABLE,
        metavar="N",
        help="so many, or N%%, may be away (default: 20%%)",
    )
    plan.add_argument("--check", action="store_true", help="write nothing")
    plan.set_defaults(run=plan_rollout)
    show = what.add_parser("show", parents=[common, shape], help="how a rollout stands; without an id, all of them")
    show.add_argument("id", nargs="?", metavar="ID")
    show.set_defaults(run=show_rollout)
    for name, run, said in (
        ("pause", pause, "let no further wave begin"),
        ("resume", resume, "take the pause back"),
        ("abort", abort_rollout, "give it up: every site is left on what it has confirmed"),
    ):
        verb = what.add_parser(name, parents=[common, shape], help=said)
        verb.add_argument("id", metavar="ID")
        verb.set_defaults(run=run)
    approve = what.add_parser("approve", parents=[common, shape], help="say that waves may begin")
    approve.add_argument("id", metavar="ID")
    approve.add_argument("waves", nargs="+", metavar="WAVE", help="as `show` names it")
    approve.set_defaults(run=approve_waves)


def plan_rollout(args: argparse.Namespace) -> bool:
    """Write a plan, unless asked only to look."""
    fleet = load_fleet(plan_file=args.plan_file)
    files, rollout = RolloutFiles(fleet), args.id or new_id(args.brings)
    plan = make_plan(
        fleet=fleet,
        asked=Asked(
            what=args.brings,
            reason=args.reason,
            groups=tuple(args.group or fleet.plan.groups),
            exclude=tuple(args.exclude),
            canary=args.canary,
            limit=args.limit,
            soak_seconds=args.soak,
            success_percent=args.success,
            approval=args.approval,
            failed=args.failed,
            unreachable=args.unreachable,
        ),
    )
    written = "" if args.check else shown_path(files.write_plan(rollout, wave_plan_text(plan=plan, rollout=rollout)))
    data = {**plan_data(plan=plan, fleet=fleet, rollout=rollout), "file": written}
    run = f"ansible-playbook playbooks/rollout.yml -e rollout={rollout}"
    after = (
        f"\n\n{written}: written. Change it as you like, look with --check --diff, then run it:\n  {run}"
        if written
        else ""
    )
    _print(args, data, plan_table(data) + after)
    return True


def show_rollout(args: argparse.Namespace) -> bool:
    """Show one or all; true unless one that is shown was held up or has sites that failed."""
    fleet = load_fleet(plan_file=args.plan_file)
    files = RolloutFiles(fleet)
    if args.id is None:
        found = [(name, files.read(name)) for name in files.ids()]
        rows = [
            {"rollout": name, "planned_only": True}
            if record is None
            else {**_data(fleet, files, record), "planned_only": False}
            for name, record in found
        ]
        _print(args, {"rollouts": rows}, rollouts_table(rows))
        return True
    record = files.read(args.id)
    if record is None and files.plan_text(args.id) is not None:
        plan = _planned(fleet, args.id)
        _print(args, plan, plan_table(plan))
        return True
    data = _data(fleet, files, _begun(files, args.id))
    _print(args, data, rollout_text(data))
    return not data["exit_code"]


def pause(args: argparse.Namespace) -> bool:
    """No further wave begins; the one at work ends as it would."""
    files = _files(args)
    files.say(args.id, lambda control: dataclasses.replace(control, paused_by=control.paused_by or who()))
    said = f"rollout {args.id}: paused. A wave that is at work ends with its gate; no other begins."
    try:
        _book(args, "rollout-pause-asked")
    except FleetError as exc:
        # Who wants it to stop must not have to mend the key store first.
        said += f" That is not in the ledger: {exc}"
    _say(args, said)
    return True


def resume(args: argparse.Namespace) -> bool:
    """The next run goes on."""
    files = _files(args)
    _book(args, "rollout-resumed")
    files.say(args.id, lambda control: dataclasses.replace(control, paused_by=""))
    _say(
        args, f"rollout {args.id}: no longer paused. Go on: ansible-playbook playbooks/rollout.yml -e rollout={args.id}"
    )
    return True


def approve_waves(args: argparse.Namespace) -> bool:
    """Say that waves may begin, with the sites that they have now."""
    files = _files(args)
    record = files.read(args.id)
    known: dict[str, list[str]] = (
        {wave.name: wave.sites for wave in record.waves}
        if record is not None
        else {wave["name"]: wave["sites"] for wave in _planned(load_fleet(plan_file=args.plan_file), args.id)["waves"]}
    )
    strange = [wave for wave in args.waves if wave not in known]
    if strange:
        raise FleetError(f"rollout {args.id} has no wave {', '.join(strange)}. It has: {', '.join(known)}.")
    for wave in args.waves:
        for line in named_sites(wave, known[wave]):
            _book(args, "rollout-approved", line)
    approved = {wave: Approval(by=who(), sites=tuple(known[wave])) for wave in args.waves}
    files.say(args.id, lambda control: dataclasses.replace(control, approved={**control.approved, **approved}))
    said = ", ".join(
        f"{wave} ({len(one.sites)} site{'' if len(one.sites) == 1 else 's'})" for wave, one in approved.items()
    )
    _say(args, f"rollout {args.id}: approved {said}. Who comes to a wave later wants another approval.")
    return True


def abort_rollout(args: argparse.Namespace) -> bool:
    """Give it up; true when every site could be asked."""
    # The SSH library is slow to import, and the other verbs need none.
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_abort import abort  # noqa: PLC0415
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_step import report_of  # noqa: PLC0415

    fleet = load_fleet(plan_file=args.plan_file)
    files, store = RolloutFiles(fleet), open_store(fleet.plan)
    record = _begun(files, args.id)
    claim = files.claim()
    if claim is not None and claim.rollout == args.id and claim.process.lives:
        raise FleetError(
            f"rollout {claim.said} is at work. Let it stop after its wave (tools/fleet rollout pause {args.id}), or "
            "end that run; then abort it. Nothing was changed."
        )
    # First of all nobody goes on with it, whatever becomes of this.
    files.say(args.id, lambda control: dataclasses.replace(control, aborted_by=who()))
    _book(args, "rollout-abort-asked")
    shown = progress.Progress(what="abort")

    def say(verb: str, step: Progress) -> None:
        shown(step.done, step.total, f" sites: {verb}, {step.failed} failed")

    try:
        found = abort(fleet=fleet, store=store, record=record, by=who(), on_progress=say)
    finally:
        shown.end()
    left = f", {len(found.left)} could not be asked" if found.left else ""
    kept = f"{len(found.kept_new)} keep the new, {len(found.went_back)} went back, {len(found.untouched)} not changed"
    book_in(store)(args.id, "rollout-aborted", kept + left)
    files.write(record)
    try:
        shown_report = f"Report: {shown_path(report_of(fleet=fleet, store=store, files=files, record=record))}"
    except ReportError as exc:
        shown_report = str(exc)
    summary = (
        f"rollout {args.id}: aborted. {len(found.kept_new)} sites keep the new generation, which they have confirmed; "
        f"{len(found.went_back)} went back; {len(found.untouched)} run what they ran."
    )
    lines = [
        summary,
        *([f"{len(found.keys_ended)} new keys that no site works with have ended."] if found.keys_ended else []),
        *(f"{site}: could not be asked, and was left as it is: {why}" for site, why in found.left.items()),
        *(["When they can be reached, abort once more."] if found.left else []),
        shown_report,
    ]
    _print(args, dataclasses.asdict(found), "\n".join(lines))
    return not found.left


def _share(text: str) -> Share:
    share = read_share(text)
    if share is None:
        raise argparse.ArgumentTypeError(f"{text} is no number of sites: write a number, as 3, or a percentage, as 10%")
    return share


def _files(args: argparse.Namespace) -> RolloutFiles:
    files = RolloutFiles(load_fleet(plan_file=args.plan_file))
    if files.read(args.id) is None and files.plan_text(args.id) is None:
        raise files.unknown(args.id)
    return files


def _book(args: argparse.Namespace, event: str, why: str = "") -> None:
    book_in(open_store(load_fleet(plan_file=args.plan_file).plan))(args.id, event, why)


def _begun(files: RolloutFiles, rollout: str) -> Rollout:
    record = files.read(rollout)
    if record is None:
        if files.plan_text(rollout) is not None:
            raise FleetError(f"rollout {rollout} was planned and never begun: there is nothing to give up.")
        raise files.unknown(rollout)
    return record


def _planned(fleet: Fleet, rollout: str) -> dict[str, t.Any]:
    plan = plan_of(fleet=fleet, files=RolloutFiles(fleet), rollout=rollout)
    return plan_data(plan=plan, fleet=fleet, rollout=rollout)


def _data(fleet: Fleet, files: RolloutFiles, record: Rollout) -> dict[str, t.Any]:
    keys = open_store(fleet.plan).index(sites=list(record.sites))
    return rollout_data(record=record, control=files.control(record.rollout), keys=keys)


def _print(args: argparse.Namespace, data: t.Mapping[str, t.Any], human: str) -> None:
    print(json.dumps(data, indent=2) if args.format == "json" else human)


def _say(args: argparse.Namespace, text: str) -> None:
    if args.format == "json":
        print(json.dumps({"rollout": args.id, "said": text}, indent=2))
    else:
        print(text)
