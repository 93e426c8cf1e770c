# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""keepalived and OpenVPN: stopped, killed, frozen, wrongly configured, on a full disk."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from faultlib import pair, scene
from faults.cases import BOTH_ROLES, TIMEOUT, case, impossible

if TYPE_CHECKING:
    from faultlib.holes import Figures
    from faults.stage import Stage

pytestmark = [TIMEOUT]

CONFIG = "/etc/keepalived/keepalived.conf"
KEEPALIVED = "^keepalived"
FENCE_SECONDS = 4.0
FROZEN_SECONDS = 8.0
WELL_AGAIN_SECONDS = 6.0


def keepalived(host: str, signal: str) -> float:
    """Signal its parent and its children."""
    when = time.monotonic()
    scene.must(host, f"pkill -{signal} '{KEEPALIVED}'")
    return when


@case("keepalived-stopped")
@BOTH_ROLES
def test_the_owners_keepalived_is_stopped(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="keepalived-stopped") as trial:
        trial.fault = time.monotonic()
        scene.must(owner, "systemctl stop keepalived")
        trial.settle()
        scene.must(owner, "systemctl start keepalived")
        pair.wait_whole(stage.view)

    trial.assert_moved()
    trial.assert_sites()


@case("keepalived-killed")
@BOTH_ROLES
def test_every_process_of_the_owners_keepalived_is_killed(stage: Stage, owner: str) -> None:
    """It is started again at once. Whoever owns the addresses then owns them alone."""
    with stage.trial(owner=owner, name="keepalived-killed") as trial:
        trial.fault = keepalived(owner, "KILL")
        pair.wait_whole(stage.view)
        trial.settle()

    (gateway,) = trial.seen.holders(stage.view.inside_vip)
    trial.assert_one_owner(gateway, overlap=1.0)
    trial.assert_sites()


@case("vrrp-child-killed")
@BOTH_ROLES
def test_the_process_that_speaks_vrrp_is_killed(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="vrrp-child-killed") as trial:
        trial.fault = time.monotonic()
        scene.must(owner, "pkill -KILL -x keepalived_vrrp")
        pair.wait_whole(stage.view)
        trial.settle()

    (gateway,) = trial.seen.holders(stage.view.inside_vip)
    trial.assert_one_owner(gateway, overlap=1.0)
    trial.assert_sites()


@case("keepalived-frozen")
@BOTH_ROLES
def test_a_frozen_keepalived_is_replaced_and_the_thawed_host_stands_by(stage: Stage, owner: str) -> None:
    """The other gateway has the addresses at once; the frozen one keeps them until its health daemon ends keepalived.

    What neighbours are told comes from the new owner all the same.
    """
    with stage.trial(owner=owner, name="keepalived-frozen") as trial:
        trial.fault = keepalived(owner, "STOP")
        time.sleep(FROZEN_SECONDS)
        thawed = keepalived(owner, "CONT")
        trial.settle(after=5)

    for network, vip in stage.view.vips.items():
        answers = trial.seen.answering(vip, begin=trial.fault + FENCE_SECONDS, end=thawed)
        assert {stage.view.gateway_of(mac) for mac in answers} == {trial.standby}, network
        assert trial.role_changes(vip) == 1, network
    trial.assert_moved(overlap=FENCE_SECONDS)
    trial.assert_sites()


@case("openvpn-killed", short="gw1")
@BOTH_ROLES
def test_a_killed_daemon_is_started_again_and_nobody_else_notices(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="openvpn-killed") as trial:
        trial.fault = scene.signal_instance(owner, "KILL", first_instance(stage))
        trial.settle()

    trial.assert_one_owner(owner)
    trial.assert_sites()
    assert_others_lost_nothing(stage, trial.figures())


@case("openvpn-frozen")
@BOTH_ROLES
def test_a_frozen_daemon_is_cured_and_nobody_else_notices(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="openvpn-frozen") as trial:
        trial.fault = scene.signal_instance(owner, "STOP", first_instance(stage))
        trial.settle()

    trial.assert_one_owner(owner)
    trial.assert_sites()
    assert_others_lost_nothing(stage, trial.figures())


