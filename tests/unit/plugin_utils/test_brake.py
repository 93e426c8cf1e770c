# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold, release and status of a small fleet, with the real agent on every site."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import release_run, status
from ansible_collections.spokewright.fleet.plugins.plugin_utils.brake import Brake, brake_report, named_sites
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.hold import Hold
from ansible_collections.spokewright.fleet.plugins.plugin_utils.holds import (
    HoldNote,
    enter_holds,
    holds_file,
    read_holds,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pace import Rules
from ansible_collections.spokewright.fleet.plugins.plugin_utils.release_run import (
    Release,
    Released,
    foretell,
    release_report,
)
from unit.plugin_utils.held_fleet import HeldFleet

if TYPE_CHECKING:
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import SiteResult

EVERY = ["site-0001", "site-0002", "site-0003", "site-0004"]
NORTH = EVERY[1:]


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HeldFleet:
    return HeldFleet(tmp_path, monkeypatch)


def hold(held: HeldFleet, sites: list[str], *, dry: bool = False, **different: Any) -> dict[str, SiteResult]:
    wish = Hold(**{"seconds": 7200, "by": "ann@desk", "reason": "storm", **different})
    return Brake(fleet=held.fleet, verb="hold", hold=wish, dry_run=dry).carry_out(sites=sites)


def release(held: HeldFleet, sites: list[str], *, rate: float = 20.0, **rules: Any) -> Released:
    run = Release(fleet=held.fleet, rules=Rules(rate=rate, **rules), look=held.look)
    return run.carry_out(sites=sites)


def noted(held: HeldFleet) -> dict[str, HoldNote]:
    return read_holds(holds_file(held.fleet), now=time.time())


def looked(held: HeldFleet, monkeypatch: pytest.MonkeyPatch, **how: Any) -> dict[str, Any]:
    monkeypatch.setattr(status, "collect", held.look)
    held.asked.clear()
    return status.look_at_fleet(fleet=held.fleet, **how)


# --- hold


def test_a_group_is_held_and_a_second_time_is_no_change(held: HeldFleet) -> None:
    found = hold(held, NORTH)
    assert [(one.ok, one.changed) for one in found.values()] == [(True, True)] * 3
    assert all(7190 <= one.receipt["held"] <= 7200 for one in found.values())
    assert held.running == ["site-0001"]
    assert set(noted(held)) == set(NORTH)
    again = hold(held, NORTH)
    assert [(one.ok, one.changed) for one in again.values()] == [(True, False)] * 3
    report = brake_report(verb="hold", check=False, results=again)
    assert report["said"] == "hold: 3 sites, 0 held, 3 as they should be, 0 failed"
    assert report["changed"] is False


def test_a_site_that_is_off_is_named_and_the_others_are_held(held: HeldFleet) -> None:
    held.off.add("site-0003")
    found = hold(held, NORTH)
    assert found["site-0003"].message == "site-0003: nothing answers at 172.20.1.3:22 within 6 s."
    assert held.running == ["site-0001", "site-0003"]
    # It was surely not told, so no status asks it.
    assert set(noted(held)) == {"site-0002", "site-0004"}
    report = brake_report(verb="hold", check=False, results=found)
    assert (report["failed_sites"], report["ok_sites"]) == (["site-0003"], ["site-0002", "site-0004"])
    assert json.loads(json.dumps(report)) == report


def test_a_check_holds_nobody_and_tells_the_truth(held: HeldFleet) -> None:
    found = hold(held, NORTH, dry=True)
    assert [(one.ok, one.changed, one.message) for one in found.values()] == [(True, True, "would be held for 2 h")] * 3
    assert held.running == EVERY
    assert noted(held) == {}
    hold(held, ["site-0002"])
    assert hold(held, ["site-0002"], dry=True)["site-0002"].changed is False


def test_a_run_that_was_killed_has_noted_whom_it_was_about_to_hold(
    held: HeldFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_result: Any, **_before: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Brake, "note", killed)
    with pytest.raises(KeyboardInterrupt):
        hold(held, NORTH)
    assert set(noted(held)) == set(NORTH)
    assert noted(held)["site-0002"].said.endswith(" by ann@desk: storm")


@pytest.mark.parametrize(
    ("names", "sites"),
    [
        (["north"], NORTH),
        (["site-0004", "canary"], ["site-0001", "site-0004"]),
        (["north", "site-0002"], NORTH),
    ],
)
def test_groups_and_sites_in_the_plans_order_of_groups(held: HeldFleet, names: list[str], sites: list[str]) -> None:
    assert named_sites(fleet=held.fleet, names=names) == sites


def test_a_name_that_is_neither_nobody_and_everybody_twice(held: HeldFleet) -> None:
    with pytest.raises(FleetError, match=r"^nort, site-9: neither a group of the plan, which has canary, north, nor a"):
        named_sites(fleet=held.fleet, names=["nort", "site-9"])
    with pytest.raises(FleetError, match=r"^no site is named\. Name groups or sites, or --all for all 4 sites\."):
        named_sites(fleet=held.fleet, names=[])
    with pytest.raises(FleetError, match="--all means every site"):
        named_sites(fleet=held.fleet, names=["north"], everybody=True)
    assert named_sites(fleet=held.fleet, names=[], everybody=True) == EVERY


# --- what is noted


def test_notes_end_with_the_hold_and_a_file_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state" / "test.holds.json"
    enter_holds(path, found={"site-0001": None}, now=1000)
    assert not path.parent.exists()
    one = HoldNote(until="1970-01-01T01:00:00Z", by="ann", reason="storm")
    enter_holds(path, found={"site-0001": one, "site-0002": dataclasses.replace(one, by="bob")}, now=1000)
    enter_holds(path, found={"site-0002": None}, now=1000)
    assert read_holds(path, now=1000) == {"site-0001": one}
    assert read_holds(path, now=3601) == {}
    path.write_text("[1]")
    assert read_holds(path, now=1000) == {}
    path.write_text("{")
    assert read_holds(path, now=1000) == {}


def test_a_brake_works_where_nothing_can_be_noted(held: HeldFleet) -> None:
    holds_file(held.fleet).parent.write_text("in the way")
    assert hold(held, NORTH)["site-0002"].ok
    assert held.running == ["site-0001"]


@pytest.mark.parametrize("verb", ["hold", "release"])
def test_who_refuses_is_noted_as_held_as_it_was(held: HeldFleet, verb: str) -> None:
    hold(held, ["site-0002"])
    before = noted(held)
    for site in ("site-0001", "site-0002"):
        held.sites[site].tool("sleep", f'#!/bin/sh\necho . >>"{held.sites[site].home}/slept"\n')
    both = ["site-0001", "site-0002"]
    with held.locked("site-0001"), held.locked("site-0002"):
        done = hold(held, both, reason="other") if verb == "hold" else release(held, both).results
    assert done["site-0002"].reason == "busy"
    # Sooner than the controller would give it up.
    assert len((held.sites["site-0002"].home / "slept").read_text().split()) <= 10
    assert {site: (one.by, one.reason) for site, one in noted(held).items()} == {
        site: (one.by, one.reason) for site, one in before.items()
    }


def test_an_answer_that_says_nothing_of_a_hold_leaves_the_note(held: HeldFleet) -> None:
    found = hold(held, ["site-0002"])
    receipt = {name: value for name, value in found["site-0002"].receipt.items() if name != "held"}
    Brake(fleet=held.fleet, verb="show").note({"site-0002": dataclasses.replace(found["site-0002"], receipt=receipt)})
    assert set(noted(held)) == {"site-0002"}


# --- status


def test_a_status_asks_nobody_as_long_as_nobody_is_held(held: HeldFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked(held, monkeypatch)["summary"]["well"] is True
    assert held.asked == []


def test_a_held_site_is_held_by_its_own_word_and_not_down(held: HeldFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    looked(held, monkeypatch)
    hold(held, NORTH)
    data = looked(held, monkeypatch)
    assert sorted(held.told("show")) == NORTH
    summary = data["summary"]
    assert (summary["up"], summary["held"], summary["down"], summary["well"]) == (1, 3, 0, False)
    row = data["sites"][1]
    assert (row["verdict"], row["oob"], row["held_by"], row["held_reason"]) == (
        "held",
        "not asked",
        "ann@desk",
        "storm",
    )
    assert row["why"] == f"until {row['held_until']} by ann@desk: storm"
    # The site says otherwise than the note.
    held.sites["site-0002"].run("release")
    data = looked(held, monkeypatch)
    assert [one["verdict"] for one in data["sites"]] == ["up", "up", "held", "held"]
    assert set(noted(held)) == {"site-0003", "site-0004"}


def test_a_held_site_that_is_off_is_down_and_the_note_explains_it(
    held: HeldFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked(held, monkeypatch)
    hold(held, ["site-0002"])
    held.off.add("site-0002")
    row = looked(held, monkeypatch)["sites"][1]
    assert row["verdict"] == "down"
    assert "no gateway has a session of it; it was held until 2" in row["why"]
    assert row["why"].endswith(" by ann@desk: storm, and does not answer out of band")


# --- release


def test_a_release_is_paced_and_seen_by_the_gateways(held: HeldFleet) -> None:
    hold(held, EVERY)
    done = release(held, EVERY, rate=2.0)
    assert done.why == ""
    assert [(one.ok, one.changed) for one in done.results.values()] == [(True, True)] * 4
    assert "an echo went through the tunnel" in done.results["site-0001"].message
    assert held.told("release") == EVERY
    assert done.rate == pytest.approx(2.0, rel=0.25)
    assert held.running == EVERY
    assert noted(held) == {}
    report = release_report(done=done, rate=2.0)
    assert report["measured_per_minute"] == pytest.approx(120, rel=0.25)
    assert report["said"].startswith("release: 4 sites, 4 released, 0 as they should be, 0 failed, in ")
    assert report["said"].endswith("/min kept of 120/min")
    assert report["next"] == []


def test_a_second_release_is_no_change(held: HeldFleet) -> None:
    hold(held, NORTH)
    release(held, EVERY)
    again = release(held, EVERY)
    assert [(one.ok, one.changed, one.message) for one in again.results.values()] == [(True, False, "not held")] * 4
    assert again.rate is None
    assert release_report(done=again, rate=1.0)["changed"] is False


def test_a_site_that_is_off_is_named_and_delays_nobody(held: HeldFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_run, "ASK_SECONDS", 0.5)
    hold(held, EVERY)
    held.off.add("site-0002")
    done = release(held, EVERY)
    assert done.results["site-0002"].message == "site-0002: nothing answers at 172.20.1.2:22 within 6 s."
    assert [site for site, one in done.results.items() if one.ok] == ["site-0001", "site-0003", "site-0004"]
    # It is held yet, and a status asks it.
    assert set(noted(held)) == {"site-0002"}
    report = release_report(done=done, rate=20.0)
    assert report["failed_sites"] == ["site-0002"]
    assert report["next"][0].startswith("1 sites could not be asked or released. Run the same again when they are back")


def test_a_site_that_answers_late_is_released_late(held: HeldFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_run, "ASK_SECONDS", 0.3)
    hold(held, EVERY)
    real = held.sites["site-0001"].run

    def slow(*words: str, **more: Any) -> dict[str, Any]:
        time.sleep(2 if words[0] == "show" else 0)
        return real(*words, **more)

    monkeypatch.setattr(held.sites["site-0001"], "run", slow)
    done = release(held, EVERY)
    assert [one.ok for one in done.results.values()] == [True] * 4
    assert held.told("release")[-1] == "site-0001"


def test_a_site_that_does_not_come_up_is_told_as_such(held: HeldFleet) -> None:
    hold(held, NORTH)
    held.dead.add("site-0003")
    done = release(held, NORTH, late_seconds=2.5)
    one = done.results["site-0003"]
    assert (one.ok, one.changed, one.reason) == (False, True, "not-up")
    assert one.message.startswith("site-0003: released, and not up as planned after 2.")
    assert [site for site in NORTH if done.results[site].ok] == ["site-0002", "site-0004"]


def test_gateways_that_cannot_bear_more_keep_it_back_and_at_last_stop_it(held: HeldFleet) -> None:
    hold(held, NORTH)
    held.handshakes = 1000
    done = release(held, NORTH, patience=1.0)
    assert held.told("release") == []
    assert done.why == "for 1 s: 1000 handshakes are half-open on the gateways, more than 600"
    assert {one.reason for one in done.results.values()} == {"still-held"}
    assert set(noted(held)) == set(NORTH)
    assert held.running == ["site-0001"]
    report = release_report(done=done, rate=20.0)
    assert report["next"][0].startswith(f"Stopped: {done.why}. Look at the gateways")
    held.handshakes = 0
    assert all(one.ok for one in release(held, NORTH).results.values())


def test_who_is_held_anew_before_its_turn_stays_held(held: HeldFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(held, NORTH)
    real = held.sites["site-0002"].run

    def again(*words: str, **more: Any) -> dict[str, Any]:
        if words[0] == "release":
            held.sites["site-0004"].hold(3600, who=("bob@desk", "it begins again"))
        return real(*words, **more)

    monkeypatch.setattr(held.sites["site-0002"], "run", again)
    done = release(held, NORTH, rate=2.0)
    one = done.results["site-0004"]
    assert (one.ok, one.changed, one.reason) == (False, False, "held-anew")
    assert "site-0004: held anew by bob@desk: it begins again, for another " in one.message
    assert [site for site in NORTH if done.results[site].ok] == ["site-0002", "site-0003"]
    assert held.running == ["site-0001", "site-0002", "site-0003"]
    assert {site: note.by for site, note in noted(held).items()} == {"site-0004": "bob@desk"}
    report = release_report(done=done, rate=2.0)
    assert len(report["next"]) == 1
    assert report["next"][0].startswith("1 sites were held anew while this went on, and stay held. Ask who did it")


def test_a_pair_without_an_owner_gets_nobody(held: HeldFleet) -> None:
    hold(held, NORTH)
    held.owner = False
    assert release(held, NORTH, patience=0.5).why == "for 0.5 s: no gateway that holds the addresses answers"
    assert held.told("release") == []


def test_a_run_that_has_ended_releases_nobody_else(held: HeldFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(held, NORTH)
    monkeypatch.setattr(release_run, "is_over", lambda _owner: bool(held.told("release")))
    done = release(held, NORTH)
    assert held.told("release") == ["site-0002"]
    assert done.results["site-0004"].message == (
        "site-0004: still held, the release stopped before its turn: the run that asked for it has ended"
    )


def test_a_check_releases_nobody_and_says_how_long_it_would_take(held: HeldFleet) -> None:
    hold(held, NORTH)
    report = foretell(fleet=held.fleet, sites=EVERY, rate=0.5)
    assert held.running == ["site-0001"]
    assert report["said"] == (
        "release: 4 sites, 3 would be released, 1 as they should be, 0 failed; at 30/min that takes 4 s"
    )
    assert report["sites"]["site-0002"]["message"].startswith("would be released, 2 h before its time is over")
