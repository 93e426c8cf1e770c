# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The brake on real sites: some are off, one reboots while it is held, and the rate of a release is kept.

Every run holds one site and sees it come back by itself. LONG=1 does the rest, SPOKEWRIGHT_HOLD_SITES=100 with many.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from integration.labtools import (
    PLAN,
    ROOT,
    Run,
    fleet,
    fleet_of,
    kill,
    lab,
    newest_keys,
    on,
    playbook,
    status,
    up,
    wait_for,
    wait_up,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SITES = int(os.environ.get("SPOKEWRIGHT_HOLD_SITES", "8"))
ALL = [f"site-{number:04}" for number in range(1, SITES + 1)]
# One in twenty is a canary and stays up, the others are held; one in twenty of these is off.
CANARIES = ALL[::20]
HELD = [site for site in ALL if site not in CANARIES]
OFF = HELD[-max(1, SITES // 20) :]
REBOOTED, LATER_OFF = HELD[0], HELD[1]
# With few sites slow enough to measure, with many quick enough to wait for.
PER_MINUTE = 20 if SITES < 40 else 60
CLIENT = "openvpn-client@spokewright"
REASON = "a storm that is none"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
    pytest.mark.usefixtures("lab_goes_off"),
    pytest.mark.timeout(1500),
]


@pytest.fixture(scope="module", autouse=True)
def whole_fleet() -> Iterator[None]:
    """Every site has power and nobody is held, before and after."""
    with fleet_of(SITES):
        yield
        for site in (*OFF, LATER_OFF, REBOOTED):
            lab("boot", site)
        fleet("release", "--all", "--rate", "10/s")


def report(run: Run) -> dict[str, Any]:
    """What a command said as data, behind its progress."""
    found: dict[str, Any] = json.loads(run.output[run.output.index("{\n") :])
    return found


def verdicts() -> dict[str, str]:
    return {one["id"]: one["verdict"] for one in status()["sites"]}


def runs(site: str) -> bool:
    return on(site, f"systemctl is-active {CLIENT}").output.strip() == "active"


def started(site: str) -> float:
    """When its client started, by the clock that all hosts of the lab share."""
    said = on(site, f"systemctl show --value -p ExecMainStartTimestampMonotonic {CLIENT}").output
    return int(said.strip()) / 1e6


def hold(*words: str) -> Run:
    return fleet("hold", *words, "--reason", REASON, "--format", "json")


def told(sites: list[str]) -> list[str]:
    return [site for site in sites if site not in OFF]


@pytest.mark.long
def test_1_all_but_the_sites_that_are_off_are_held_and_a_second_time_is_no_change() -> None:
    for site in OFF:
        assert lab("kill", site).status == 0
    foretold = report(hold("north", "south", "--for", "30m", "--check"))
    assert {site for site, one in foretold["sites"].items() if one["changed"]} == set(told(HELD))
    assert all(runs(site) for site in told(HELD)[:3])

    began = time.monotonic()
    run = hold("north", "south", "--for", "30m")
    took = time.monotonic() - began
    found = report(run)
    assert (run.status, set(found["failed_sites"])) == (1, set(OFF)), run.output
    assert {site for site, one in found["sites"].items() if one["changed"]} == set(told(HELD))
    assert all(one["held"] > 1700 for one in found["sites"].values() if one["ok"])
    # Who is off costs its own time and nobody else's.
    assert took < 30 + SITES * 0.2, took

    again = report(hold("north", "south", "--for", "30m"))
    assert (again["changed"], set(again["failed_sites"])) == (False, set(OFF))


@pytest.mark.long
def test_2_nobody_who_is_held_is_up_and_the_status_says_until_when() -> None:
    wait_for("the sessions end", lambda: not set(HELD) & up(), seconds=60)
    data = status()
    rows = {one["id"]: one for one in data["sites"]}
    assert {site for site, one in rows.items() if one["verdict"] == "held"} == set(told(HELD))
    assert all(rows[site]["verdict"] in {"up", "flapping"} for site in CANARIES)
    # Whether anybody has ever looked at this fleet before is not known here.
    assert {rows[site]["verdict"] for site in OFF} <= {"down", "never seen"}
    assert data["summary"]["held"] == len(told(HELD))
    assert data["summary"]["well"] is False
    one = rows[REBOOTED]
    assert one["held_until"] in one["why"]
    assert one["held_reason"] == REASON


@pytest.mark.long
def test_3_a_site_that_reboots_while_it_is_held_stays_held() -> None:
    assert lab("kill", REBOOTED).status == 0
    assert "does not answer out of band" in {one["id"]: one["why"] for one in status()["sites"]}[REBOOTED]
    assert lab("boot", REBOOTED).status == 0
    wait_for("it is back", lambda: verdicts()[REBOOTED] == "held", seconds=60)
    # Long enough for a client to come up.
    time.sleep(10)
    assert not runs(REBOOTED)
    assert on(REBOOTED, "systemctl is-active spokewright-hold").output.strip() == "active"
    assert on(REBOOTED, f"systemctl restart {CLIENT}; pgrep -x openvpn").output.strip() == ""


@pytest.mark.long
def test_4_a_release_keeps_its_rate_names_who_is_off_and_goes_on_after_a_kill() -> None:
    assert lab("kill", LATER_OFF).status == 0
    due = [site for site in told(HELD) if site != LATER_OFF]
    process = subprocess.Popen(
        [ROOT / "tools" / "fleet", "release", "north", "south", "--rate", f"{PER_MINUTE}/min", "-i", PLAN],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for("the first is released", lambda: any(runs(site) for site in due[:4]), seconds=60)
    kill(process)
    time.sleep(3)
    before = {site for site, one in verdicts().items() if one == "held"}
    assert before, "it was killed too late"
    assert len(before) < len(due)

    run = fleet("release", "north", "south", "--rate", f"{PER_MINUTE}/min", "--format", "json")
    found = report(run)
    assert set(found["failed_sites"]) == {*OFF, LATER_OFF}, run.output
    assert run.status == 1
    released = [site for site, one in found["sites"].items() if one["changed"]]
    assert set(released) == before
    assert found["stopped"] == ""
    assert found["waited_seconds"] < 2
    assert found["measured_per_minute"] == pytest.approx(PER_MINUTE, rel=0.1)
    # The sites' own word on it; how long a login takes differs from one to the next.
    starts = sorted(started(site) for site in released)
    window = (len(starts) - 1) * 60 / PER_MINUTE
    assert starts[-1] - starts[0] == pytest.approx(window, rel=0.1, abs=1.5)
    wait_up(set(due), seconds=30)
    assert report(fleet("release", *due, "--format", "json"))["changed"] is False


@pytest.mark.long
def test_5_a_site_that_was_off_meanwhile_is_still_held_when_it_is_back() -> None:
    assert lab("boot", LATER_OFF).status == 0
    wait_for("it is back", lambda: verdicts()[LATER_OFF] == "held", seconds=60)
    assert fleet("release", LATER_OFF).status == 0
    for site in OFF:
        assert lab("boot", site).status == 0
    # They were never told.
    wait_up(set(ALL), seconds=90)


def test_6_without_a_controller_a_hold_ends_by_itself() -> None:
    site = HELD[-1]
    assert fleet("hold", site, "--for", "20s").status == 0
    began = time.monotonic()
    time.sleep(12)
    assert not runs(site)
    wait_for("its time is over", lambda: runs(site), seconds=60)
    assert 18 <= time.monotonic() - began < 45
    wait_up({site}, seconds=30)
    assert on(site, "ls /etc/spokewright/state; ls /etc/systemd/system").output.count("hold") == 0


@pytest.mark.long
def test_7_the_plays_do_the_same_and_check_tells_the_truth() -> None:
    site = HELD[0]
    options = ("-e", f"sites={site}", "-e", "for=10m", "-e", "reason=play")
    assert playbook("hold_sites.yml", *options, "--check").changed == {site: 1}
    assert runs(site)
    held = playbook("hold_sites.yml", *options)
    assert (held.status, held.changed) == (0, {site: 1}), held.output[-3000:]
    assert not runs(site)
    assert playbook("hold_sites.yml", *options).changed == {}

    release = ("-e", f"sites={site}", "-e", "rate=60/min")
    assert playbook("release_sites.yml", *release, "--check").changed == {site: 1}
    assert not runs(site)
    released = playbook("release_sites.yml", *release)
    assert (released.status, released.changed) == (0, {site: 1}), released.output[-3000:]
    assert playbook("release_sites.yml", *release).changed == {}
    assert playbook("hold_sites.yml", "-e", "group=nowhere").status != 0


@pytest.mark.long
def test_8_a_rotation_parks_a_held_site_and_takes_it_up_after_its_release() -> None:
    site, other = HELD[0], HELD[2]
    before = newest_keys()
    assert fleet("hold", site, "--for", "10m", "--reason", REASON).status == 0
    options = ("-e", f"reason='held {time.time():.0f}'", "-e", f"sites={site},{other}")
    run = playbook("rotate_keys.yml", *options)
    assert run.status == 2, run.output[-3000:]
    said = " ".join(run.output.split())
    assert "1 done, 1 parked" in said
    assert "held for another" in said
    assert newest_keys()[other] == (before[other][0] + 1, "confirmed")
    assert not runs(site)

    assert fleet("release", site).status == 0
    again = playbook("rotate_keys.yml", *options)
    assert again.status == 0, again.output[-3000:]
    assert newest_keys()[site] == (before[site][0] + 1, "confirmed")