def first_instance(stage: Stage) -> str:
    return min(stage.view.instances.values())


def assert_others_lost_nothing(stage: Stage, figures: list[Figures]) -> None:
    others = [one for one in figures if stage.view.instances[one.site] != first_instance(stage)]
    assert others, "every site is on the one instance: nothing would be shown"
    # A single late answer of a busy machine is no hole.
    assert [one.line() for one in others if one.longest > 0.3] == []


@case("broken-reload")
@BOTH_ROLES
def test_a_broken_configuration_is_not_loaded(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="broken-reload") as trial:
        scene.must(owner, f"cp -p {CONFIG} {CONFIG}.kept")
        try:
            scene.must(owner, f"echo 'vrrp_instance BROKEN {{ nonsense' >>{CONFIG}")
            trial.fault = time.monotonic()
            scene.on(owner, "systemctl reload keepalived")
            trial.settle(after=4)
        finally:
            scene.must(owner, f"mv -f {CONFIG}.kept {CONFIG}; systemctl reload keepalived")
        time.sleep(2)

    trial.assert_unmoved()


@case("vip-list-differs")
@BOTH_ROLES
def test_a_standby_with_another_list_of_addresses_never_becomes_a_second_owner(stage: Stage, owner: str) -> None:
    vip = stage.view.outside_vip
    with stage.trial(owner=owner, name="vip-list-differs") as trial:
        standby = trial.standby
        scene.must(standby, f"cp -p {CONFIG} {CONFIG}.kept")
        try:
            script = f"sed -i 's@^\\( *\\){vip}/32 dev fr0@&\\n\\1198.19.0.77/32 dev fr0@' {CONFIG}"
            scene.must(standby, f"{script} && grep -q 198.19.0.77 {CONFIG}")
            trial.fault = time.monotonic()
            scene.must(standby, "systemctl restart keepalived")
            trial.settle(after=4)
        finally:
            scene.must(standby, f"mv -f {CONFIG}.kept {CONFIG}; systemctl restart keepalived")
        time.sleep(2)

    trial.assert_unmoved()


@case("disk-full")
@BOTH_ROLES
def test_a_standby_with_a_full_disk_takes_over(stage: Stage, owner: str) -> None:
    """Status files, pid files, the score and logs have no room; sites must be served all the same."""
    with stage.trial(owner=owner, name="disk-full") as trial:
        standby = trial.standby
        scene.must(standby, "mount -o remount,size=$(( $(du -sk /run | cut -f1) + 256 ))k /run")
        try:
            scene.on(standby, "dd if=/dev/zero of=/run/filler bs=1k")
            assert " 100% " in scene.must(standby, "df /run")
            trial.fault = trial.kill(owner)
            trial.settle()
        finally:
            scene.must(standby, "rm -f /run/filler; mount -o remount,size=20% /run")
        # Until it has room again it is the worse one of the two, and would give the addresses back for that.
        time.sleep(WELL_AGAIN_SECONDS)
        trial.boot(owner)
        pair.wait_whole(stage.view)

    trial.assert_moved()
    trial.assert_sites()


@case("clock-jumps")
@impossible("all hosts share the machine's clock, and a namespace for the wall clock does not exist")
def test_a_clock_that_jumps_moves_nothing(stage: Stage) -> None:
    raise NotImplementedError


@case("hsrp-core")
@impossible("there is no router with HSRP; docs/hsrp-core-routers.md says what to set there")
def test_a_core_pair_with_hsrp_keeps_its_next_hop(stage: Stage) -> None:
    raise NotImplementedError


@case("track-process")
@impossible("the kernel tells about processes in the first network namespace only; keepalived would stay in FAULT")
def test_keepalived_follows_a_process_by_itself(stage: Stage) -> None:
    raise NotImplementedError
