# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of measured capacity: what it does to a fleet, and how its faults are told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import status
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity import Demand, look_ahead
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_answer import Asked, answer, rate
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_file import (
    Capacity,
    capacity_file,
    capacity_text,
    write_capacity,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_report import capacity_table
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_run import Trial, taken
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError, InputErrors
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.inventory_view import build_view
from ansible_collections.spokewright.fleet.plugins.plugin_utils.timers import site_timers
from fleetlib.cli import main
from unit.plugin_utils.fleet_files import PLAN, write_fleet
from unit.plugin_utils.held_fleet import HeldFleet
from unit.plugin_utils.test_capacity import FIGURES

if TYPE_CHECKING:
    from pathlib import Path

NO_KEEPALIVE = PLAN.replace("  keepalive: {interval: 2, timeout: 6}\n", "")


def recorded(sites: int = 4) -> Capacity:
    outlook = look_ahead(measured=FIGURES, demand=Demand(sites=sites, cores=2, instances=2, link_mbit=10))
    return Capacity(measured=(FIGURES,), values=outlook.values)


def gateway_variables(plan_file: Path) -> dict[str, Any]:
    return build_view(fleet=load_fleet(plan_file=plan_file)).groups["gateways"].variables


def test_without_the_file_everything_is_as_it_was(tmp_path: Path) -> None:
    fleet = load_fleet(plan_file=write_fleet(tmp_path))

    assert fleet.capacity is None
    assert [
        name for name in build_view(fleet=fleet).groups["gateways"].variables if not name.startswith("fleet_")
    ] == []
    assert fleet.sites[0].timers == site_timers(site_id="site-0001")


def test_what_was_written_is_read_and_reaches_the_roles(tmp_path: Path) -> None:
    plan = write_fleet(tmp_path)
    capacity = recorded()

    assert write_capacity(plan_file=plan, capacity=capacity)
    assert not write_capacity(plan_file=plan, capacity=capacity)
    assert capacity_file(plan).name == "test.capacity.json"
    assert load_fleet(plan_file=plan).capacity == capacity
    variables = gateway_variables(plan)
    assert variables["tunnel_server_capacity"] == capacity.values.capacity
    assert variables["tunnel_server_connect_freq"] == capacity.values.connect_freq
    assert variables["gateway_routing_socket_buffer"] == 4194304


def test_a_measured_keepalive_takes_the_place_of_the_default_only(tmp_path: Path) -> None:
    plan = write_fleet(tmp_path, plan=NO_KEEPALIVE)
    slow = look_ahead(measured=FIGURES, demand=Demand(sites=1000, cores=2, link_mbit=2)).values
    write_capacity(plan_file=plan, capacity=Capacity(measured=(FIGURES,), values=slow))

    assert load_fleet(plan_file=plan).plan.tunnels.keepalive.timeout == slow.keepalive_timeout == 24
    plan.write_text(PLAN, encoding="utf-8")
    assert load_fleet(plan_file=plan).plan.tunnels.keepalive.timeout == 6


def test_a_long_backlog_spreads_the_sites_further(tmp_path: Path) -> None:
    plan = write_fleet(tmp_path)
    values = look_ahead(measured=FIGURES, demand=Demand(sites=10000, cores=1)).values
    write_capacity(plan_file=plan, capacity=Capacity(measured=(FIGURES,), values=values))

    assert values.spread == 50
    assert load_fleet(plan_file=plan).sites[0].timers == site_timers(site_id="site-0001", spread=50)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            '"capacity": 64',
            '"capacity": "many"',
            "values.capacity: 'many' is no whole number. Write a number from 1 to",
        ),
        ('"capacity": 64', '"capacity": 0', "values.capacity: 0 is out of range."),
        ('"date": "2026-11-27"', '"date": "today"', "'today' is no date. Write it as 2026-11-27."),
        ('"hook_ms": 1.5', '"hook_ms": -1', "is out of range. Write a number from 0 to 10000."),
        ('"spread": 4', '"spraed": 4', "'spraed' is no key that is known here. Did you mean 'spread'?"),
        ('"cpu": "a CPU"', '"cpu": "{{ 1 }}"', "is no line of plain text"),
        ('"keepalive_timeout": 6', '"keepalive_timeout": 2', "2 is less than twice the interval of 2."),
        ('"version": 1', '"version": 2', "version: 2 is out of range."),
        ('"link_mbit": 0.0', '"link_mbit": -1', "link_mbit: -1 is out of range."),
    ],
)
def test_each_fault_is_told_with_its_line(tmp_path: Path, before: str, after: str, said: str) -> None:
    plan = write_fleet(tmp_path)
    text = capacity_text(capacity=recorded())
    assert before in text
    (tmp_path / "test.capacity.json").write_text(text.replace(before, after, 1), encoding="utf-8")

    with pytest.raises(InputErrors) as caught:
        build_view(fleet=load_fleet(plan_file=plan))

    line = text[: text.index(before)].count("\n") + 1
    found = [problem for problem in caught.value.problems if said in str(problem)]
    assert [problem.line for problem in found] == [line], str(caught.value)
    assert "test.capacity.json" in str(found[0])


