# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what two gateways answer to what is wrong with the pair, and what that forbids."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet, load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair import judge_pair
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_parity import days_left
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_problem import (
    CONTENT,
    FORBID_CHANGE,
    HOLDER,
    NOTICE,
    OWNER,
    PATH,
    PLAN,
    STANDBY,
    said,
    unproven,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_questions import questions, words
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_report import pair_report, pair_table
from unit.plugin_utils.fleet_files import PLAN as PLAN_TEXT
from unit.plugin_utils.fleet_files import write_fleet
from unit.plugin_utils.pair_answers import NOW, VIPS, bent, gateway, hardware, health, healthy

if TYPE_CHECKING:
    from pathlib import Path

STRANGER = "02:ff:ff:ff:ff:ff"


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return load_fleet(plan_file=write_fleet(tmp_path))


def found(fleet: Fleet, answers: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one.weight, one.text) for one in judge_pair(fleet=fleet, answers=answers).problems]


def test_a_healthy_pair_has_no_problem_and_a_table_that_says_so(fleet: Fleet) -> None:
    pair = judge_pair(fleet=fleet, answers=healthy(fleet))

    assert pair.problems == ()
    assert (pair.owner, pair.standby, pair.built) == ("gw1", "gw2", True)
    data = pair_report(fleet=fleet, pair=pair)
    assert data["well"] is True
    assert json.loads(json.dumps(data)) == data
    table = pair_table(data)
    assert "gw1 holds every address, gw2 is ready to take over." in table
    assert "DIFFERS" not in table


def test_before_the_first_run_the_pair_is_not_built(fleet: Fleet) -> None:
    nothing = {"addresses": [], "agent": False, "members": {}, "arp": {}, "score": None, "health": None, "configs": {}}
    pair = judge_pair(fleet=fleet, answers=bent(healthy(fleet), gw1=nothing, gw2=nothing))

    assert pair.built is False


