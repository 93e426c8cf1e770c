# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what gateways answer to a verdict, a report and a gate."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import gate
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.evidence import Evidence, assemble
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet, load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.gate import wait_for_sites
from ansible_collections.spokewright.fleet.plugins.plugin_utils.own_word import OwnWord
from ansible_collections.spokewright.fleet.plugins.plugin_utils.sightings import Sighting, update_sightings
from ansible_collections.spokewright.fleet.plugins.plugin_utils.status import judge_fleet, pair_problems, report
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import plan_table, status_table
from unit.plugin_utils.fleet_files import PLAN, write_fleet

if TYPE_CHECKING:
    from pathlib import Path

VIPS = ["10.200.0.1", "192.168.32.1", "203.0.113.1"]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return load_fleet(plan_file=write_fleet(tmp_path))


def client(name: str, address: str, **different: Any) -> dict[str, Any]:
    row = {
        "common_name": name,
        "real_address": f"192.168.32.{address.rpartition('.')[2]}:4711",
        "virtual_address": address,
        "client_id": 1,
        "connected_since": 1000,
        "bytes_received": 10,
        "bytes_sent": 10,
        "cipher": "AES-256-GCM",
    }
    return {**row, **different}


def answer(
    *, vips: list[str], tun0: list[dict[str, Any]], tun1: list[dict[str, Any]], echoes: tuple[str, ...] = ()
) -> dict[str, Any]:
    return {
        "time": 1010.0,
        "addresses": ["127.0.0.1", *vips],
        "instances": [
            {"name": "tun0", "pid": 7, "version": "OpenVPN 2.6.14", "clients": tun0},
            {"name": "tun1", "pid": 8, "version": "OpenVPN 2.6.14", "clients": tun1},
        ],
        "echoes": list(echoes),
    }


def sessions_of(fleet: Fleet, instance: str) -> list[dict[str, Any]]:
    return [client(site.id, site.tunnel_address) for site in fleet.sites if site.instance == instance]


def healthy(fleet: Fleet) -> dict[str, dict[str, Any] | str]:
    everyone = tuple(site.tunnel_address for site in fleet.sites)
    return {
        "gw1": answer(vips=VIPS, tun0=sessions_of(fleet, "tun0"), tun1=sessions_of(fleet, "tun1"), echoes=everyone),
        "gw2": answer(vips=[], tun0=[], tun1=[]),
    }


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
    return report(fleet=fleet, evidence=evidence, verdicts=verdicts, sightings=seen, now=1000, **different)


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


def _gate(fleet: Fleet, evidence: Evidence, **different: Any) -> dict[str, tuple[bool, str]]:
    passed = wait_for_sites(
        fleet=fleet, sites=["site-0001"], seconds=0, look=lambda **_asked: evidence, pause=0, **different
    )
    return {site: (one.ok, one.message) for site, one in passed.items()}


def test_the_gate_passes_on_session_address_instance_and_echo(fleet: Fleet) -> None:
    found = _gate(fleet, assemble(fleet=fleet, answers=healthy(fleet)))

    assert found == {"site-0001": (True, "connected to tun0 on gw1 as 10.101.0.16, an echo went through the tunnel")}


def test_the_gate_does_not_pass_a_session_that_carries_no_packet(fleet: Fleet) -> None:
    answers = healthy(fleet)
    gw1 = answers["gw1"]
    assert isinstance(gw1, dict)
    gw1["echoes"] = []

    assert _gate(fleet, assemble(fleet=fleet, answers=answers)) == {
        "site-0001": (False, "connected to tun0 on gw1, but 10.101.0.16 answers no echo through the tunnel")
    }


def test_the_gate_does_not_pass_a_session_older_than_the_activation(fleet: Fleet) -> None:
    # The gateway's clock says that the session is ten seconds old; the activation was two seconds ago.
    evidence = assemble(fleet=fleet, answers=healthy(fleet))

    assert _gate(fleet, evidence, since={"site-0001": time.time() - 2}) == {
        "site-0001": (False, "connected to tun0 on gw1, but by a session older than the activation")
    }
    assert _gate(fleet, evidence, since={"site-0001": time.time() - 60})["site-0001"][0] is True


KEYS = {
    "site-0001": {
        1: {"kid": "a" * 16, "state": "confirmed"},
        2: {"kid": "b" * 16, "state": "active"},
    }
}


def with_key(fleet: Fleet, kid: str, epoch: int) -> Evidence:
    answers = healthy(fleet)
    gw1 = answers["gw1"]
    assert isinstance(gw1, dict)
    gw1["keys"] = {"site-0001": [kid, epoch, 1000.0]}
    return assemble(fleet=fleet, answers=answers)


