# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A planned switchover: look, move, look again, perhaps move back; and a verdict on the whole."""

from __future__ import annotations

import json
import time
import typing as t
from dataclasses import asdict, dataclass

from ansible_collections.spokewright.fleet.plugins.module_utils.verdict import UP
from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import sync_directory, write_atomic
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_move import Moved, limit_of, move
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_problem import FORBID_MOVE, Weight, said
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_report import look_at_pair
from ansible_collections.spokewright.fleet.plugins.plugin_utils.run_report import iso, point_latest
from ansible_collections.spokewright.fleet.plugins.plugin_utils.status import judge_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import table

if t.TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair import Pair

PAUSE: t.Final = 1.0
SOME_MISSING: t.Final = 0.05
NAMED: t.Final = 5


class SwitchoverError(FleetError):
    """The addresses are not to be moved now. Nothing was changed."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at the whole: who holds the addresses, which sites are up through it, what is wrong."""

    owner: str
    standby: str
    up: tuple[str, ...]
    problems: tuple[str, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked for.

    ``back``: move back when all went well. ``undo``: move back when too many sites did not come. ``worst``: how long a
    site may be away; 0 sets no limit. ``forbid``: which problems are faults.
    """

    back: bool = False
    undo: bool = False
    worst: float = 0.0
    forbid: tuple[Weight, ...] = FORBID_MOVE
    began: float = 0.0


def look(*, fleet: Fleet, forbid: Sequence[Weight] = FORBID_MOVE) -> Look:
    """Look at the pair and the sites at once."""
    return summary(fleet=fleet, pair=look_at_pair(fleet=fleet), forbid=forbid)


def summary(*, fleet: Fleet, pair: Pair, forbid: Sequence[Weight] = FORBID_MOVE) -> Look:
    """A look in few words."""
    verdicts = judge_fleet(fleet=fleet, evidence=pair.evidence, sightings={})
    return Look(
        owner=pair.owner,
        standby=pair.standby,
        up=tuple(site for site, one in verdicts.items() if one.verdict == UP),
        problems=tuple(said(pair.problems, *forbid)),
        notices=tuple(one.text for one in pair.problems if one.weight not in forbid),
    )


def destination(*, fleet: Fleet, before: Look, to: str) -> str:
    """Who is to hold the addresses; empty when it does already.

    Raises:
        SwitchoverError: no such gateway, or the pair is not fit for a planned move.
    """
    names = [gateway.name for gateway in fleet.plan.gateways]
    if to and to not in names:
        raise SwitchoverError(f"to={to}: the plan {fleet.plan.file} has no such gateway, only {' and '.join(names)}.")
    if to and to == before.owner:
        return ""
    if before.problems or not before.standby:
        told = "".join(f"\n- {one}" for one in before.problems)
        raise SwitchoverError(
            f"The pair is not fit for a planned move, so nothing is moved:{told}\nMend that first; "
            "`tools/fleet pair` tells the same, and docs/pair-runbook.md what to do about it."
        )
    return before.standby


def switch_over(*, fleet: Fleet, before: Look, after: str, wish: Wish, say: Callable[[str], None]) -> dict[str, t.Any]:
    """Move, look, and move back if that is wished. Returns the report.

    Raises:
        MoveError: the addresses did not move; nothing after that was tried.
    """
    steps: list[Moved] = []
    looks = [before]

    def step(owner: str, other: str) -> None:
        say(f"{owner} gives the addresses to {other}; {len(looks[-1].up)} sites are watched")
        addresses = {site.id: site.tunnel_address for site in fleet.sites if site.id in looks[-1].up}
        steps.append(move(fleet=fleet, before=owner, after=other, sites=addresses))
        looks.append(settled(fleet=fleet, owner=other, up=before.up, forbid=wish.forbid))

    step(before.owner, after)
    undone = wish.undo and too_many_lost(before=before, after=looks[-1])
    bearable = SOME_MISSING if wish.undo else 0.0
    faults = verdict(looks=looks, moves=steps, worst=wish.worst, bearable=bearable)
    if undone or (wish.back and not faults):
        step(after, before.owner)
        faults += verdict(looks=[before, looks[-1]], moves=steps[1:], worst=wish.worst)
    if undone:
        faults.append(f"so the addresses are back at {looks[-1].owner or 'nobody'}")
    return report(fleet=fleet, looks=looks, moves=steps, wish=wish, faults=faults)


def too_many_lost(*, before: Look, after: Look) -> bool:
    """Whether more sites are missing than chance explains: one in twenty."""
    missing = set(before.up) - set(after.up)
    return len(missing) > SOME_MISSING * len(before.up)


def settled(*, fleet: Fleet, owner: str, up: Sequence[str], forbid: Sequence[Weight] = FORBID_MOVE) -> Look:
    """Look until all is as it was, with another owner; the last look in any case."""
    deadline = time.monotonic() + limit_of(fleet)
    while True:
        found = look(fleet=fleet, forbid=forbid)
        well = found.owner == owner and not found.problems and set(up) <= set(found.up)
        if well or time.monotonic() > deadline:
            return found
        time.sleep(PAUSE)


def verdict(*, looks: Sequence[Look], moves: Sequence[Moved], worst: float, bearable: float = 0.0) -> list[str]:
    """What was not as it should be after each move, in words; the first look is the one before them all.

    `bearable`: which part of the sites may be missing, because a site can lose its power at that moment too.
    """
    found = []
    for step, after in zip(moves, looks[1:], strict=True):
        if after.owner != step.owner:
            found.append(f"{after.owner or 'nobody'} holds the addresses after they were given to {step.owner}")
        found += [f"after the move to {step.owner}: {one}" for one in after.problems]
        missing = [site for site in looks[0].up if site not in after.up]
        if len({*missing, *step.lost}) > bearable * len(looks[0].up):
            found += [f"{_some(missing)} not up at {step.owner}"] if missing else []
            found += [f"{_some(step.lost)} did not answer through {step.owner}"] if step.lost else []
        slow = {site: one for site, one in step.seconds.items() if worst and one is not None and one > worst}
        if slow:
            slowest = max(slow, key=lambda site: slow[site])
            found.append(
                f"{len(slow)} sites were away for more than {worst:g} s on the way to {step.owner}, "
                f"{slowest} for {slow[slowest]:.2f} s"
            )
    return found


def _some(sites: Sequence[str]) -> str:
    more = f" and {len(sites) - NAMED} more" if len(sites) > NAMED else ""
    return f"{', '.join(sites[:NAMED])}{more}"


def report(
    *, fleet: Fleet, looks: Sequence[Look], moves: Sequence[Moved], wish: Wish, faults: Sequence[str]
) -> dict[str, t.Any]:
    """All of it as data."""
    return {
        "fleet": fleet.plan.name,
        "began": iso(wish.began),
        "ended": iso(time.time()),
        "passed": not faults,
        "faults": list(faults),
        "limit_seconds": wish.worst or None,
        "owner_before": looks[0].owner,
        "owner_after": looks[-1].owner,
        "looks": [asdict(one) for one in looks],
        "moves": [
            {
                "from": one.before,
                "to": one.owner,
                "asked_by": one.way,
                "began": iso(one.began),
                "addresses_seconds": one.addresses_seconds,
                "worst_seconds": one.worst,
                "median_seconds": _median([each for each in one.seconds.values() if each is not None]),
                "resolution_seconds": one.resolution,
                "sites": dict(one.seconds),
                "silent_before": list(one.silent_before),
            }
            for one in moves
        ],
    }


def _median(values: Sequence[float]) -> float | None:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else None


def switchover_table(data: t.Mapping[str, t.Any]) -> str:
    """The report for a person: a line for each move, the sites, the verdict."""
    rows = [
        [
            f"{one['from']} to {one['to']}",
            f"{one['addresses_seconds']:.2f} s",
            _seconds(one["worst_seconds"]),
            _seconds(one["median_seconds"]),
            str(len(one["sites"])),
        ]
        for one in data["moves"]
    ]
    head = ["MOVE", "ADDRESSES", "WORST SITE", "MEDIAN SITE", "SITES"]
    sites = sorted({site for one in data["moves"] for site in one["sites"]})
    lines = [[site, *(_seconds(one["sites"].get(site)) for one in data["moves"])] for site in sites]
    notices = data["looks"][-1]["notices"]
    word = "passed" if data["passed"] else "NOT passed"
    parts = [
        table(head=head, rows=rows),
        table(head=["SITE", *(f"AWAY, TO {one['to'].upper()}" for one in data["moves"])], rows=lines),
        "\n".join(f"not well: {one}" for one in data["faults"]),
        "\n".join(f"notice: {one}" for one in notices),
        f"{word}: {data['owner_before']} had the addresses, {data['owner_after'] or 'nobody'} has them now",
    ]
    return "\n\n".join(part for part in parts if part)


def _seconds(value: float | None) -> str:
    return "not back" if value is None else f"{value:.2f} s"


def write_switchover(*, directory: Path, data: t.Mapping[str, t.Any]) -> Path:
    """Write failover-TIME.json and .txt, and let failover-latest.* lead to them. Returns the path of the text."""
    stamp = str(data["ended"]).replace("-", "").replace(":", "")
    texts = {"json": json.dumps(data, indent=2) + "\n", "txt": switchover_table(data) + "\n"}
    base = directory / "failover"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for ending, text in texts.items():
            path = base.with_name(f"{base.name}-{stamp}.{ending}")
            write_atomic(path, text.encode(), 0o644)
            point_latest(base.with_name(f"{base.name}-latest.{ending}"), to=path.name)
        sync_directory(directory)
    except OSError as exc:
        raise SwitchoverError(f"the report {base}-{stamp} could not be written: {exc}. The move stands.") from exc
    return base.with_name(f"{base.name}-{stamp}.txt")