@pytest.mark.parametrize(
    ("gw1", "gw2", "expected"),
    [
        ({}, {"agent": False}, (STANDBY, "gw2: keepalived does not run")),
        ({"agent": False}, {}, (HOLDER, "gw1: keepalived does not run")),
        ({"addresses": []}, {}, (HOLDER, f"nobody holds the VIP {VIPS[0]}")),
        ({}, {"addresses": VIPS}, (HOLDER, f"gw1 and gw2 both hold the VIP {VIPS[0]}")),
        ({"addresses": VIPS[:1]}, {"addresses": VIPS[1:]}, (HOLDER, "the VIPs are split between gw1 and gw2")),
        (
            {},
            {"score": -20, "health": health("inside 10.200.0.10", score=-20)},
            (PATH, "gw2: score -20 (inside 10.200.0.10: no answer)"),
        ),
        ({}, {"score": -20, "health": None}, (PATH, "gw2: score -20")),
        (
            {"score": -20, "health": health("instance tun0", score=-20)},
            {},
            (OWNER, "gw1: score -20 (instance tun0: no answer)"),
        ),
        ({}, {"score": None}, (STANDBY, "gw2: there is no score in /run/spokewright/score")),
        ({}, {"health": health(age=60)}, (STANDBY, "gw2: its health daemon has said nothing for 60 s")),
        (
            {},
            {"health": None},
            (STANDBY, "gw2: its health daemon has not written /run/spokewright/health.json"),
        ),
        (
            {},
            {"hold": str(NOW + 9)},
            (PATH, "gw2: is told to give the addresses away (/run/spokewright/hold)"),
        ),
        (
            {"arp": {VIPS[0]: [], VIPS[1]: [hardware(2)["fr0"]], VIPS[2]: []}},
            {},
            (
                HOLDER,
                f"gw1 hears {VIPS[1]} on frame_relay answered by {hardware(2)['fr0']} (gw2), beside the owner gw1",
            ),
        ),
        (
            {},
            {"arp": {VIPS[0]: [STRANGER, hardware(1)["inside0"]], VIPS[1]: [hardware(1)["fr0"]], VIPS[2]: []}},
            (
                HOLDER,
                f"gw2 hears {VIPS[0]} on inside answered by {STRANGER} (neither gateway), beside the owner gw1",
            ),
        ),
        (
            {},
            {"arp": {VIPS[0]: [], VIPS[1]: [hardware(1)["fr0"]], VIPS[2]: [hardware(1)["inet0"]]}},
            (PATH, f"gw2 hears no answer for {VIPS[0]} on inside, which gw1 holds"),
        ),
        (
            {},
            {"arp": {VIPS[0]: [hardware(1)["inside0"]], VIPS[1]: [hardware(1)["fr0"]]}},
            (NOTICE, f"gw2: cannot ask for {VIPS[2]} on internet"),
        ),
        (
            {},
            {"software": {"kernel": "6.1", "openvpn": "2.6.9", "keepalived": "2.2.7"}},
            (NOTICE, "openvpn: gw1 has 2.6.14, gw2 has 2.6.9: bring both to one version"),
        ),
        (
            {},
            {"configs": {"keepalived.conf": "aa", "instance tun0": "cc"}},
            (CONTENT, "packet filter: gw1 has bb, gw2 has none: playbooks/gateways.yml makes them alike"),
        ),
        (
            {},
            {"ccd": {"digest": "99", "count": 3}},
            (CONTENT, "sites: gw1 has 4, 33, gw2 has 3, 99: playbooks/gateways.yml makes them alike"),
        ),
        (
            {},
            {"time": NOW + 30},
            (NOTICE, "the clocks of gw1 and gw2 are 30.0 s apart: look at their time service"),
        ),
        (
            {},
            {"members": {"11": ["10.200.0.9/32"], "40": ["169.254.40.1/32"]}},
            (CONTENT, "gw1 and gw2 announce different addresses under VRRP id 10, 11, 20, 30"),
        ),
        (
            {},
            {"members": {"11": ["10.200.0.9/32"]}},
            (HOLDER, "gw1 and gw2 announce different addresses on every network: neither hears the other"),
        ),
    ],
)
def test_each_fault_is_told_with_what_it_forbids(
    fleet: Fleet, gw1: dict[str, Any], gw2: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert expected in found(fleet, bent(healthy(fleet), gw1=gw1, gw2=gw2))


def test_a_gateway_that_cannot_be_asked_forbids_everything(fleet: Fleet) -> None:
    answers = {**healthy(fleet), "gw2": "gw2: 172.20.0.2:22: connection refused"}

    pair = judge_pair(fleet=fleet, answers=answers)

    assert said(pair.problems, *FORBID_CHANGE) == ["gw2 cannot be asked: gw2: 172.20.0.2:22: connection refused"]
    assert pair_report(fleet=fleet, pair=pair)["gateways"][1]["role"] == "no answer"


def test_what_is_bad_at_both_alike_hinders_nothing(fleet: Fleet) -> None:
    alike = {"score": -20, "health": health("inside 10.200.0.10", score=-20)}
    both = judge_pair(fleet=fleet, answers=bent(healthy(fleet), gw1=alike, gw2=alike))
    worse = judge_pair(fleet=fleet, answers=bent(healthy(fleet), gw1=alike, gw2={**alike, "score": -40}))

    assert said(both.problems, HOLDER, PATH, STANDBY) == []
    assert len(said(worse.problems, PATH)) == 1


def test_a_standby_that_a_run_can_mend_does_not_forbid_the_run(fleet: Fleet) -> None:
    sick = {"score": -30, "health": health("instance tun1", score=-30)}
    pair = judge_pair(fleet=fleet, answers=bent(healthy(fleet), gw2=sick))

    assert said(pair.problems, *FORBID_CHANGE) == []
    assert len(said(pair.problems, STANDBY)) == 1
    assert unproven(pair.problems, gateway="gw2") == said(pair.problems, STANDBY)
    assert unproven(pair.problems, gateway="gw1") == []


def test_a_silent_instance_speaks_against_the_gateway_it_is_on(fleet: Fleet) -> None:
    silent = [{"name": "tun0", "error": "no answer from the daemon"}]
    pair = judge_pair(fleet=fleet, answers=bent(healthy(fleet), gw1={"instances": silent}))

    assert unproven(pair.problems, gateway="gw1") == ["gw1: tun0: no answer from the daemon"]
    assert unproven(pair.problems, gateway="gw2") == []


def test_a_plan_that_would_deafen_the_standby_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    answers = healthy(fleet)
    changed = PLAN_TEXT
    for number in (10, 20, 30):
        changed = changed.replace(f"vrrp_id: {number}", f"vrrp_id: {number + 1}")
    (tmp_path / "new").mkdir()
    some = load_fleet(plan_file=write_fleet(tmp_path / "new", plan=changed))
    assert PLAN not in [weight for weight, _text in found(some, answers)]

    (tmp_path / "all").mkdir()
    every = load_fleet(plan_file=write_fleet(tmp_path / "all", plan=changed.replace("vrrp_id: 40", "vrrp_id: 41")))
    (told,) = [text for weight, text in found(every, answers) if weight == PLAN]
    assert "both would hold addresses" in told
    assert "in two runs" in told


def test_each_gateway_asks_every_network_from_its_own_address(fleet: Fleet) -> None:
    asked = questions(plan=fleet.plan, gateway=fleet.plan.gateways[1])

    assert asked[1] == {"interface": "fr0", "sender": "192.168.32.3", "address": "192.168.32.1"}
    assert [one["address"] for one in asked] == VIPS


def test_words_that_differ_by_plan_become_the_same_on_both(fleet: Fleet) -> None:
    one, other = (words(plan=fleet.plan, gateway=each) for each in fleet.plan.gateways)

    assert one["10.200.0.2"] == other["10.200.0.3"] == "<own inside address>"
    assert one["10.200.0.3"] == other["10.200.0.2"] == "<peer's inside address>"
    assert one["gw1"] == other["gw2"]
    assert "inside0" not in one


def test_the_end_of_a_revocation_list_is_told_in_days() -> None:
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")]))
        .last_update(now)
        .next_update(now + dt.timedelta(days=12))
        .sign(key, hashes.SHA256())
    )
    text = crl.public_bytes(Encoding.PEM).decode()

    assert days_left(crl=text, now=now) == 12
    assert days_left(crl=text, now=now + dt.timedelta(days=13)) == -1
    assert days_left(crl="garbled") is None


