# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what gateways answer to a verdict and a report."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.evidence import Evidence, assemble
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet, load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.own_word import OwnWord
from ansible_collections.spokewright.fleet.plugins.plugin_utils.sightings import Sighting, update_sightings
from ansible_collections.spokewright.fleet.plugins.plugin_utils.status import judge_fleet, pair_problems, report
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import plan_table, status_table
from unit.plugin_utils.fleet_files import PLAN, write_fleet
from unit.plugin_utils.pair_evidence import KEYS, VIPS, answer, client, healthy, with_key

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return load_fleet(plan_file=write_fleet(tmp_path))


def judged(fleet: Fleet, evidence: Evidence) -> dict[str, str]:
    verdicts = judge_fleet(fleet=fleet, evidence=evidence, sightings={})
    return {site: verdict.verdict for site, verdict in verdicts.items()}


def test_a_healthy_fleet_is_well(fleet: Fleet) -> None:
    evidence = assemble(fleet=fleet, answers=healthy(fleet))
    verdicts = judge_fleet(fleet=fleet, evidence=evidence, sightings={})

    data = report(fleet=fleet, evidence=evidence, verdicts=verdicts, sightings={})

    assert data["summary"] == {
        "total": 4,
        "up": 4,
        "down": 0,
        "duplicate_session": 0,
        "wrong_address": 0,
        "wrong_instance": 0,
        "wrong_epoch": 0,
        "old_epoch": 0,
        "flapping": 0,
        "handshaking": 0,
        "never_seen": 0,
        "held": 0,
        "oob_up": 0,
        "oob_down": 0,
        "oob_not_asked": 4,
        "well": True,
    }
    assert data["gateways"][0]["vips"] == VIPS
    row = data["sites"][0]
    assert (row["id"], row["group"], row["verdict"], row["gateway"]) == ("site-0001", "canary", "up", "gw1")
    assert row["tunnel_address"] == row["seen_address"]
    assert "4/4 sites up" in status_table(data)
    assert json.loads(json.dumps(data)) == data


def test_a_fleet_that_is_all_up_on_a_broken_pair_is_not_well(fleet: Fleet) -> None:
    answers = {**healthy(fleet), "gw2": "gw2: 172.20.0.2:22: connection refused"}
    evidence = assemble(fleet=fleet, answers=answers)
    verdicts = judge_fleet(fleet=fleet, evidence=evidence, sightings={})

    data = report(fleet=fleet, evidence=evidence, verdicts=verdicts, sightings={})

    assert data["summary"]["up"] == 4
    assert data["summary"]["well"] is False
    assert data["problems"] == ["gw2 cannot be asked: gw2: 172.20.0.2:22: connection refused"]
    assert "problem: gw2 cannot be asked" in status_table(data)


@pytest.mark.parametrize(
    ("gw1", "gw2", "problems"),
    [
        (VIPS, [], []),
        ([], [], [f"nobody holds the VIP {vip}" for vip in VIPS]),
        (VIPS, VIPS, [f"gw1 and gw2 both hold the VIP {vip}" for vip in VIPS]),
        (VIPS[:1], VIPS[1:], ["the VIPs are split between gw1 and gw2"]),
    ],
)
def test_who_holds_the_vips(fleet: Fleet, gw1: list[str], gw2: list[str], problems: list[str]) -> None:
    answers: dict[str, dict[str, Any] | str] = {
        "gw1": answer(vips=gw1, tun0=[], tun1=[]),
        "gw2": answer(vips=gw2, tun0=[], tun1=[]),
    }

    assert pair_problems(fleet=fleet, evidence=assemble(fleet=fleet, answers=answers)) == problems


def test_a_daemon_that_does_not_answer_is_a_problem_and_its_sites_are_not_up(fleet: Fleet) -> None:
    answers = healthy(fleet)
    gw1 = answers["gw1"]
    assert isinstance(gw1, dict)
    gw1["instances"][1] = {"name": "tun1", "error": "/run/openvpn-server/tun1.sock: no answer from the daemon"}
    evidence = assemble(fleet=fleet, answers=answers)

    assert pair_problems(fleet=fleet, evidence=evidence) == [
        "gw1: tun1: /run/openvpn-server/tun1.sock: no answer from the daemon"
    ]
    assert {judged(fleet, evidence)[site.id] for site in fleet.sites if site.instance == "tun1"} == {"never seen"}


