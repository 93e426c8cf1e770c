# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of a rollout: whose turn it is, and when nobody else may be touched."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout import Rollout
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_lines import (
    ABORTED,
    DONE,
    FAILED,
    HALTED,
    PARKED,
    PASSED_OVER,
    WAITING,
    Approval,
    Control,
    Halt,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.waves import Wave

NOW = 1000.0
WELL = {"ok": True, "reason": "", "message": "well", "seconds": 0.3}
SITES = {"canary": ["c1", "c2"], "north": ["n1", "n2", "n3"]}
EVERY = [site for sites in SITES.values() for site in sites]


def bad(reason: str) -> dict[str, Any]:
    return {"ok": False, "reason": reason, "message": f"it is {reason}"}


def waves(**asked: Any) -> list[Wave]:
    return [Wave(name=group, group=group, sites=tuple(sites), **asked) for group, sites in SITES.items()]


def begun(
    *, settled: str = "", failed: int = 0, unreachable: int = 0, asked: dict[str, Any] | None = None, **stage: Any
) -> Rollout:
    """A rollout in which every site is due but those that are `settled`; `stage` says who answered otherwise."""
    found = Rollout(
        rollout="r", fleet="f", what="keys", reason="q4", by="me", began=NOW, failed=failed, unreachable=unreachable
    )
    answers = dict.fromkeys(EVERY, WELL) | stage
    answers = {site: answer for site, answer in answers.items() if answer is not None}
    found.take_stage(waves=waves(**(asked or {})), asked=EVERY, found=answers, settled=settled.split(), now=NOW)
    return found


def wave(
    rollout: Rollout, name: str, *, activate: Any = WELL, gate: Any = WELL, confirm: Any = WELL, only: str = ""
) -> str:
    """Run a wave in which its sites answer so; with `only`, that one, and the others are well."""
    line = next(one for one in rollout.waves if one.name == name)
    turn = rollout.turn(line)

    def answers(said: Any) -> dict[str, Any]:
        return {site: said if not only or site == only else WELL for site in turn}

    rollout.take_wave(
        line,
        activate=answers(activate),
        gate=answers(gate),
        confirm=answers(confirm),
        activated=dict.fromkeys(turn, NOW),
        now=NOW + 1,
    )
    return rollout.end(line, now=NOW + 1)


def states(rollout: Rollout) -> dict[str, str]:
    return {site: line.state for site, line in rollout.sites.items()}


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (WELL, WAITING),
        (bad("unreachable"), PARKED),
        (bad("bastion-unreachable"), PARKED),
        (bad("timeout"), PARKED),
        (bad("auth-refused"), ABORTED),
        (bad("disk-full"), ABORTED),
        # It had failed before, in this run.
        (None, ABORTED),
    ],
)
def test_a_site_that_cannot_be_staged_has_no_turn_and_nothing_was_changed_there(answer: Any, state: str) -> None:
    assert states(begun(n1=answer))["n1"] == state


def test_a_site_that_has_nothing_to_change_is_no_part_of_it() -> None:
    assert "c1" not in begun(settled="c1").sites


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        ({}, DONE),
        ({"activate": bad("unreachable")}, PARKED),
        ({"activate": bad("disk-full")}, ABORTED),
        # Whether it has done so is not known.
        ({"activate": bad("timeout")}, FAILED),
        ({"activate": bad("no-receipt")}, FAILED),
        ({"gate": bad("")}, FAILED),
        ({"confirm": bad("unreachable")}, FAILED),
    ],
)
def test_changed_and_lost_is_told_apart_from_not_changed_and_from_never_reached(
    answers: dict[str, Any], state: str
) -> None:
    rollout = begun()
    wave(rollout, "canary", only="c1", **answers)
    assert states(rollout)["c1"] == state
    assert states(rollout)["c2"] == DONE


@pytest.mark.parametrize(("budget", "stops"), [(0, "1 site failed, the budget for that is 0"), (1, ""), (2, "")])
def test_more_failed_sites_than_the_budget_stop_it(budget: int, stops: str) -> None:
    assert wave(begun(failed=budget), "canary", only="c1", gate=bad("")) == stops


def test_the_budget_is_one_for_all_waves() -> None:
    rollout = begun(failed=1)
    assert wave(rollout, "canary", only="c1", gate=bad("")) == ""
    assert wave(rollout, "north", only="n1", gate=bad("")) == "2 sites failed, the budget for that is 1"


def test_a_wave_of_which_nobody_is_well_stops_it_whatever_the_budget() -> None:
    assert wave(begun(failed=9), "canary", gate=bad("")) == "none of its sites is well"
    assert wave(begun(settled="c2", failed=9), "canary", gate=bad("")) == ""


