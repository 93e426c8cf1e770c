# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change of the pair in order, what is refused, planned moves, and what tools/fleet pair finds."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from integration.labtools import INVENTORY, daemon_pids, fleet, fleet_of, lab, on, owner, playbook, status

if TYPE_CHECKING:
    from collections.abc import Iterator

SITES = 4
VIP = "198.19.0.1"
OTHER = {"gw1": "gw2", "gw2": "gw1"}

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
    pytest.mark.usefixtures("lab_goes_off"),
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module", autouse=True)
def running_fleet() -> Iterator[None]:
    """Shared by all tests here."""
    with fleet_of(SITES):
        yield


def pair() -> dict[str, Any]:
    """What tools/fleet pair says, as data."""
    report: dict[str, Any] = json.loads(fleet("pair", "--format", "json").output)
    return report


def hindrances() -> list[str]:
    """Everything but notices."""
    return [one["text"] for one in pair()["problems"] if one["weight"] != "notice"]


def all_up() -> bool:
    """Whether every site has its tunnel."""
    summary = status()["summary"]
    return bool(summary["up"] == summary["total"] >= SITES)


def until_fit(seconds: float = 60) -> None:
    """A score takes some seconds to be well again."""
    deadline = time.monotonic() + seconds
    while hindrances() and time.monotonic() < deadline:
        time.sleep(1)
    assert hindrances() == []


def test_a_healthy_pair_is_well_and_alike() -> None:
    until_fit()
    report = pair()

    assert fleet("pair").status == 0
    assert {report["owner"], report["standby"]} == {"gw1", "gw2"}
    assert [one["what"] for one in report["parity"] if not one["same"]] == []
    assert len(report["parity"]) > 10


@pytest.mark.long
def test_a_stranger_with_a_virtual_address_is_found_and_nothing_is_changed() -> None:
    pids = daemon_pids()
    on("site-0001", f"ip address add {VIP}/32 dev fr0")
    try:
        told = hindrances()
        refused = playbook("gateways.yml")
        moved = playbook("failover.yml")
    finally:
        on("site-0001", f"ip address del {VIP}/32 dev fr0")

    assert any("(neither gateway)" in one and f"{VIP} on frame_relay" in one for one in told), told
    assert refused.status != 0
    assert "so neither gateway is touched" in " ".join(refused.output.split())
    assert refused.changed == {}
    assert moved.status != 0
    assert "The pair is not fit for a planned move" in moved.output
    assert daemon_pids() == pids
    until_fit()


@pytest.mark.parametrize("name", ["gateways.yml", "check.yml"])
def test_a_virtual_address_that_one_gateway_has_alone_is_refused_before_anything_is_touched(name: str) -> None:
    pids = daemon_pids()
    overruling = INVENTORY / "host_vars" / "gw2.yml"
    overruling.parent.mkdir(exist_ok=True)
    overruling.write_text("fleet_inside: {vip: 10.200.0.9, network: 10.200.0.0/24, vrrp_id: 10}\n", encoding="utf-8")
    try:
        refused = playbook(name)
    finally:
        overruling.unlink()
        overruling.parent.rmdir()

    said = " ".join(refused.output.split())
    assert refused.status != 0
    assert "The virtual addresses of gw1 and of gw2 differ: " in said
    assert "10.200.0.9" in said
    assert refused.changed == {}
    assert daemon_pids() == pids


@pytest.mark.long
def test_a_change_of_sites_restarts_nothing_and_moves_nothing() -> None:
    before, pids, registry = owner(), daemon_pids(), INVENTORY / "sites.csv"
    text = registry.read_text(encoding="utf-8")
    since = {site["id"]: site["since"] for site in status()["sites"]}
    registry.write_text(text.replace("10.202.4.0/24", "10.203.4.0/24"), encoding="utf-8")
    try:
        changed = playbook("gateways.yml")
    finally:
        registry.write_text(text, encoding="utf-8")
        back = playbook("gateways.yml")

    assert changed.status == back.status == 0, changed.output[-3000:]
    assert set(changed.changed) == {"gw1", "gw2"}
    assert "gives the addresses" not in changed.output + back.output
    assert (owner(), daemon_pids()) == (before, pids)
    after = {site["id"]: site["since"] for site in status()["sites"]}
    assert {site for site in after if after[site] != since[site]} <= {"site-0004"}


