# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what both gateways saw of a move to seconds and a verdict."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import switchover
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet, load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_move import (
    Moved,
    MoveError,
    interval_of,
    judge_move,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.switchover import (
    Look,
    SwitchoverError,
    Wish,
    destination,
    switch_over,
    switchover_table,
    too_many_lost,
    verdict,
    write_switchover,
)
from unit.plugin_utils.fleet_files import write_fleet

if TYPE_CHECKING:
    from pathlib import Path

VIPS = ["10.200.0.1", "192.168.32.1"]
SITES = {"site-0001": "10.101.0.16", "site-0002": "10.101.0.17", "site-0003": "10.101.0.18"}
UP = tuple(SITES)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return load_fleet(plan_file=write_fleet(tmp_path))


def echo(first: float, last: float, hole: float = 0.0) -> dict[str, float]:
    return {"first": first, "last": last, "count": 9, "hole": hole}


def seen(**changes: Any) -> dict[str, Any]:
    return {"held": [], "events": [], "gave": {}, "echoes": {}, **changes}


def answers() -> dict[str, Any]:
    """gw1's clock is 100 s ahead of ours, gw2's 50 s behind."""
    return {
        "gw1": seen(
            events=[[110.0, "lost", VIPS[0]], [110.01, "lost", VIPS[1]]],
            gave={"way": "hold", "at": 109.9},
            echoes={address: echo(101.0, 110.0) for address in SITES.values()},
        ),
        "gw2": seen(
            held=VIPS,
            events=[[-39.95, "got", VIPS[0]], [-39.9, "got", VIPS[1]]],
            echoes={"10.101.0.16": echo(-39.4, -30.0), "10.101.0.17": echo(-39.5, -30.0, hole=3.0)},
        ),
    }


def judged(found: dict[str, Any], sites: dict[str, str] | None = None) -> Moved:
    return judge_move(
        before="gw1",
        after="gw2",
        answers=found,
        ahead={"gw1": 100.0, "gw2": -50.0},
        sites=SITES if sites is None else sites,
        vips=VIPS,
        interval=0.05,
    )


def test_seconds_are_counted_across_two_clocks() -> None:
    moved = judged(answers())

    assert moved.addresses_seconds == 0.1
    assert moved.seconds == {"site-0001": 0.6, "site-0002": 3.0, "site-0003": None}
    assert (moved.worst, moved.lost) == (None, ["site-0003"])


def test_a_site_that_was_silent_before_is_not_counted() -> None:
    found = answers()
    del found["gw1"]["echoes"]["10.101.0.18"]

    moved = judged(found)

    assert moved.silent_before == ("site-0003",)
    assert (moved.worst, moved.lost) == (3.0, [])


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("gw1", {"held": VIPS}, "afterwards gw1 held 10.200.0.1, 192.168.32.1"),
        ("gw2", {"held": VIPS[:1]}, "gw2 10.200.0.1. The request is taken back"),
    ],
)
def test_addresses_that_stayed_are_an_error(name: str, change: dict[str, Any], said: str) -> None:
    found = answers()
    found[name].update(change)

    with pytest.raises(MoveError, match="/run/spokewright/hold") as caught:
        judged(found)
    assert said in str(caught.value)


def test_a_gateway_that_went_away_is_an_error() -> None:
    with pytest.raises(MoveError, match=r"gw2: gone\. Look who holds the addresses now: tools/fleet pair"):
        judged({**answers(), "gw2": "gone"})


@pytest.mark.parametrize(("sites", "interval"), [(4, 0.05), (200, 0.05), (400, 0.1)])
def test_many_sites_are_asked_less_often(sites: int, interval: float) -> None:
    assert interval_of(sites) == interval


def a_look(owner: str = "gw1", **changes: Any) -> Look:
    standby = {"gw1": "gw2", "gw2": "gw1", "": ""}[owner]
    given = {"owner": owner, "standby": standby, "up": UP, "problems": (), "notices": (), **changes}
    return Look(**given)


def moved(before: str, owner: str, **changes: Any) -> Moved:
    given = {
        "owner": owner,
        "before": before,
        "way": "hold",
        "began": 1.0,
        "addresses_seconds": 0.06,
        "seconds": dict.fromkeys(SITES, 0.6),
        **changes,
    }
    return Moved(**given)


def test_who_is_to_hold_the_addresses(fleet: Fleet) -> None:
    assert destination(fleet=fleet, before=a_look(), to="") == "gw2"
    assert destination(fleet=fleet, before=a_look(), to="gw2") == "gw2"
    assert destination(fleet=fleet, before=a_look(), to="gw1") == ""
    with pytest.raises(SwitchoverError, match=r"to=gw9: the plan .* has no such gateway, only gw1 and gw2"):
        destination(fleet=fleet, before=a_look(), to="gw9")


