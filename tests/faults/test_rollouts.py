# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts that have to wait, are given up half-way, or meet each other; each site works with a key all the time."""

from __future__ import annotations

import json
import os
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from faults.cases import IN_LONG
from faults.test_rotation import HELD_UP, SEED, SITES_FAILED, rotated
from integration.labtools import (
    PLAN,
    Run,
    begin,
    fleet,
    fleet_of,
    kill,
    lab,
    newest_keys,
    playbook,
    wait_for,
    wait_pair,
    wait_up,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SITES = 8
ALL = [f"site-{number:04}" for number in range(1, SITES + 1)]
ROLLOUTS = PLAN.parent / "rollouts"
LOCKED = 4

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def running_fleet() -> Iterator[None]:
    """Shared by all tests here."""
    with fleet_of(SITES):
        yield


def said(run: Run) -> str:
    return " ".join(run.output.split())


def planned(name: str, *options: str) -> str:
    rollout = f"{name}-{SEED}"
    made = fleet("rollout", "plan", "--id", rollout, "--what", "keys", "--reason", rollout, *options)
    assert made.status == 0, made.output
    return rollout


def run(rollout: str) -> Run:
    return playbook("rollout.yml", "-e", f"rollout={rollout}")


def shown(rollout: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fleet("rollout", "show", rollout, "--format", "json").output)
    return found


def report(rollout: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PLAN.parent / "reports" / rollout / "report.json").read_text())
    return found


@pytest.mark.case("rollout-two-at-once", short=("",))
def test_a_second_rotation_is_refused_with_the_firsts_id_and_holder() -> None:
    wait_pair()
    before = newest_keys()
    claim = ROLLOUTS / "claim.json"
    claim.unlink(missing_ok=True)
    first = begin("rotate_keys.yml", "-e", f"reason='first {SEED}'")
    wait_for("the first run claims", claim.exists)
    second = playbook("rotate_keys.yml", "-e", f"reason='second {SEED}'")
    assert first.poll() is None, "the first run ended too early to be met"
    assert first.wait() == 0
    assert second.status == LOCKED
    found = re.search(rf"rollout (\S+) \(keys: first {SEED}\) by \S+ \(pid {first.pid}\) since ", said(second))
    assert found, second.output
    assert shown(found[1])["outcome"] == "finished"
    assert newest_keys() == {site: (epoch + 1, "confirmed") for site, (epoch, _state) in before.items()}


@pytest.mark.case("rollout-aborted", short=("",))
def test_a_rotation_that_is_given_up_half_way_leaves_every_site_on_a_key_it_has_confirmed() -> None:
    wait_pair()
    before = {site: epoch for site, (epoch, _state) in newest_keys().items()}
    rollout = planned("given-up", "--canary", "2")
    running = begin("rollout.yml", "-e", f"rollout={rollout}")
    # The canary is confirmed; the others of its group, or the next one, are on probation.
    state = ROLLOUTS / rollout / "state.json"

    def second_wave() -> bool:
        waves = json.loads(state.read_text())["waves"] if state.exists() else []
        return any(wave["state"] == "running" for wave in waves[1:])

    wait_for("the second wave begins", second_wave, seconds=120)
    time.sleep(1.5)
    assert fleet("rollout", "abort", rollout).status != 0, "a rollout that is at work is not given up under its hands"
    kill(running)
    given_up = fleet("rollout", "abort", rollout)
    assert given_up.status == 0, given_up.output
    wait_up(set(ALL), seconds=60)

    states = {site: line["state"] for site, line in shown(rollout)["sites"].items()}
    found = newest_keys()
    done = {site for site, one in states.items() if one == "done"}
    assert done, states
    assert found == {site: (epoch + (site in done), "confirmed") for site, epoch in before.items()}
    assert playbook("sites.yml").changed == {}
    again = run(rollout)
    assert f"rollout {rollout} was aborted. Plan a new one" in said(again)

    wait_pair()
    later = playbook("rotate_keys.yml", "-e", f"reason='after {rollout}'")
    assert later.status == 0, later.output[-3000:]
    assert {state for _epoch, state in newest_keys().values()} == {"confirmed"}
    assert fleet("status").status == 0
    assert fleet("ledger", "verify").status == 0


@pytest.mark.case("rollout-unreachable", short=IN_LONG)
def test_more_unreachable_sites_than_the_budget_halt_it_before_anybody_is_changed() -> None:
    wait_pair()
    before = {site: epoch for site, (epoch, _state) in newest_keys().items()}
    rollout = planned("unreachable", "--unreachable", "1")
    off = ALL[-2:]
    for site in off:
        assert lab("kill", site).status == 0
    try:
        halted = run(rollout)
        assert halted.status == HELD_UP
        assert "halted: 2 sites could not be reached, the budget for that is 1" in said(halted)
        assert {line["state"] for line in report(rollout)["sites"].values()} == {"parked", "waiting"}
        assert lab("boot", off[0]).status == 0
        wait_up(set(ALL) - {off[1]}, seconds=60)
        partly = run(rollout)
    finally:
        for site in off:
            lab("boot", site)
    assert partly.status == SITES_FAILED, partly.output[-3000:]
    summary = report(rollout)["summary"]
    # The fleet that is there may be a larger one.
    assert (summary["done"], summary["parked"], summary["failed"]) == (summary["total"] - 1, 1, 0)
    wait_up(set(ALL), seconds=60)

    whole = run(rollout)
    assert whole.status == 0, whole.output[-3000:]
    assert set(whole.changed) == {off[1]}
    assert report(rollout)["summary"]["done"] == summary["total"]
    rotated(before)