@pytest.mark.long
def test_a_change_that_restarts_daemons_moves_the_addresses_first() -> None:
    before, pids = owner(), daemon_pids()

    said = playbook("gateways.yml", "--check", "-e", "tunnel_server_verb=4")
    assert said.status == 0, said.output[-3000:]
    assert f"{before} would give the addresses to {OTHER[before]}" in said.output
    assert (owner(), daemon_pids()) == (before, pids)

    done = playbook("gateways.yml", "-e", "tunnel_server_verb=4")

    assert done.status == 0, done.output[-5000:]
    assert owner() == OTHER[before]
    assert not set(daemon_pids().values()) & set(pids.values()), "a daemon was not restarted"
    # The old owner's daemons run until its sites are up at the other one.
    gave = done.output.index(f"{before} gives the addresses to {OTHER[before]}")
    restart = done.output.index(f"{before}: tun0: its configuration")
    assert gave < restart
    assert all_up()
    assert playbook("gateways.yml", "-e", "tunnel_server_verb=4").changed == {}


@pytest.mark.long
def test_a_standby_that_does_not_reach_inside_forbids_a_change_and_a_move() -> None:
    before, pids = owner(), daemon_pids()
    standby = OTHER[before]
    assert lab("cut", standby, "inside", "--how", "silent").status == 0
    try:
        deadline = time.monotonic() + 20
        while not hindrances() and time.monotonic() < deadline:
            time.sleep(1)
        refused = playbook("gateways.yml", "-e", "tunnel_server_verb=5")
        moved = playbook("failover.yml")
    finally:
        lab("mend", standby, "inside")

    said = " ".join(refused.output.split())
    assert refused.status != 0
    assert "so neither gateway is touched" in said
    assert f"{standby} hears no answer for 10.200.0.1 on inside" in said
    assert moved.status != 0
    assert (owner(), daemon_pids()) == (before, pids)


@pytest.mark.long
def test_a_standby_that_a_run_can_mend_is_mended() -> None:
    until_fit()
    before = owner()
    standby = OTHER[before]
    on(standby, "systemctl stop keepalived openvpn-server@tun0")
    assert any(f"{standby}: keepalived does not run" in one for one in hindrances())
    assert playbook("failover.yml", "--check").status != 0

    run = playbook("gateways.yml", "-e", "tunnel_server_verb=4")

    assert run.status == 0, run.output[-3000:]
    assert f"{standby}: keepalived does not run" in " ".join(run.output.split())
    assert owner() == before
    until_fit()


@pytest.mark.long
def test_a_drill_goes_there_and_back_and_keeps_a_report() -> None:
    before = owner()

    run = playbook("failover.yml", "-e", "drill=true", "-e", "limit_seconds=5")

    assert run.status == 0, run.output[-3000:]
    assert owner() == before
    report = json.loads((INVENTORY / "reports" / "failover-latest.json").read_text(encoding="utf-8"))
    assert report["passed"] is True
    assert [one["to"] for one in report["moves"]] == [OTHER[before], before]
    for one in report["moves"]:
        print(one["to"], one["addresses_seconds"], one["worst_seconds"])  # noqa: T201 - the measured figures
        assert len(one["sites"]) == len(status()["sites"])
        assert one["addresses_seconds"] < 1
    assert all_up()


@pytest.mark.long
def test_a_switchover_to_the_owner_itself_does_nothing() -> None:
    before = owner()

    assert playbook("failover.yml", "-e", f"to={before}").changed == {}
    assert playbook("failover.yml", "-e", f"to={OTHER[before]}").status == 0
    assert owner() == OTHER[before]
