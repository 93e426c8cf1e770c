# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One rollout at a time, on disk."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout import Rollout
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_files import RolloutFiles, RolloutLockedError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_lines import (
    FAILED,
    Approval,
    Control,
    Halt,
    SiteLine,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_lock import Process
from unit.plugin_utils.fleet_files import write_fleet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ME = Process.find(os.getpid())
NIGHT = "20261126-keys"


@pytest.fixture
def files(tmp_path: Path) -> RolloutFiles:
    return RolloutFiles(load_fleet(plan_file=write_fleet(tmp_path)))


@pytest.fixture
def other() -> Iterator[Process]:
    """Another run, until it is killed."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield Process.find(process.pid)
        process.kill()


def a_rollout(outcome: str = "open", *, what: str = "keys", reason: str = "q4") -> Rollout:
    return Rollout(
        rollout=NIGHT,
        fleet="test",
        what=what,
        reason=reason,
        by="ann@noc",
        began=1.0,
        failed=0,
        unreachable=0,
        outcome=outcome,
        halts=[Halt(at=1.0, wave="canary", why="1 site failed, the budget for that is 0")],
    )


def begun(files: RolloutFiles, rollout: Rollout) -> None:
    files.write(rollout)
    files.make_current(rollout.rollout)


def test_a_second_run_is_refused_with_the_first_ones_id_and_holder(files: RolloutFiles, other: Process) -> None:
    first = files.take(what="keys", reason="q4", process=other)
    with pytest.raises(RolloutLockedError) as caught:
        files.take(what="configuration", reason="", process=ME)
    assert f"rollout {first} (keys: q4) by " in str(caught.value)
    assert f"(pid {other.pid}) since 20" in str(caught.value)
    assert f"tools/fleet rollout pause {first}" in str(caught.value)


def test_a_run_that_brings_several_things_takes_each_of_them(files: RolloutFiles) -> None:
    first = files.take(what="keys", reason="q4", process=ME)
    second = files.take(what="configuration", reason="", process=ME)
    assert first.endswith("-keys")
    assert second.endswith("-configuration")
    claim = files.claim()
    assert claim is not None
    assert (claim.rollout, claim.what) == (second, "configuration")


def test_a_run_that_was_killed_holds_nobody_up(files: RolloutFiles, other: Process) -> None:
    files.take(what="keys", reason="q4", process=other)
    os.kill(other.pid, 9)
    os.waitpid(other.pid, 0)
    assert files.take(what="configuration", reason="", process=ME)


def test_a_run_that_is_over_holds_nobody_up_though_its_process_lives(files: RolloutFiles, other: Process) -> None:
    files.take(what="keys", reason="q4", process=other)
    files.release(process=other)
    assert files.take(what="configuration", reason="", process=ME)


def test_a_rollout_that_is_not_finished_keeps_others_from_beginning(files: RolloutFiles) -> None:
    begun(files, a_rollout("halted"))
    with pytest.raises(RolloutLockedError) as caught:
        files.take(what="configuration", reason="", process=ME)
    said = str(caught.value)
    assert (
        f"rollout {NIGHT} (keys: q4), begun by ann@noc, is not finished: 1 site failed, the budget for that is 0."
        in said
    )
    assert f"Go on with it: ansible-playbook playbooks/rollout.yml -e rollout={NIGHT}." in said
    assert f"give it up: tools/fleet rollout abort {NIGHT}." in said


@pytest.mark.parametrize("outcome", ["finished", "aborted"])
def test_one_that_is_over_keeps_nobody_back(files: RolloutFiles, outcome: str) -> None:
    begun(files, a_rollout(outcome))
    assert files.take(what="configuration", reason="", process=ME) != NIGHT


@pytest.mark.parametrize("outcome", ["open", "halted", "paused"])
def test_the_same_command_goes_on_with_what_is_not_finished(files: RolloutFiles, outcome: str) -> None:
    begun(files, a_rollout(outcome))
    assert files.take(what="keys", reason="q4", process=ME) == NIGHT


def test_a_rotation_goes_on_under_its_name_until_it_has_reached_every_site(files: RolloutFiles) -> None:
    whole, partly = a_rollout("finished"), a_rollout("finished")
    begun(files, whole)
    assert files.take(what="keys", reason="q4", process=ME) != NIGHT
    files.release(process=ME)
    partly.sites["site-0001"] = SiteLine(group="canary", wave="canary", state=FAILED)
    begun(files, partly)
    assert files.take(what="keys", reason="q4", process=ME) == NIGHT


def test_one_that_was_aborted_is_not_gone_on_with(files: RolloutFiles) -> None:
    begun(files, a_rollout("halted"))
    files.write_control(NIGHT, Control(aborted_by="ann@noc"))
    with pytest.raises(FleetError, match=r"was aborted\. Plan a new one"):
        files.take(what="keys", reason="q4", process=ME)


def test_a_look_leaves_nothing_behind(files: RolloutFiles) -> None:
    files.take(what="keys", reason="q4", process=ME, dry=True)
    assert not files.directory.exists()


def test_what_people_said_is_kept(files: RolloutFiles) -> None:
    assert files.control(NIGHT) == Control()
    said = Control(paused_by="ann@noc", approved={"north": Approval(by="bob@noc", sites=("site-0002",))})
    files.write_control(NIGHT, said)
    assert files.control(NIGHT) == said


def test_a_plan_that_is_there_is_not_written_over(files: RolloutFiles) -> None:
    files.write_plan("q4", "what: keys\n")
    with pytest.raises(FleetError, match=r"there is a rollout of this name\. Name another with --id\."):
        files.write_plan("q4", "what: configuration\n")
    assert files.plan_text("q4") == "what: keys\n"


@pytest.mark.parametrize("text", ["{", "[]", '{"rollout": "x"}'])
def test_a_damaged_file_is_named_with_what_to_do(files: RolloutFiles, text: str) -> None:
    begun(files, a_rollout())
    (files.path(NIGHT) / "state.json").write_text(text)
    with pytest.raises(FleetError, match=r"state.json cannot be understood .* Take it from a backup, or delete it"):
        files.current()


def test_a_file_of_another_user_is_named_and_not_a_crash(files: RolloutFiles) -> None:
    """A directory in its place stands for what cannot be read: tests may run as root."""
    begun(files, a_rollout())
    (files.path(NIGHT) / "control.json").mkdir()
    with pytest.raises(FleetError, match=r"control.json cannot be used: .*Is it another user's\?"):
        files.control(NIGHT)
    (files.directory / "lock").mkdir()
    with pytest.raises(FleetError, match=r"lock cannot be used: .*Run it as the one who owns"):
        files.take(what="keys", reason="q4", process=ME)


def test_the_name_of_the_last_one_is_no_other_file(files: RolloutFiles) -> None:
    begun(files, a_rollout())
    (files.directory / "current").write_text("../../etc\n")
    with pytest.raises(FleetError, match=r"current holds '\.\./\.\./etc', and not the id of the rollout .*delete it"):
        files.current()


def test_a_look_takes_no_lock_and_leaves_no_lock(files: RolloutFiles) -> None:
    files.directory.mkdir()
    files.take(what="keys", reason="q4", process=ME, dry=True)
    assert list(files.directory.iterdir()) == []


def test_an_abort_that_was_cut_off_is_named_as_what_to_run_again(files: RolloutFiles) -> None:
    begun(files, a_rollout("halted"))
    files.write_control(NIGHT, Control(aborted_by="ann@noc"))
    with pytest.raises(
        RolloutLockedError, match=rf"is half given up\. Abort it once more: tools/fleet rollout abort {NIGHT}\."
    ):
        files.take(what="configuration", reason="", process=ME)
