# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tools/fleet simulate prints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity import Demand, look_ahead
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_file import Capacity, write_capacity
from fleetlib import simulate
from fleetlib.cli import main
from unit.plugin_utils.fleet_files import write_fleet
from unit.plugin_utils.test_capacity import FIGURES

if TYPE_CHECKING:
    import pytest

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


def test_it_knows_what_the_role_gives_a_daemon() -> None:
    defaults = yaml.safe_load((ROOT / "roles/tunnel_server/defaults/main.yml").read_text(encoding="utf-8"))

    assert defaults["tunnel_server_socket_buffer"] == simulate.RCVBUF
    assert defaults["tunnel_server_hand_window"] == simulate.HAND_WINDOW
    assert defaults["tunnel_server_capacity"] == simulate.CAPACITY
