# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gateways that die, leave and return."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from faultlib import pair, scene
from faults.cases import BOTH_ROLES, TIMEOUT, case
from faults.stage import OVERLAP_SECONDS, PUSHED_SECONDS

if TYPE_CHECKING:
    from faults.stage import Stage

pytestmark = [TIMEOUT]

BACK_SECONDS = 15.0


@case("planned-switchover", short="gw1")
@BOTH_ROLES
def test_the_owner_hands_over_in_a_planned_way(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="planned-switchover") as trial:
        trial.fault = scene.hand_over(owner)
        trial.settle()

    trial.assert_moved()
    trial.assert_sites(within=PUSHED_SECONDS)


@case("owner-dead", short="gw2")
@BOTH_ROLES
def test_the_owners_host_dies(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="owner-dead") as trial:
        trial.fault = trial.kill(owner)
        trial.settle()

    trial.assert_moved()
    trial.assert_sites()


@case("owner-dead-with-heartbeat")
@BOTH_ROLES
def test_the_owner_dies_and_takes_the_heartbeats_cable_with_it(stage: Stage, owner: str) -> None:
    """As on a direct cable between the two: the standby sees its carrier go in the same instant."""
    with stage.trial(owner=owner, name="owner-dead-with-heartbeat") as trial:
        trial.fault = trial.kill(owner)
        scene.cut(trial.standby, "oob", how="cable")
        trial.settle()

    trial.assert_moved()
    trial.assert_sites()


@case("standby-dead")
@BOTH_ROLES
def test_the_standby_dies(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="standby-dead") as trial:
        trial.fault = trial.kill(trial.standby)
        trial.settle()

    trial.assert_unmoved()


@case("old-owner-returns")
@BOTH_ROLES
def test_an_old_owner_that_returns_changes_nothing(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="old-owner-returns") as trial:
        trial.kill(owner)
        trial.settle()
        trial.fault = trial.boot(owner)
        pair.wait_whole(stage.view)
        trial.settle(after=5)

    trial.assert_one_owner(trial.standby)
    assert [trial.role_changes(vip) for vip in stage.view.vips.values()] == [0] * len(stage.view.vips)
    trial.assert_sites(within=1.0, longest=1.0)


@case("both-down-one-back")
@BOTH_ROLES
def test_of_two_dead_gateways_one_comes_back(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="both-down-one-back") as trial:
        trial.kill(trial.standby)
        trial.kill(owner)
        time.sleep(20)
        trial.fault = trial.boot(owner)
        trial.settle(seconds=60)

    # Booted from nothing it waits for a peer that does not answer, then takes everything.
    trial.assert_one_owner(owner)
    trial.assert_sites(within=trial.moved(to=owner) + BACK_SECONDS)


@case("reboot-owner")
@BOTH_ROLES
def test_a_reboot_of_the_owner_leads_back_to_a_whole_pair(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="reboot-owner") as trial:
        trial.fault = reboot(trial.owner)
        pair.wait_whole(stage.view)
        trial.settle()

    trial.assert_moved(overlap=OVERLAP_SECONDS)
    trial.assert_sites()
    assert pair.problems(stage.view) == []


@case("reboot-standby")
@BOTH_ROLES
def test_a_reboot_of_the_standby_leads_back_to_a_whole_pair(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="reboot-standby") as trial:
        trial.fault = reboot(trial.standby)
        pair.wait_whole(stage.view)
        trial.settle()

    trial.assert_unmoved()
    assert pair.problems(stage.view) == []


def reboot(host: str) -> float:
    """Shut down in order, then boot: services are stopped, nothing is torn off."""
    when = time.monotonic()
    scene.on(host, "systemctl poweroff --no-wall")
    end = time.monotonic() + 60
    while scene.running(host) and time.monotonic() < end:
        time.sleep(0.1)
    scene.boot(host)
    return when
