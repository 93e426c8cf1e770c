# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a rollout on a controller's disk: who takes part, what was done beside it, and the clock."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import rollout_step
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.gate import Passed
from ansible_collections.spokewright.fleet.plugins.plugin_utils.holds import enter_holds, holds_file, note_of
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ledger import REASON_MAX
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout import Rollout
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_lines import (
    DONE,
    FAILED,
    HALTED,
    WAITING,
    SiteLine,
    WaveLine,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_run import RolloutRun, Stage, named_sites
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_step import Step
from unit.plugin_utils.fleet_files import write_fleet

if TYPE_CHECKING:
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore

# The sites of north in the fleet of the tests.
NORTH = ("site-0002", "site-0004")
NOW = 5000.0
WELL = {"ok": True, "reason": "", "message": ""}


@pytest.fixture
def booked() -> list[tuple[str, ...]]:
    """The lines for the ledger."""
    return []


@pytest.fixture
def run(tmp_path: Path, booked: list[tuple[str, ...]]) -> RolloutRun:
    return RolloutRun(
        fleet=load_fleet(plan_file=write_fleet(tmp_path)),
        run=os.getpid(),
        book=lambda *line: booked.append(line),
        now=lambda: NOW,
    )


def begun(run: RolloutRun, **states: str) -> Rollout:
    """A rotation of one group that was begun without a plan and waits."""
    record = Rollout(
        rollout="r1",
        fleet="test",
        what="keys",
        reason="laptop lost",
        by="ann@noc",
        began=1000.0,
        failed=0,
        unreachable=0,
        waves=[WaveLine(name="north", group="north", sites=list(NORTH), soak_seconds=60)],
        sites={site: SiteLine(group="north", wave="north", state=states.get(site[-1:], WAITING)) for site in NORTH},
        outcome=HALTED,
    )
    run.files.write(record)
    run.files.make_current("r1")
    return record


def step(run: RolloutRun, *, index: dict[str, Any] | None = None, **args: Any) -> Step:
    store = SimpleNamespace(index=lambda *, sites: {site: (index or {}).get(site, {}) for site in sites})
    usual = {"rollout": "r1", "what": "keys", "reason": "laptop lost", "beside": False}
    return Step(
        fleet=run.fleet,
        store=cast("KeyStore", store),
        run=run,
        args={**usual, **args},
        dry=False,
        say=lambda _line: None,
    )


def test_to_go_on_with_a_rotation_of_one_group_makes_no_keys_for_the_others(run: RolloutRun) -> None:
    begun(run)
    assert step(run).planned() == {
        "what": "keys",
        "reason": "laptop lost",
        "sites": list(NORTH),
        "msg": "keys of 2 sites",
    }


@pytest.mark.parametrize(("state", "done"), [("confirmed", True), ("staged", False)])
def test_who_has_confirmed_its_new_key_beside_a_rollout_waits_in_it_no_more(
    run: RolloutRun, state: str, *, done: bool
) -> None:
    begun(run)
    index = {"site-0002": {1: {"state": "retired"}, 2: {"state": state}}}
    stage = {"sites": {"site-0004": WELL}, "unsettled_sites": ["site-0004"]}
    step(run, index=index, sites=["site-0004"], stage=stage).opened()
    record = run.record("r1")
    assert record.is_done("site-0002") is done
    assert [wave.name for wave in record.waves if record.turn(wave) == ["site-0004"]] == ["north"]


@pytest.mark.parametrize(
    ("proven", "until"), [(NOW - 20, NOW + 40), (NOW + 86400, NOW + 60)], ids=["goes on", "the clock was put back"]
)
def test_a_soak_is_never_longer_than_it_was_planned(run: RolloutRun, proven: float, until: float) -> None:
    record = begun(run, **{"2": DONE, "4": FAILED})
    record.waves[0].proven = proven
    assert run.soaks(record, "north") == (["site-0002"], until)


def test_a_site_that_is_put_on_hold_during_a_soak_is_not_lost(run: RolloutRun, monkeypatch: pytest.MonkeyPatch) -> None:
    record = begun(run, **{"2": DONE, "4": DONE})
    record.waves[0].proven = NOW - 20
    now = time.time()
    hold = note_of({"held": 600, "held_by": "ops"}, now=now)
    enter_holds(holds_file(run.fleet), found={"site-0002": hold}, now=now)

    def silent(*, sites: list[str], **_other: Any) -> dict[str, Passed]:
        return {site: Passed(site, ok=False, message="no session") for site in sites}

    monkeypatch.setattr(rollout_step, "wait_for_sites", silent)
    lost = step(run, gate_seconds=1)._soak(record, "north")
    assert lost == {"site-0004": "no session"}


def test_what_a_run_has_claimed_for_something_else_is_not_taken_for_this(run: RolloutRun) -> None:
    keys = run.claim(what="keys", reason="laptop lost")
    stage: dict[str, Any] = {"sites": {}, "unsettled_sites": []}
    other = step(run, rollout="", what="configuration", reason="", sites=[], stage=stage)
    claimed: list[str] = []
    take = run.claim

    def claim(**words: Any) -> str:
        claimed.append(str(words["what"]))
        return take(**words)

    run.claim = claim  # type: ignore[method-assign]
    other.opened()
    assert claimed == ["configuration"]
    assert keys.endswith("-keys")


def opened(run: RolloutRun) -> Rollout:
    """A rotation of one group that begins now."""
    stage = Stage(sites=list(NORTH), answers=dict.fromkeys(NORTH, WELL), unsettled=list(NORTH))
    record = run.open("r2", stage=stage, what="keys", reason="laptop lost")
    assert record is not None
    return record


def test_every_change_of_a_rollout_is_booked_before_it_is_kept(run: RolloutRun, booked: list[tuple[str, ...]]) -> None:
    record = opened(run)
    run.begin(record, "north", pair=list)
    gate = {NORTH[0]: WELL, NORTH[1]: {"ok": False, "reason": "gate", "message": "no session"}}
    tried = dict.fromkeys(NORTH, WELL)
    run.enter(record, "north", activate=tried, gate=gate, confirm=tried, activated={})
    run.end(record, "north", lost={})
    run.close(record)
    assert booked == [
        ("r2", "rollout-opened", "keys: laptop lost; waves to go: north"),
        ("r2", "rollout-wave-began", f"wave north: {', '.join(NORTH)}"),
        ("r2", "rollout-wave-ended", "wave north: 1 done, 1 failed"),
        ("r2", "rollout-halted", "1 site failed, the budget for that is 0"),
        ("r2", "rollout-closed", "halted: 1 done, 1 failed"),
    ]


def test_the_ledger_has_room_for_every_site_of_a_wave() -> None:
    sites = [f"{number:063}" for number in range(100)]
    lines = list(named_sites("north of the river", sites))
    assert all(len(line) < REASON_MAX for line in lines)
    assert [one for line in lines for one in line.partition(": ")[2].split(", ")] == sites


def test_what_cannot_be_booked_is_not_begun(run: RolloutRun) -> None:
    def no_space(*_line: str) -> None:
        raise FleetError("the ledger cannot be written: no space left")

    record = opened(run)
    run.book = no_space
    with pytest.raises(FleetError, match="no space left"):
        run.begin(record, "north", pair=list)
    assert [wave.state for wave in run.record("r2").waves if wave.name == "north"] == [WAITING]