def test_an_unfit_pair_is_not_moved_and_every_reason_is_told(fleet: Fleet) -> None:
    before = a_look(problems=("gw2: keepalived does not run", "gw2: tun0: silent"))

    with pytest.raises(SwitchoverError) as caught:
        destination(fleet=fleet, before=before, to="")

    assert "- gw2: keepalived does not run\n- gw2: tun0: silent\n" in str(caught.value)


@pytest.mark.parametrize(
    ("after", "step", "worst", "told"),
    [
        (a_look("gw2"), moved("gw1", "gw2"), 2.0, []),
        (a_look("gw1"), moved("gw1", "gw2"), 2.0, ["gw1 holds the addresses after they were given to gw2"]),
        (a_look("gw2", problems=("bad",)), moved("gw1", "gw2"), 2.0, ["after the move to gw2: bad"]),
        (a_look("gw2", up=UP[1:]), moved("gw1", "gw2"), 2.0, ["site-0001 not up at gw2"]),
        (
            a_look("gw2"),
            moved("gw1", "gw2", seconds={"site-0001": None, "site-0002": 1.0}),
            2.0,
            ["site-0001 did not answer through gw2"],
        ),
        (
            a_look("gw2"),
            moved("gw1", "gw2", seconds={"site-0001": 2.5, "site-0002": 1.0}),
            2.0,
            ["1 sites were away for more than 2 s on the way to gw2, site-0001 for 2.50 s"],
        ),
        (a_look("gw2"), moved("gw1", "gw2", seconds={"site-0001": 2.5}), 0.0, []),
    ],
)
def test_the_verdict(after: Look, step: Moved, worst: float, told: list[str]) -> None:
    assert verdict(looks=[a_look(), after], moves=[step], worst=worst) == told


def test_a_site_in_a_hundred_that_is_lost_by_chance_is_borne_when_that_is_wished() -> None:
    names = tuple(f"site-{number}" for number in range(100))
    looks = [a_look(up=names), a_look("gw2", up=names[1:])]
    step = moved("gw1", "gw2", seconds={**dict.fromkeys(names, 0.6), names[0]: None})

    assert len(verdict(looks=looks, moves=[step], worst=0.0)) == 2
    assert verdict(looks=looks, moves=[step], worst=0.0, bearable=0.05) == []


@pytest.mark.parametrize(
    ("sites", "missing", "too_many"), [(4, 1, True), (400, 20, False), (400, 21, True), (0, 0, False)]
)
def test_how_many_missing_sites_undo_a_move(sites: int, missing: int, too_many: bool) -> None:  # noqa: FBT001
    names = tuple(f"site-{number}" for number in range(sites))

    assert too_many_lost(before=a_look(up=names), after=a_look(up=names[missing:])) is too_many


@pytest.mark.parametrize(
    ("wish", "up_after", "moves", "passed"),
    [
        (Wish(), UP, ["gw2"], True),
        (Wish(back=True), UP, ["gw2", "gw1"], True),
        (Wish(back=True), UP[:2], ["gw2"], False),
        (Wish(undo=True), UP[:2], ["gw2", "gw1"], False),
        (Wish(undo=True), UP, ["gw2"], True),
    ],
)
def test_the_way_of_a_switchover(
    fleet: Fleet,
    monkeypatch: pytest.MonkeyPatch,
    *,
    wish: Wish,
    up_after: tuple[str, ...],
    moves: list[str],
    passed: bool,
) -> None:
    monkeypatch.setattr(switchover, "move", lambda *, before, after, **_given: moved(before, after))
    monkeypatch.setattr(switchover, "settled", lambda *, owner, **_given: a_look(owner, up=up_after))

    data = switch_over(fleet=fleet, before=a_look(), after="gw2", wish=wish, say=lambda _text: None)

    assert [one["to"] for one in data["moves"]] == moves
    assert (data["owner_after"], data["passed"]) == (moves[-1], passed)
    assert switchover_table(data).splitlines()[-1].startswith("passed" if passed else "NOT passed")


def test_a_report_is_kept_and_the_latest_leads_to_it(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switchover, "move", lambda *, before, after, **_given: moved(before, after))
    monkeypatch.setattr(switchover, "settled", lambda *, owner, **_given: a_look(owner))
    data = switch_over(fleet=fleet, before=a_look(), after="gw2", wish=Wish(), say=lambda _text: None)

    path = write_switchover(directory=tmp_path / "reports", data=data)

    assert (tmp_path / "reports" / "failover-latest.txt").read_text(encoding="utf-8") == switchover_table(data) + "\n"
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) == json.loads(json.dumps(data))