def test_a_session_of_a_site_nobody_planned_is_a_problem(fleet: Fleet) -> None:
    answers = healthy(fleet)
    gw1 = answers["gw1"]
    assert isinstance(gw1, dict)
    gw1["instances"][0]["clients"].append(client("site-0666", "10.101.0.60"))

    problems = pair_problems(fleet=fleet, evidence=assemble(fleet=fleet, answers=answers))

    assert problems == ["site-0666 has a session but is not in the registry"]


def test_the_standbys_stale_sessions_do_not_count(fleet: Fleet) -> None:
    answers = healthy(fleet)
    answers["gw1"], answers["gw2"] = answers["gw2"], answers["gw1"]
    gw2 = answers["gw2"]
    assert isinstance(gw2, dict)
    gw2["addresses"] = ["127.0.0.1"]

    assert set(judged(fleet, assemble(fleet=fleet, answers=answers)).values()) == {"down"}


def looked(
    fleet: Fleet, evidence: Evidence, *, sightings: dict[str, Sighting] | None = None, **different: Any
) -> dict[str, Any]:
    """The report of a look, ten minutes after each site was seen."""
    seen = sightings or update_sightings(fleet=fleet, evidence=evidence, sightings={}, now=400)
    own = different.get("own")
    verdicts = judge_fleet(fleet=fleet, evidence=evidence, sightings=seen, own=own)
    asked = own is not None
    return report(fleet=fleet, evidence=evidence, verdicts=verdicts, sightings=seen, now=1000, oob=asked, **different)


def test_sites_that_were_not_asked_cost_nothing_and_say_so(fleet: Fleet) -> None:
    data = looked(fleet, assemble(fleet=fleet, answers=healthy(fleet)))

    row = data["sites"][0]
    assert (row["oob"], row["oob_reason"], row["own_generation"], row["own_epoch"]) == ("not asked", None, None, None)
    assert data["summary"]["well"] is True
    assert "OOB" not in status_table(data)


def test_a_link_that_is_down_is_not_well_and_says_why(fleet: Fleet) -> None:
    own = {site.id: OwnWord(up=True, generation=3, epoch=2) for site in fleet.sites}
    own["site-0002"] = OwnWord(
        up=False, reason="unreachable", message="site-0002: nothing answers\x1b at 172.20.1.2:22"
    )
    own["site-0003"] = OwnWord(asked=False, up=False, reason="not-tried", message="site-0003: not tried")

    data = looked(fleet, assemble(fleet=fleet, answers=healthy(fleet)), own=own)

    assert [one["oob"] for one in data["sites"]] == ["up", "down", "not asked", "up"]
    summary = data["summary"]
    assert (summary["oob_up"], summary["oob_down"], summary["oob_not_asked"]) == (2, 1, 1)
    assert (summary["up"], summary["well"]) == (4, False)
    table = status_table(data)
    assert "4/4 sites up, 1 out-of-band links down" in table
    assert "site-0002: out-of-band link down: unreachable: nothing answers? at 172.20.1.2:22" in table
    assert "site-0003: out-of-band link not asked: not-tried: not tried" in table
    assert "generation 3, epoch 2" in table


def test_every_link_up_is_well(fleet: Fleet) -> None:
    own = {site.id: OwnWord(up=True, generation=1, epoch=1) for site in fleet.sites}

    assert looked(fleet, assemble(fleet=fleet, answers=healthy(fleet)), own=own)["summary"]["well"] is True