NOBODY = "no site of wave canary could be reached, and none before it has shown a sound change"


def test_the_first_wave_stops_it_when_none_of_its_sites_can_be_reached_whatever_the_budget() -> None:
    assert wave(begun(unreachable=9), "canary", activate=bad("unreachable")) == NOBODY


@pytest.mark.parametrize(
    ("budget", "stops"),
    [(3, ""), (2, "3 sites could not be reached, the budget for that is 2")],
    ids=["within", "over"],
)
def test_a_later_wave_of_which_nobody_can_be_reached_is_passed_over_within_the_budget(budget: int, stops: str) -> None:
    rollout = begun(unreachable=budget)
    assert wave(rollout, "canary") == ""
    assert wave(rollout, "north", activate=bad("unreachable")) == stops
    assert [one.state for one in rollout.waves] == [DONE, HALTED if stops else PASSED_OVER]
    assert states(rollout) == {"c1": DONE, "c2": DONE, "n1": PARKED, "n2": PARKED, "n3": PARKED}


def test_a_site_that_is_held_is_parked_and_has_its_turn_when_it_is_released() -> None:
    rollout = begun(unreachable=2)
    assert wave(rollout, "canary") == ""
    kept = {"ok": False, "changed": False, "reason": "held", "message": "n1: held for another 60 s by ann@desk"}
    rollout.begin(rollout.waves[1], now=NOW)
    passed = {"n2": WELL, "n3": WELL}
    rollout.take_wave(
        rollout.waves[1], activate={"n1": kept, **passed}, gate=passed, confirm=passed, activated={}, now=NOW
    )
    assert rollout.end(rollout.waves[1], now=NOW) == ""
    assert (rollout.sites["n1"].state, rollout.sites["n1"].reason) == (PARKED, "held")
    assert rollout.sites["n1"].message == "n1: held for another 60 s by ann@desk"
    rollout.unreachable = 0
    rollout.close(now=NOW)
    assert rollout.why == "1 site could not be tried, the budget for that is 0"
    rollout.take_stage(waves=waves(), asked=["n1"], found={"n1": WELL}, settled=(), now=NOW)
    assert rollout.turn(rollout.waves[1]) == ["n1"]


THREE = [*waves(), Wave(name="south", group="south", sites=("s1",))]


def three_waves(*, failed: int = 0, **stage: Any) -> Rollout:
    """As `begun`, with a group behind north, and with room for every site that is away."""
    found = begun(failed=failed, unreachable=9)
    answers = dict.fromkeys([*EVERY, "s1"], WELL) | stage
    found.take_stage(waves=THREE, asked=[*EVERY, "s1"], found=answers, settled=(), now=NOW)
    return found


def test_a_wave_that_was_passed_over_keeps_nobody_back_and_has_its_turn_when_it_is_there_again() -> None:
    away: dict[str, Any] = dict.fromkeys(SITES["north"], bad("unreachable"))
    rollout = three_waves(**away)
    assert wave(rollout, "canary") == ""
    assert keeps_back(rollout, "south") is None
    assert [one.state for one in rollout.waves] == [DONE, PASSED_OVER, WAITING]
    assert wave(rollout, "south") == ""
    rollout.close(now=NOW)
    assert (rollout.outcome, rollout.exit_code) == ("finished", 2)

    again = dict.fromkeys(SITES["north"], WELL)
    rollout.take_stage(waves=THREE, asked=SITES["north"], found=again, settled=(), now=NOW)
    assert rollout.turn(rollout.waves[1]) == SITES["north"]
    assert keeps_back(rollout, "north") is None


@pytest.mark.parametrize("reached", [bad("disk-full"), bad("auth-refused")])
def test_a_later_wave_that_was_reached_and_of_which_nobody_is_well_is_not_passed_over(reached: Any) -> None:
    rollout = three_waves(failed=9, n1=bad("unreachable"), n2=bad("unreachable"), n3=reached)
    assert wave(rollout, "canary") == ""
    halt = keeps_back(rollout, "south")
    assert halt is not None
    assert (halt.wave, halt.why) == ("north", "none of its sites is well")


def test_a_wave_can_ask_for_a_part_of_its_sites() -> None:
    assert wave(begun(failed=9, asked={"success_percent": 50}), "canary", only="c1", gate=bad("")) == ""
    assert (
        wave(begun(failed=9, asked={"success_percent": 51}), "canary", only="c1", gate=bad(""))
        == "1 of 2 sites passed, and 51% have to"
    )


def keeps_back(rollout: Rollout, name: str, control: Control | None = None) -> Halt | None:
    line = next(one for one in rollout.waves if one.name == name)
    return rollout.keeps_back(line, control=control or Control(), now=NOW)