def test_the_gate_passes_a_site_with_its_newest_key_only(fleet: Fleet) -> None:
    fresh = {"site-0001": time.time() - 60}
    where = "connected to tun0 on gw1"
    assert _gate(fleet, with_key(fleet, "b" * 16, 2), keys=KEYS, since=fresh) == {
        "site-0001": (True, f"{where} as 10.101.0.16 with its key of epoch 2, an echo went through the tunnel")
    }
    assert _gate(fleet, with_key(fleet, "a" * 16, 1), keys=KEYS, since=fresh) == {
        "site-0001": (False, f"{where}, but with its key of epoch 1, and epoch 2 is its newest")
    }
    unnoted = assemble(fleet=fleet, answers=healthy(fleet))
    said = f"{where}, but with a key gw1 did not note (is it built by an older version? run gateways.yml first), and "
    assert _gate(fleet, unnoted, keys=KEYS, since=fresh) == {"site-0001": (False, f"{said}epoch 2 is its newest")}
    # A site that nothing was done to may be connected for longer than the verify script notes keys.
    assert _gate(fleet, unnoted, keys=KEYS)["site-0001"][0] is True


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


def test_the_gate_looks_again_until_the_site_is_there(fleet: Fleet) -> None:
    looks = [
        assemble(fleet=fleet, answers={"gw1": answer(vips=VIPS, tun0=[], tun1=[])}),
        assemble(fleet=fleet, answers=healthy(fleet)),
    ]
    told: list[tuple[int, int]] = []

    passed = wait_for_sites(
        fleet=fleet,
        sites=["site-0001", "site-0002"],
        seconds=5,
        look=lambda **_asked: looks.pop(0),
        pause=0,
        on_look=lambda done, total: told.append((done, total)),
    )

    assert all(one.ok for one in passed.values())
    assert told == [(0, 2), (2, 2)]


def _slow_gate(fleet: Fleet, **different: Any) -> tuple[float, dict[str, bool]]:
    """A gate of 60 s on sites that never come up, and how long it took."""
    nobody = assemble(fleet=fleet, answers={"gw1": answer(vips=VIPS, tun0=[], tun1=[])})
    began = time.monotonic()
    passed = wait_for_sites(
        **{
            "fleet": fleet,
            "sites": ["site-0001", "site-0002"],
            "seconds": 60,
            "look": lambda **_asked: nobody,
            "pause": 0.05,
            **different,
        }
    )
    return time.monotonic() - began, {site: one.ok for site, one in passed.items()}


def test_the_gate_ends_in_time_to_confirm_the_site_that_was_activated_first(fleet: Fleet) -> None:
    now = time.time()

    took, passed = _slow_gate(fleet, since={"site-0001": now - 89, "site-0002": now}, deadman_seconds=120)

    assert 0.5 < took < 5
    assert passed == {"site-0001": False, "site-0002": False}


def test_a_gate_that_is_over_before_it_begins_still_looks_once(fleet: Fleet) -> None:
    evidence = assemble(fleet=fleet, answers=healthy(fleet))

    assert _gate(fleet, evidence, since={"site-0001": time.time() - 600}, deadman_seconds=120)["site-0001"][0] is True


def test_a_look_that_hangs_does_not_hold_the_gate_and_what_was_seen_counts(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_LAST_LOOK", 0.3)
    release = threading.Event()
    one = assemble(
        fleet=fleet,
        answers={
            "gw1": answer(vips=VIPS, tun0=[client("site-0001", "10.101.0.16")], tun1=[], echoes=("10.101.0.16",)),
        },
    )
    looks = [one]

    def look(**_asked: Any) -> Evidence:
        if not looks:
            release.wait(30)
        return looks.pop() if looks else one

    took, passed = _slow_gate(fleet, look=look, seconds=0.5)
    never = _slow_gate(fleet, look=look, seconds=0.5)[1]
    release.set()

    assert took < 5
    assert passed == {"site-0001": True, "site-0002": False}
    assert never == {"site-0001": False, "site-0002": False}


def test_a_look_that_fails_is_the_gates_error(fleet: Fleet) -> None:
    def look(**_asked: Any) -> Evidence:
        raise FleetError("no login key")

    with pytest.raises(FleetError, match="no login key"):
        _slow_gate(fleet, look=look)


def test_a_plan_with_a_removed_site_lists_the_address_that_is_kept() -> None:
    empty: dict[str, Any] = {"instances": [], "sites": [], "changes": [], "tombstones": []}
    stone = {"id": "site-0009", "address": "10.101.0.20", "removed": "2026-11-23"}

    assert "site-0009" in plan_table({**empty, "tombstones": [stone]})
    assert "nothing would change" in plan_table(empty)
