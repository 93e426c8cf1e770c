# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rotation of all keys that goes wrong: killed at any moment, with hosts that lose their power, with sites that fail.

Whatever happens, each site that has power works with a key, and the same command, run again, finishes.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from typing import TYPE_CHECKING

import pytest

from faults.cases import IN_LONG
from integration.labtools import (
    Run,
    begin,
    fleet,
    fleet_of,
    kill,
    lab,
    newest_keys,
    on,
    playbook,
    status,
    wait_pair,
    wait_up,
    well,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# In `make e2e` a few; `make fault CASE=rotation-killed RUNS=30` for the whole of it.
RUNS = int(os.environ.get("RUNS") or 2)
SITES = int(os.environ.get("SPOKEWRIGHT_ROTATION_SITES") or (20 if RUNS > 3 else 8))
EVERY = max(1, RUNS // 5)
SEED = int(os.environ.get("SEED") or time.time())
ALL = [f"site-{number:04}" for number in range(1, SITES + 1)]
CANARY = "site-0001"
GATEWAYS = ("gw1", "gw2")
DENIED = "/etc/openvpn/server/denied"
# A keepalive timeout, and a little.
GONE_SECONDS = 8
# What a run ends with (docs/rollout-reports.md).
SITES_FAILED, HELD_UP = 2, 3
# The gate gives up soon, and a site goes back soon after that.
HASTY = ("-e", '{"fleet_policies": {"gate_seconds": 12, "deadman_seconds": 45, "advert_seconds": 0.1}}')

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
    pytest.mark.usefixtures("lab_goes_off"),
    pytest.mark.timeout(600 + 180 * RUNS),
]


@pytest.fixture(scope="module", autouse=True)
def running_fleet() -> Iterator[None]:
    """Shared by all tests here."""
    with fleet_of(SITES, exactly=True):
        yield


def rotate(reason: str, *more: str) -> Run:
    return playbook("rotate_keys.yml", "-e", f"reason='{reason}'", *more)


def epochs() -> dict[str, int]:
    """The epoch that the owner saw each site with."""
    return {site["id"]: site["epoch"] for site in status()["sites"]}


def rotated(before: dict[str, int]) -> None:
    """Every site works with the next key, and the books say so."""
    want = {site: epoch + 1 for site, epoch in before.items()}
    assert newest_keys() == {site: (epoch, "confirmed") for site, epoch in want.items()}
    assert epochs() == want
    assert well(set(want))
    checked = fleet("ledger", "verify")
    assert checked.status == 0, checked.output


@pytest.mark.case("rotation-killed", short=("",))
def test_a_rotation_that_is_killed_at_any_moment_is_finished_by_the_same_command() -> None:
    chance = random.Random(SEED)  # noqa: S311 - moments, no keys
    wait_pair()
    before = epochs()
    began = time.monotonic()
    whole = rotate(f"undisturbed {SEED}")
    length = time.monotonic() - began
    assert whole.status == 0, whole.output[-3000:]
    rotated(before)
    for number in range(1, RUNS + 1):
        before = epochs()
        reason = f"killed {SEED} {number}"
        victim = chance.choice(["gw1", "gw2", *ALL]) if number % EVERY == 0 else ""
        moment = chance.uniform(0.3, length)
        told = f"run {number}: killed after {moment:.1f} s of {length:.1f}, without power: {victim or 'nobody'}\n"
        sys.stdout.write(told)
        process = begin("rotate_keys.yml", "-e", f"reason='{reason}'")
        time.sleep(moment)
        kill(process)
        if victim:
            assert lab("kill", victim).status == 0
        wait_up(set(ALL) - {victim}, seconds=60)
        if victim:
            assert lab("boot", victim).status == 0
            wait_up(set(ALL), seconds=60)
            wait_pair()
        again = rotate(reason)
        assert again.status == 0, again.output[-3000:]
        rotated(before)
    idle = rotate(reason)
    assert (idle.status, idle.changed) == (0, {})


@pytest.mark.case("rotation-canary", short=("",))
def test_a_canary_that_does_not_come_back_stops_the_rotation_and_goes_back_by_itself() -> None:
    wait_pair()
    before = epochs()
    reason = f"canary {SEED}"
    # What it sends to the gateways from now on is lost, which nobody sees before the activation begins anew.
    block = "nft add table inet t && nft add chain inet t o '{ type filter hook output priority 0; }' && "
    on(CANARY, f"{block} nft add rule inet t o ip protocol udp ip saddr 198.19.0.0/16 ct state new drop")
    try:
        stopped = rotate(reason, *HASTY)
    finally:
        on(CANARY, "nft delete table inet t")
    assert stopped.status == HELD_UP
    assert "halted: 1 site failed, the budget for that is 0" in " ".join(stopped.output.split())
    found = newest_keys()
    assert {site for site, (_epoch, state) in found.items() if state == "staged"} == set(ALL) - {CANARY}
    assert {site: epoch for site, epoch in epochs().items() if site != CANARY} == {
        site: epoch for site, epoch in before.items() if site != CANARY
    }
    wait_up(set(ALL), seconds=90)

    again = rotate(reason)
    assert again.status == 0, again.output[-3000:]
    rotated(before)


@pytest.mark.case("rotation-power-cut", short=("",))
def test_a_site_without_power_between_activate_and_confirm_goes_back_as_it_boots() -> None:
    wait_pair()
    before = epochs()
    site, reason = ALL[-1], f"power cut {SEED}"
    generation = on(site, "readlink /etc/spokewright/current").output
    assert fleet("key", "regenerate", "--yes", "--reason", reason, site).status == 0
    assert fleet("key", "stage", site).status == 0
    shown = fleet("keys", "--format", "json", site)
    newest = max(json.loads(shown.output)["keys"], key=lambda key: key["epoch"])
    denied = f"{DENIED}/{newest['kid']}"
    for gateway in GATEWAYS:
        # With the new key no gateway lets it in, so it is not by luck that it comes back.
        on(gateway, f"touch {denied}")
    try:
        assert fleet("key", "activate", site).status == 0
        assert lab("kill", site).status == 0
        assert lab("boot", site).status == 0
        # By then no gateway takes the session of before for one that is up.
        time.sleep(GONE_SECONDS)
        # Long before its dead-man timer of two minutes, which went with the power.
        wait_up({site}, seconds=60)
        assert on(site, "readlink /etc/spokewright/current").output == generation
    finally:
        for gateway in GATEWAYS:
            on(gateway, f"rm -f {denied}")
    assert epochs() == before
    again = rotate(reason, "-e", f"sites={site}")
    assert again.status == 0, again.output[-3000:]
    assert epochs() == before | {site: before[site] + 1}


@pytest.mark.case("rotation-unreachable", short=IN_LONG)
def test_a_site_that_cannot_be_reached_is_left_for_the_next_run_and_holds_up_nobody() -> None:
    wait_pair()
    before = epochs()
    reason = f"unreachable {SEED}"
    off = ALL[-1]
    assert lab("kill", off).status == 0
    try:
        without = rotate(reason)
    finally:
        assert lab("boot", off).status == 0
    assert without.status == SITES_FAILED
    assert {site for site, line in without.recap.items() if line.failed} == {off}
    wait_up(set(ALL), seconds=60)
    assert epochs() == {site: epoch + (site != off) for site, epoch in before.items()}

    again = rotate(reason)
    assert again.status == 0, again.output[-3000:]
    assert set(again.changed) == {off}
    rotated(before)