def test_too_many_that_cannot_be_reached_keep_everybody_back() -> None:
    away: dict[str, Any] = {"n1": bad("unreachable"), "n2": bad("timeout")}
    assert keeps_back(begun(unreachable=2, **away), "canary") is None
    halt = keeps_back(begun(unreachable=1, **away), "canary")
    assert halt is not None
    assert halt.why == "2 sites could not be reached, the budget for that is 1"


def test_a_wave_that_never_had_a_turn_still_has_to_show_that_somebody_is_well() -> None:
    halt = keeps_back(begun(unreachable=9, c1=bad("unreachable"), c2=bad("unreachable")), "north")
    assert halt is not None
    assert (halt.wave, halt.why) == ("canary", NOBODY)
    assert keeps_back(begun(unreachable=9, settled="c2", c1=bad("unreachable")), "north") is None


def test_an_approval_is_wanted_for_the_wave_that_asks_for_it_and_only_while_it_has_a_turn() -> None:
    rollout = begun(asked={"approval": True})
    halt = keeps_back(rollout, "canary")
    assert halt is not None
    assert halt.why == "wave canary wants an approval: tools/fleet rollout approve r 'canary'"
    assert keeps_back(rollout, "canary", Control(approved={"canary": Approval(by="me", sites=("c1", "c2"))})) is None
    assert keeps_back(begun(settled="c1 c2", asked={"approval": True}), "canary") is None


@pytest.mark.parametrize(
    ("sites", "wanted"),
    [
        (("c1", "c2", "c9"), ""),
        (("c2",), "wave canary wants another approval, ann@noc has approved it without c1: "),
        (("n1",), "wave canary wants another approval, ann@noc has approved it without c1, c2: "),
    ],
)
def test_an_approval_is_for_the_sites_that_the_wave_had_then(sites: tuple[str, ...], wanted: str) -> None:
    rollout = begun(asked={"approval": True})
    control = Control(approved={"canary": Approval(by="ann@noc", sites=sites)})
    halt = keeps_back(rollout, "canary", control)
    assert (halt.why if halt else "") == (f"{wanted}tools/fleet rollout approve r 'canary'" if wanted else "")
    assert rollout.approved_by(rollout.waves[0], control=control) == ("" if wanted else "ann@noc")


def test_a_wave_that_is_cut_again_under_its_old_name_wants_another_approval() -> None:
    """A group of five in waves of two: one site leaves, and each wave behind it holds somebody else."""
    rollout = begun()
    wave(rollout, "canary")
    control = Control(approved={"north 1/2": Approval(by="ann", sites=("n1", "n2"))})
    for limit, why in ((2, None), (3, "wave north 1/2 wants another approval, ann has approved it without n3: ")):
        later = [
            *waves()[:1],
            *(
                Wave(name=f"north {number}/2", group="north", sites=tuple(sites), approval=True)
                for number, sites in ((1, SITES["north"][:limit]), (2, SITES["north"][limit:]))
                if sites
            ),
        ]
        rollout.take_stage(waves=later, asked=SITES["north"], found=dict.fromkeys(EVERY, WELL), settled=(), now=NOW)
        halt = keeps_back(rollout, "north 1/2", control)
        assert (halt and halt.why) == (why and f"{why}tools/fleet rollout approve r 'north 1/2'")


def test_a_site_that_failed_has_another_turn_in_the_next_run_and_one_that_is_done_has_none() -> None:
    rollout = begun()
    wave(rollout, "canary", only="c1", gate=bad(""))
    rollout.take_stage(waves=waves(), asked=EVERY, found=dict.fromkeys(EVERY, WELL), settled={"c2"}, now=NOW)
    assert states(rollout) == {"c1": WAITING, "c2": DONE, "n1": WAITING, "n2": WAITING, "n3": WAITING}
    assert wave(rollout, "canary") == ""


def test_a_site_that_is_no_part_of_a_later_run_is_what_it_was() -> None:
    rollout = begun(n1=bad("unreachable"), unreachable=1)
    wave(rollout, "canary")
    rollout.take_stage(waves=waves(), asked=["n2", "n3"], found={"n2": WELL, "n3": WELL}, settled=(), now=NOW)
    assert states(rollout) == {"c1": DONE, "c2": DONE, "n1": PARKED, "n2": WAITING, "n3": WAITING}


def test_a_site_that_a_killed_run_had_confirmed_is_done_and_its_soak_begins_then() -> None:
    rollout = begun(asked={"soak_seconds": 60})
    rollout.take_stage(
        waves=waves(), asked=EVERY, found=dict.fromkeys(["c1", "c2"], WELL), settled={"c1", "c2"}, now=NOW + 50
    )
    assert [(one.name, one.proven, one.ended) for one in rollout.waves[:1]] == [("canary", NOW + 50, None)]
    assert rollout.has_work