def test_all_faults_are_told_at_once_with_those_of_the_plan(tmp_path: Path) -> None:
    plan = write_fleet(tmp_path, sites="id,group,oob_address,host_key,lan,options\nx y,,,,,\n")
    broken = json.loads(capacity_text(capacity=recorded()))
    broken["values"]["spread"] = broken["values"]["instances"] = -1
    (tmp_path / "test.capacity.json").write_text(json.dumps(broken), encoding="utf-8")

    with pytest.raises(InputErrors) as caught:
        load_fleet(plan_file=plan)

    assert {"values.spread", "values.instances"} < {problem.field for problem in caught.value.problems}
    assert any("sites.csv" in problem.file for problem in caught.value.problems)


@pytest.mark.parametrize("text", ["", "[]", "not: [json", "\udcff"])
def test_a_file_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    plan = write_fleet(tmp_path)
    (tmp_path / "test.capacity.json").write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(InputErrors, match=r"test\.capacity\.json"):
        build_view(fleet=load_fleet(plan_file=plan))


def test_what_was_measured_on_a_gateway_that_is_gone_is_left_out_and_the_limits_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, capacity = write_fleet(tmp_path), recorded()
    write_capacity(plan_file=plan, capacity=replace(capacity, measured=(replace(FIGURES, gateway="gw9"),)))

    fleet = load_fleet(plan_file=plan)

    assert fleet.capacity == replace(capacity, measured=())
    assert gateway_variables(plan)["tunnel_server_capacity"] == capacity.values.capacity
    report, _written = answer(fleet=fleet, asked=Asked(recorded=True))
    assert "test.capacity.json has none of them" in report["source"]
    assert main(["simulate", "-i", str(plan)]) == 0
    assert "4/4" in capsys.readouterr().out


CONFLICT = "<<<<<<< ours\n{}=======\n>>>>>>> theirs\n"


def test_a_file_that_cannot_be_read_lets_people_look_and_brake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held = HeldFleet(tmp_path, monkeypatch)
    monkeypatch.setattr(status, "collect", held.look)
    file = capacity_file(held.plan)
    file.write_text(CONFLICT, encoding="utf-8")

    def fleet(*words: str) -> int:
        return main([*words, "-i", str(held.plan)])

    assert fleet("hold", "north") == 0
    assert held.running == ["site-0001"]
    assert fleet("status") == 1
    assert f"problem: {file}:" in capsys.readouterr().out
    for words in (["check"], ["simulate"], ["capacity", "--recorded"]):
        assert fleet(*words) == 2
        assert str(file) in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = write_fleet(tmp_path)
    measuring(monkeypatch, gw1=measured_answer(), gw2=measured_answer())
    capacity_file(plan).write_text(CONFLICT, encoding="utf-8")

    assert main(["capacity", "--write", "-i", str(plan)]) == 0

    assert "Nothing is taken from this file, and no link is known." in capsys.readouterr().err
    assert [one.gateway for one in getattr(load_fleet(plan_file=plan).capacity, "measured", ())] == ["gw1", "gw2"]


def test_what_if_touches_no_gateway_and_says_whose_figures_it_took(tmp_path: Path) -> None:
    fleet = load_fleet(plan_file=write_fleet(tmp_path))

    report, written = answer(fleet=fleet, asked=Asked(sites=1000, cores=8, link_mbit=10))

    assert not written
    assert report["demand"]["sites"] == 1000
    assert "Nobody has measured these gateways yet" in report["source"]
    assert "For 1000 sites on 8 cores, a link of 10 Mbit/s" in capacity_table(report)