def test_what_the_site_says_it_runs_is_held_against_what_the_gateway_saw(fleet: Fleet) -> None:
    data = looked(fleet, with_key(fleet, "a" * 16, 1), own={"site-0001": OwnWord(up=True, generation=2, epoch=2)})

    row = data["sites"][0]
    assert (row["verdict"], row["epoch"], row["own_epoch"]) == ("wrong epoch", 1, 2)
    assert row["why"] == "tun0 on gw1 saw it with its key of epoch 1, and the site says it runs with 2"


def test_a_site_that_is_down_was_last_seen_some_time_ago(fleet: Fleet) -> None:
    seen = update_sightings(
        fleet=fleet, evidence=assemble(fleet=fleet, answers=healthy(fleet)), sightings={}, now=1000 - 3 * 3600 - 60
    )
    nobody = assemble(fleet=fleet, answers={"gw1": answer(vips=VIPS, tun0=[], tun1=[])})

    data = looked(fleet, nobody, sightings=seen)

    assert status_table(data).count("last seen 3 h ago") == 4


def test_a_group_is_judged_by_its_own_sites_and_the_pair(fleet: Fleet) -> None:
    answers = healthy(fleet)
    gw1 = answers["gw1"]
    assert isinstance(gw1, dict)
    for instance in gw1["instances"]:
        instance["clients"] = [one for one in instance["clients"] if one["common_name"] == "site-0001"]
    evidence = assemble(fleet=fleet, answers=answers)

    canary = looked(fleet, evidence, groups=["canary"])
    north = looked(fleet, evidence, groups=["north"])
    both = looked(fleet, evidence, groups=["canary", "north"])

    assert ([one["id"] for one in canary["sites"]], canary["summary"]["well"]) == (["site-0001"], True)
    assert (north["summary"]["total"], north["summary"]["never_seen"], north["summary"]["well"]) == (3, 3, False)
    assert (both["groups"], both["summary"]["total"]) == (["canary", "north"], 4)
    answers["gw2"] = "gw2: connection refused"
    assert looked(fleet, assemble(fleet=fleet, answers=answers), groups=["canary"])["summary"]["well"] is False


@pytest.mark.parametrize(
    ("groups", "error"),
    [
        (["canary", "nort"], r"group nort: not in the plan .*test\.fleet\.yml, which has canary, north, south\."),
        (["south"], r"group south: no site of the registry .*sites\.csv is in it\."),
    ],
)
def test_a_group_that_is_not_there_is_an_error(tmp_path: Path, groups: list[str], error: str) -> None:
    plan = PLAN.replace("groups: [canary, north]", "groups: [canary, north, south]")
    fleet = load_fleet(plan_file=write_fleet(tmp_path, plan=plan))

    with pytest.raises(FleetError, match=error):
        looked(fleet, assemble(fleet=fleet, answers=healthy(fleet)), groups=groups)


def test_status_tells_the_epoch_a_gateway_saw(fleet: Fleet) -> None:
    def verdict(kid: str, epoch: int, state: str) -> str:
        keys = {"site-0001": {**KEYS["site-0001"], 2: {"kid": "b" * 16, "state": state}}}
        evidence = with_key(fleet, kid, epoch)
        verdicts = judge_fleet(fleet=fleet, evidence=evidence, sightings={}, keys=keys)
        row = report(fleet=fleet, evidence=evidence, verdicts=verdicts, sightings={})["sites"][0]
        assert (row["kid"], row["epoch"]) == (kid, epoch)
        return str(row["verdict"])

    assert verdict("a" * 16, 1, "active") == "up"
    assert verdict("b" * 16, 2, "active") == "up"
    assert verdict("a" * 16, 1, "confirmed") == "old epoch"
    assert verdict("c" * 16, 3, "confirmed") == "wrong epoch"


def test_a_plan_with_a_removed_site_lists_the_address_that_is_kept() -> None:
    empty: dict[str, Any] = {"instances": [], "sites": [], "changes": [], "tombstones": []}
    stone = {"id": "site-0009", "address": "10.101.0.20", "removed": "2026-11-23"}

    assert "site-0009" in plan_table({**empty, "tombstones": [stone]})
    assert "nothing would change" in plan_table(empty)
