# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tools/fleet simulate prints."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ansible_collections.spokewright.fleet.plugins.plugin_utils import storm
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity import Demand, look_ahead
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_file import Capacity, write_capacity
from fleetlib import simulate
from fleetlib.cli import main
from unit.plugin_utils.fleet_files import write_fleet
from unit.plugin_utils.test_capacity import FIGURES

if TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_model import Outcome, Setup

ROOT = Path(__file__).resolve().parents[3]


def test_the_plan_at_hand_and_a_larger_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = str(write_fleet(tmp_path))

    assert main(["simulate", "-i", plan]) == 0
    assert "4/4" in capsys.readouterr().out
    assert main(["simulate", "-i", plan, "--sites", "200", "--scene", "outage", "--format", "json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["sites"], one["back"], one["limit"]) == (200, 200, "retransmission of clients")
    assert main(["simulate", "-i", plan, "--sites", "0"]) == 2


def test_what_was_measured_takes_the_place_of_what_is_assumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = write_fleet(tmp_path)
    ask = ["simulate", "-i", str(plan), "--sites", "100", "--daemons", "1", "--format", "json"]
    assert main(ask) == 0
    (assumed,) = json.loads(capsys.readouterr().out)
    slow = replace(FIGURES, handshake_ms=50.0)
    values = look_ahead(measured=slow, demand=Demand(sites=100, cores=1)).values
    write_capacity(plan_file=plan, capacity=Capacity(measured=(slow,), values=values))

    assert main(ask) == 0

    (measured,) = json.loads(capsys.readouterr().out)
    assert measured["last"] > assumed["last"] + 2
    assert measured["back"] == 100


def test_limits_that_were_recorded_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, seen = write_fleet(tmp_path), []
    real = storm.simulate

    def watched(*, setup: Setup, **more: Any) -> Outcome:
        seen.append((setup.max_clients, setup.connect_freq_initial))
        return real(setup=setup, **more)

    monkeypatch.setattr(simulate, "simulate", watched)
    values = look_ahead(measured=FIGURES, demand=Demand(sites=4, cores=1)).values
    assert main(["simulate", "-i", str(plan)]) == 0
    own = replace(values, max_clients=77, connect_freq_initial=55)
    write_capacity(plan_file=plan, capacity=Capacity(measured=(FIGURES,), values=own))
    assert main(["simulate", "-i", str(plan)]) == 0

    assert seen == [(2048, (2048, 10)), (77, (55, 10))]


def test_it_knows_what_the_role_gives_a_daemon() -> None:
    defaults = yaml.safe_load((ROOT / "roles/tunnel_server/defaults/main.yml").read_text(encoding="utf-8"))

    assert defaults["tunnel_server_socket_buffer"] == simulate.RCVBUF
    assert defaults["tunnel_server_hand_window"] == simulate.HAND_WINDOW
    assert defaults["tunnel_server_capacity"] == simulate.CAPACITY


def test_what_if_the_link_is_narrow_the_way_long_and_a_handshake_dear(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = str(write_fleet(tmp_path))

    def last(*more: str) -> tuple[float, str]:
        main(["simulate", "-i", plan, "--sites", "200", "--scene", "daemons-restarted", "--format", "json", *more])
        (one,) = json.loads(capsys.readouterr().out)
        return one["last"], one["limit"]

    usual, _why = last()
    assert last("--link", "512kbit") > (usual * 1.2, "link")
    assert last("--rtt", "300")[0] > usual + 0.9
    assert last("--handshake-ms", "60") > (usual * 1.2, "CPU of a daemon")
    assert last("--client-version", "2.7")[0] == pytest.approx(usual + 1, abs=0.7)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--link", "10", "'10' is no rate. Write it as 512kbit, 10mbit or 1.5gbit"),
        ("--link", "0mbit", "is no rate"),
        ("--rtt", "-1", "milliseconds, 0 to 60000, are wanted"),
        ("--handshake-ms", "long", "milliseconds, 0 to 60000, are wanted"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(
    option: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["simulate", option, value])

    assert said in capsys.readouterr().err


def test_the_defaults_and_the_storys_options_stand_beside_the_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["simulate", "-i", str(write_fleet(tmp_path)), "--beside-defaults", "--format", "json"]

    assert main(call) == 0
    own, defaults, story = json.loads(capsys.readouterr().out)
    assert own["last"] < 10 < defaults["last"] < 70 < story["last"]


def test_the_shipped_measurements_are_reproduced_without_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--calibrate", str(ROOT / "docs/storm"), "--format", "json"]) == 0
    assert not any(one["off"] for one in json.loads(capsys.readouterr().out))


def test_no_measurements_are_too_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--calibrate", str(tmp_path)]) == 1
    assert "0 of 0 measured storms" in capsys.readouterr().out
    assert main(["simulate", "--calibrate", str(tmp_path / "nowhere")]) == 2
    assert "no such directory" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "begin"), [("storm.svg", b"<?xml"), ("storm.png", b"\x89PNG")])
def test_a_recovery_is_drawn_the_same_each_time(name: str, begin: bytes, tmp_path: Path) -> None:
    plan, path = str(write_fleet(tmp_path)), tmp_path / name
    call = ["simulate", "-i", plan, "--beside-defaults", "--plot", str(path)]

    assert main(call) == 0
    first = path.read_bytes()
    assert main(call) == 0
    assert path.read_bytes() == first
    assert first.startswith(begin)
    if name.endswith(".svg"):
        assert b"the story's options" in first


def test_a_calibration_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "calibration.svg"

    assert main(["simulate", "--calibrate", str(ROOT / "docs/storm"), "--plot", str(path)]) == 0
    assert "owner-dead, " in path.read_text(encoding="utf-8")


def test_what_cannot_be_drawn_is_said_before_anything_is_simulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(name: str) -> str:
        assert main(["simulate", "-i", str(write_fleet(tmp_path)), "--plot", str(tmp_path / name)]) == 2
        spoken = capsys.readouterr()
        assert spoken.out == ""
        return spoken.err

    assert "a picture is written as .svg or .png" in said("storm.pdf")
    assert "Make it first" in said("nowhere/storm.svg")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "--plot draws with matplotlib, which cannot be loaded" in said("storm.svg")