def test_a_registry_that_has_grown_is_told(tmp_path: Path) -> None:
    plan = write_fleet(tmp_path)
    write_capacity(plan_file=plan, capacity=recorded(sites=3))

    report, _written = answer(fleet=load_fleet(plan_file=plan), asked=Asked(recorded=True))

    assert "Its values are for 3 sites, the registry has 4" in report["source"]


def test_the_link_that_was_written_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, gw1=measured_answer(), gw2=measured_answer())
    plan = write_fleet(tmp_path, plan=NO_KEEPALIVE)
    written, _changed = answer(fleet=load_fleet(plan_file=plan), asked=Asked(write=True, link_mbit=0.02))

    said, _changed = answer(fleet=load_fleet(plan_file=plan), asked=Asked(recorded=True))

    assert said["values"] == written["values"]
    assert said["values"]["keepalive_interval"] == 3
    assert said["demand"]["link_mbit"] == 0.02
    other, _changed = answer(fleet=load_fleet(plan_file=plan), asked=Asked(link_mbit=10))
    assert other["demand"]["link_mbit"] == 10


def measured_answer(**more: Any) -> dict[str, Any]:
    figures = {name: value for name, value in vars(FIGURES).items() if name not in {"gateway", "date", "key_type"}}
    limits = {"max-clients": "2048", "connect-freq-initial": "100 10", "connect-freq": "2 1", "keepalive": "2 6"}
    return {"time": 1795755339.9, "refused": [], "measured": figures, "in_force": {"t0": limits}, **more}


def measuring(monkeypatch: pytest.MonkeyPatch, **answers: dict[str, Any] | str) -> None:
    def measure(**_asked: object) -> list[Trial]:
        return [taken(gateway=name, answer=said, key_type="p256") for name, said in answers.items()]

    monkeypatch.setattr("ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_answer.measure", measure)


def test_measuring_says_where_limits_in_force_differ_and_what_that_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, gw1=measured_answer(), gw2=measured_answer())
    plan = write_fleet(tmp_path)

    report, written = answer(fleet=load_fleet(plan_file=plan), asked=Asked(write=True))

    assert written
    assert "gw1: t0: max-clients is 2048, measured 256" in report["differences"]
    assert "gw1: t0: connect-freq is 2, measured 64" in report["differences"]
    assert "gw1: the plan says 2 cores, it has 4" in report["differences"]
    assert load_fleet(plan_file=plan).capacity is not None


def test_a_gateway_in_trouble_is_left_alone_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = measured_answer(measured=None, refused=["its health daemon sees a storm"])
    measuring(monkeypatch, gw1=refused, gw2=measured_answer())
    plan = write_fleet(tmp_path)
    fleet = load_fleet(plan_file=plan)

    report, _written = answer(fleet=fleet, asked=Asked())
    assert "gw1: not measured: its health daemon sees a storm" in capacity_table(report)
    with pytest.raises(FleetError, match=r"gw1: not measured: its health daemon sees a storm\. Nothing was written"):
        answer(fleet=fleet, asked=Asked(write=True))
    assert not capacity_file(plan).exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked(sites=0), "sites: 0 is out of range"),
        (Asked(handshakes=5000), "handshakes: 5000 is out of range. Give a number from 10 to 200"),
        (Asked(sites=10, write=True), "is not written"),
        (Asked(recorded=True, write=True), "is written already"),
        (Asked(sites=5, gateways=["gw1"]), "touches no gateway"),
        (Asked(gateways=["gw9"]), "gateway gw9: not in the plan"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(tmp_path: Path, asked: Asked, said: str) -> None:
    with pytest.raises(FleetError, match=said):
        answer(fleet=load_fleet(plan_file=write_fleet(tmp_path)), asked=asked)


@pytest.mark.parametrize(("text", "mbit"), [("512kbit", 0.512), ("10mbit", 10), ("1.5gbit", 1500), ("10Mbit", 10)])
def test_a_link_is_said_as_people_say_it(text: str, mbit: float) -> None:
    assert rate(text) == pytest.approx(mbit)


@pytest.mark.parametrize("text", ["", "10", "fast", "-1mbit", "0mbit"])
def test_a_link_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(FleetError, match="is no rate"):
        rate(text)