def test_a_site_that_joins_the_fleet_has_its_turn_in_the_wave_that_the_plan_has_for_it() -> None:
    rollout = begun()
    later = [
        Wave(name="canary", group="canary", sites=("c1", "c2", "c9")),
        *waves()[1:],
        Wave(name="south", group="south", sites=("s1",)),
    ]
    rollout.take_stage(waves=later, asked=["c9", "s1"], found={"c9": WELL, "s1": WELL}, settled=(), now=NOW)
    assert [(one.name, one.sites) for one in rollout.waves] == [
        ("canary", ["c1", "c2", "c9"]),
        ("north", ["n1", "n2", "n3"]),
        ("south", ["s1"]),
    ]
    assert [rollout.turn(one) for one in rollout.waves] == [["c9"], [], ["s1"]]


def test_who_is_done_keeps_its_wave_when_the_plan_is_cut_anew_and_comes_before_its_group() -> None:
    rollout = begun()
    wave(rollout, "canary")
    wave(rollout, "north", only="n3", gate=bad(""))
    later = [
        *waves()[:1],
        Wave(name="north 1/2", group="north", sites=("n1", "n2"), approval=True),
        Wave(name="north 2/2", group="north", sites=("n3",), soak_seconds=5),
    ]
    rollout.take_stage(waves=later, asked=EVERY, found=dict.fromkeys(EVERY, WELL), settled=["n1", "c1", "c2"], now=NOW)
    assert [(one.name, one.sites, rollout.turn(one)) for one in rollout.waves] == [
        ("canary", ["c1", "c2"], []),
        ("north", ["n1", "n2"], ["n2"]),
        ("north 1/2", [], []),
        ("north 2/2", ["n3"], ["n3"]),
    ]
    assert (rollout.waves[3].soak_seconds, rollout.sites["n3"].wave) == (5, "north 2/2")


def test_a_wave_whose_end_was_not_kept_lets_nobody_go_on_and_its_sites_have_failed() -> None:
    rollout = begun()
    wave(rollout, "canary", only="c1", gate=bad(""))
    rollout.take_stage(waves=waves(), asked=EVERY, found=dict.fromkeys(EVERY, WELL), settled=["c2"], now=NOW)
    rollout.begin(rollout.waves[0], now=NOW)
    halt = keeps_back(rollout, "north")
    assert halt is not None
    assert halt.why == "what became of wave canary could not be kept"
    rollout.halt(halt)
    rollout.close(now=NOW)
    assert states(rollout)["c1"] == FAILED
    assert states(rollout)["n1"] == WAITING


def test_a_site_that_was_lost_in_the_soak_has_failed() -> None:
    rollout = begun()
    wave(rollout, "canary")
    rollout.take_soak(rollout.waves[0], lost={"c1": "down: no session"})
    assert rollout.end(rollout.waves[0], now=NOW) == "1 site failed, the budget for that is 0"
    assert rollout.sites["c1"].message == "lost after it was confirmed: down: no session"


@pytest.mark.parametrize(
    ("stage", "halted", "code"),
    [({}, "", 0), ({"n1": bad("unreachable")}, "", 2), ({"n1": bad("disk-full")}, "", 2), ({}, "so", 3)],
)
def test_the_exit_code_tells_failed_sites_from_a_rollout_that_was_held_up(
    stage: dict[str, Any],
    halted: str,
    code: int,
) -> None:
    rollout = begun(unreachable=1, **stage)
    wave(rollout, "canary")
    wave(rollout, "north")
    if halted:
        rollout.halt(Halt(at=NOW, wave="north", why=halted), outcome=HALTED)
    rollout.close(now=NOW)
    assert rollout.exit_code == code


@pytest.mark.parametrize(("unreachable", "outcome"), [(4, "halted"), (5, "finished")])
def test_a_run_in_which_nobody_has_a_turn_is_measured_by_the_budget_too(unreachable: int, outcome: str) -> None:
    away: dict[str, Any] = dict.fromkeys(EVERY, bad("unreachable"))
    rollout = begun(unreachable=unreachable, **away)
    assert not rollout.has_work
    rollout.close(now=NOW)
    assert rollout.outcome == outcome
    assert [(one.wave, one.why) for one in rollout.halts] == (
        [("canary", "5 sites could not be reached, the budget for that is 4")] if outcome == "halted" else []
    )


def test_a_rollout_that_waits_says_whether_its_run_was_cut_off_or_left_somebody_out() -> None:
    rollout = begun()
    assert rollout.why == "its last run was cut off, 5 sites to go"
    rollout.close(now=NOW)
    assert rollout.why == "5 sites to go, not in this run"