def test_an_outdated_list_forbids_a_move(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_parity"
    monkeypatch.setattr(f"{module}.days_left", lambda **_given: -1)

    told = found(fleet, bent(healthy(fleet), gw2={"crl": "x"}))

    assert any(weight == CONTENT and "its revocation list is out of date" in text for weight, text in told)


def test_the_owner_may_be_either(fleet: Fleet) -> None:
    answers = {"gw1": gateway(fleet, number=1, owner=False), "gw2": gateway(fleet, number=2, owner=True)}

    pair = judge_pair(fleet=fleet, answers=answers)

    assert (pair.owner, pair.standby, pair.problems) == ("gw2", "gw1", ())


def test_a_storm_is_told_with_the_command_and_forbids_nothing(tmp_path: Path) -> None:
    fleet = load_fleet(plan_file=write_fleet(tmp_path))
    storm = {"since": NOW - 45, "signs": ["380 of 400 sessions are half open"]}

    pair = judge_pair(fleet=fleet, answers=bent(healthy(fleet), gw1={"storm": storm}))

    (problem,) = pair.problems
    assert problem.weight == NOTICE
    assert "gw1 is in a storm for 4" in problem.text
    assert "380 of 400 sessions are half open" in problem.text
    assert "tools/fleet hold GROUP" in problem.text
    assert pair.owner == "gw1"
