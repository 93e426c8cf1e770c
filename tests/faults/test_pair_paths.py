# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cables, networks that die behind a carrier, and the paths of the heartbeat."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from faultlib import holders, scene
from faults.cases import BOTH_ROLES, TIMEOUT, case
from faults.stage import UNMOVED_HOLE_SECONDS

if TYPE_CHECKING:
    from faults.stage import Stage, Trial

pytestmark = [TIMEOUT]

SILENT_VIP_SECONDS = 6.0
FLAPS = 6
DEAF_SECONDS = 12.0
HEARD_SECONDS = 1.0
# A lease of three seconds, half as long again, and some looks of the health daemon.
FOUND_OUT_SECONDS = 6.0
EVERY_PATH = ("inside", "frame_relay", "internet", "oob")
INTERFACES = {"inside": "inside0", "frame_relay": "fr0", "internet": "inet0", "oob": "oob0"}


def deafen(host: str, *networks: str, both_ways: bool) -> float:
    """Let no VRRP of these networks reach the host, or leave it; everything else passes."""
    names = ", ".join(INTERFACES[network] for network in networks)
    hooks = [("input", "iifname")] + ([("output", "oifname")] if both_ways else [])
    chains = "".join(
        f"chain {hook} {{ type filter hook {hook} priority -400; "
        f"{where} {{ {names} }} meta l4proto 112 counter drop; }}; "
        for hook, where in hooks
    )
    when = time.monotonic()
    scene.must(host, f"nft 'table ip faults {{ {chains} }}'")
    return when


def undeafen(host: str) -> float:
    when = time.monotonic()
    scene.must(host, "nft delete table ip faults")
    return when


@case("inside-cable")
@BOTH_ROLES
def test_the_owners_inside_cable_is_cut(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="inside-cable") as trial:
        trial.fault = scene.cut(owner, "inside", how="cable")
        trial.settle()

    trial.assert_moved()
    trial.assert_sites()


@case("outside-cable", short="gw1")
@BOTH_ROLES
def test_the_owners_outside_cable_is_cut(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="outside-cable") as trial:
        trial.fault = scene.cut(owner, "frame_relay", how="cable")
        trial.settle()

    trial.assert_moved()
    trial.assert_sites()


@case("second-transport-cable")
@BOTH_ROLES
def test_the_cable_of_the_second_transport_is_cut(stage: Stage, owner: str) -> None:
    """A penalty that makes a standby less fit, and no reason to have every site begin anew: nothing moves."""
    with stage.trial(owner=owner, name="second-transport-cable") as trial:
        trial.fault = scene.cut(owner, "internet", how="cable")
        # Long enough for the health daemon to have judged it.
        trial.settle(after=5.0)

    trial.assert_one_owner(owner, unheard=("internet",))
    assert all(trial.role_changes(vip) == 0 for vip in stage.view.vips.values())
    trial.assert_sites(within=UNMOVED_HOLE_SECONDS, longest=UNMOVED_HOLE_SECONDS)


@case("inside-silent", short="gw2")
@BOTH_ROLES
def test_the_inside_network_dies_behind_the_owners_carrier(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="inside-silent") as trial:
        trial.fault = scene.cut(owner, "inside", how="silent")
        trial.settle()

    trial.assert_moved(within=SILENT_VIP_SECONDS)
    trial.assert_sites()


@case("outside-silent")
@BOTH_ROLES
def test_the_outside_network_dies_behind_the_owners_carrier(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="outside-silent") as trial:
        trial.fault = scene.cut(owner, "frame_relay", how="silent")
        trial.settle()

    trial.assert_moved(within=SILENT_VIP_SECONDS)
    trial.assert_sites()


@case("core-dead")
@BOTH_ROLES
def test_a_dead_core_router_moves_nothing(stage: Stage, owner: str) -> None:
    """Both gateways see it dead: neither is better than the other."""
    with stage.trial(owner=owner, name="core-dead") as trial:
        cut = scene.cut("core1", "inside", how="silent")
        time.sleep(8)
        trial.fault = scene.mend("core1", "inside")
        trial.settle()

    for vip in stage.view.vips.values():
        assert holders.role_changes(trial.seen.events, vip=vip, begin=cut, end=trial.seen.ended) == 0
    trial.assert_one_owner(owner)
    trial.assert_sites()


@case("heartbeat-one-path")
@BOTH_ROLES
@pytest.mark.parametrize("network", ["inside", "frame_relay", "oob"])
def test_adverts_lost_on_one_path_move_nothing(stage: Stage, owner: str, network: str) -> None:
    with stage.trial(owner=owner, name=f"heartbeat-one-path-{network}") as trial:
        trial.fault = deafen(trial.standby, network, both_ways=True)
        trial.settle(after=4)
        undeafen(trial.standby)

    trial.assert_unmoved()


@case("heartbeat-two-paths")
@BOTH_ROLES
@pytest.mark.parametrize("left", ["inside", "oob"])
def test_adverts_that_come_through_on_one_path_are_enough(stage: Stage, owner: str, left: str) -> None:
    lost = [network for network in EVERY_PATH if network != left]
    with stage.trial(owner=owner, name=f"heartbeat-only-{left}") as trial:
        trial.fault = deafen(trial.standby, *lost, both_ways=True)
        trial.settle(after=4)
        undeafen(trial.standby)

    trial.assert_unmoved()


@case("heartbeat-cable")
@BOTH_ROLES
def test_the_heartbeats_cable_is_pulled(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="heartbeat-cable") as trial:
        trial.fault = scene.cut(owner, "oob", how="cable")
        trial.settle(after=4)

    trial.assert_unmoved()


@case("all-paths-cut")
@BOTH_ROLES
def test_two_gateways_that_hear_nothing_of_each_other_find_together_again(stage: Stage, owner: str) -> None:
    """Nobody hears that there is another owner. What counts is the end: one owner, no site left behind."""
    with stage.trial(owner=owner, name="all-paths-cut") as trial:
        deafen(trial.standby, *EVERY_PATH, both_ways=True)
        time.sleep(DEAF_SECONDS)
        trial.fault = undeafen(trial.standby)
        trial.settle()

    healed = trial.fault + 1.0
    for vip in stage.view.vips.values():
        assert holders.overlaps(trial.seen.events, vip=vip, begin=healed, end=trial.seen.ended) == []
        assert holders.gaps(trial.seen.events, vip=vip, begin=healed, end=trial.seen.ended) == []
    trial.assert_one_owner("gw2", overlap=FOUND_OUT_SECONDS)
    trial.assert_sites()


@case("one-way-loss")
@BOTH_ROLES
def test_a_standby_that_hears_nothing_is_no_second_owner_for_long(stage: Stage, owner: str) -> None:
    """Deaf, the gateway with the higher addresses is heard and obeyed at once. The other one has to find out by ARP."""
    with stage.trial(owner=owner, name="one-way-loss") as trial:
        trial.fault = deafen(trial.standby, *EVERY_PATH, both_ways=False)
        time.sleep(DEAF_SECONDS)
        deaf_until = undeafen(trial.standby)
        trial.settle(after=5)

    within = HEARD_SECONDS if trial.standby == "gw2" else FOUND_OUT_SECONDS
    for vip in stage.view.vips.values():
        double = holders.overlaps(trial.seen.events, vip=vip, begin=trial.fault, end=deaf_until)
        assert sum(one.seconds for one in double) <= within, f"two owners: {double}"
    trial.assert_one_owner("gw2", overlap=within)
    trial.assert_sites()


@case("deaf-standby-takes-over")
def test_a_deaf_standby_that_gave_way_takes_over_when_the_owner_dies(stage: Stage) -> None:
    with stage.trial(owner="gw2", name="deaf-standby-takes-over") as trial:
        deafen(trial.standby, *EVERY_PATH, both_ways=False)
        time.sleep(DEAF_SECONDS)
        trial.fault = trial.kill(trial.owner)
        trial.settle()
        undeafen(trial.standby)

    trial.assert_moved(overlap=FOUND_OUT_SECONDS)
    trial.assert_sites()


@case("link-flaps")
@BOTH_ROLES
def test_six_flaps_of_a_link_change_the_roles_once_at_most(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="link-flaps") as trial:
        flap_outside(trial)
        trial.settle()

    assert max(trial.role_changes(vip) for vip in stage.view.vips.values()) <= 1
    (gateway,) = trial.seen.holders(stage.view.inside_vip)
    trial.assert_one_owner(gateway)
    trial.assert_sites()


def flap_outside(trial: Trial) -> None:
    for number in range(FLAPS):
        when = scene.cut(trial.owner, "frame_relay", how="cable")
        trial.fault = trial.fault if number else when
        time.sleep(0.7)
        scene.mend(trial.owner, "frame_relay")
        time.sleep(1.3)
