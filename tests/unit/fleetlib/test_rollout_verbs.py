# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tools/fleet rollout: what it plans, what it shows, and what people say of a rollout."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import open_store
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout import Rollout
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_files import RolloutFiles
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_lines import (
    DONE,
    WAITING,
    Approval,
    SiteLine,
    WaveLine,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_lock import Process, who
from fleetlib.cli import main
from key_support import quick_vault
from unit.plugin_utils.fleet_files import write_fleet

KEYS = ("--what", "keys", "--reason", "quarter 4")


@pytest.fixture
def plan(tmp_path: Path) -> str:
    return str(write_fleet(tmp_path))


def files_of(plan: str) -> RolloutFiles:
    return RolloutFiles(load_fleet(plan_file=Path(plan)))


def begun(plan: str) -> RolloutFiles:
    """A rollout whose first wave is done."""
    files = files_of(plan)
    sites = {
        "site-0001": SiteLine(group="canary", wave="canary", state=DONE, activated=1000.0, seconds=0.4),
        "site-0002": SiteLine(group="north", wave="north", state=WAITING),
    }
    waves = [
        WaveLine(name="canary", group="canary", sites=["site-0001"], state=DONE, began=1000.0, ended=1001.0),
        WaveLine(name="north", group="north", sites=["site-0002"]),
    ]
    files.write(
        Rollout(
            rollout="q4",
            fleet="test",
            what="keys",
            reason="quarter 4",
            by="ann@noc",
            began=1000.0,
            failed=0,
            unreachable=1,
            waves=waves,
            sites=sites,
            outcome="halted",
        )
    )
    files.make_current("q4")
    return files


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["rollout", *words])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_plan_says_who_reconnects_in_which_wave_and_is_written_for_a_person(
    plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = said(
        capsys, "plan", "-i", plan, "--id", "q4", *KEYS, "--canary", "1", "--limit", "2", "--approval"
    )
    assert status == 0
    assert "rollout q4, keys: quarter 4" in out
    assert "4 sites reconnect, each once, for about 3 s at most; no gateway restarts anything" in out
    assert [line.split()[0] for line in out.splitlines() if " site-" in line] == ["canary", "north", "north"]
    assert "ansible-playbook playbooks/rollout.yml -e rollout=q4" in out
    assert files_of(plan).plan_text("q4") == (
        "# The plan of rollout q4. Show it: tools/fleet rollout show q4\n"
        "# Run it, and go on after a halt: ansible-playbook playbooks/rollout.yml -e rollout=q4\n"
        "# Every key and its default: docs/rollouts.md.\n"
        'what: keys\nreason: "quarter 4"\nbudgets: {failed: 0, unreachable: 20%}\nwaves:\n'
        "  - group: canary\n    limit: 1\n"
        "  - group: canary\n    limit: 2\n    approval: true\n"
        "  - group: north\n    limit: 2\n    approval: true\n"
    )


def test_a_plan_names_instances_and_budgets_for_programs(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("plan", "-i", plan, "--check", "--group", "north", "--exclude", "site-0003", "--failed", "50%")
    status, out, _ = said(capsys, *words, "--format", "json")
    found: dict[str, Any] = json.loads(out)
    assert status == 0
    assert (found["what"], found["sites"], found["budgets"]) == ("configuration", 2, {"failed": 1, "unreachable": 1})
    assert [wave["sites"] for wave in found["waves"]] == [["site-0002", "site-0004"]]
    assert sum(found["waves"][0]["instances"].values()) == 2
    assert files_of(plan).ids() == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--what", "keys"), "new keys want a reason"),
        (("--group", "nroth"), "'nroth' is no site group. Did you mean 'north'?"),
        (("--exclude", "site-0009"), "'site-0009' is not in the registry."),
        (("--limit", "-1"), "-1 is out of range"),
        (("--success", "101"), "'101%' is no number of sites"),
        (("--id", "../q4"), "'../q4' is no id of a rollout"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_and_nothing_is_written(
    plan: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], text: str
) -> None:
    status, _, err = said(capsys, "plan", "-i", plan, *words)
    assert status == 2
    assert text in err
    assert not files_of(plan).directory.exists()


def test_a_rollout_is_shown_as_planned_as_begun_and_with_all_others(
    plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "show", "-i", plan)[1].startswith("no rollout was planned or begun yet")
    said(capsys, "plan", "-i", plan, "--id", "later", *KEYS)
    begun(plan)
    assert "4 sites reconnect" in said(capsys, "show", "-i", plan, "later")[1]
    status, out, _ = said(capsys, "show", "-i", plan, "q4")
    assert status == 1
    assert "1 of 2 sites run the new generation, 1 waiting" in out
    out = said(capsys, "show", "-i", plan)[1]
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["later", "planned"], ["q4", "halted"]]


def test_a_rollout_is_paused_goes_on_and_is_approved_by_name(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = begun(plan)
    assert said(capsys, "pause", "-i", plan, "q4")[0] == 0
    assert files.control("q4").paused_by == who()
    assert said(capsys, "approve", "-i", plan, "q4", "north")[0] == 0
    assert said(capsys, "resume", "-i", plan, "q4")[0] == 0
    given = {"north": Approval(by=who(), sites=("site-0002",))}
    assert (files.control("q4").paused_by, files.control("q4").approved) == ("", given)


def test_what_people_say_of_a_rollout_is_in_the_ledger(
    plan: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_vault(monkeypatch)
    begun(plan)
    fleet = load_fleet(plan_file=Path(plan))
    store = open_store(fleet.plan)
    store.ensure(fleet="test", key_type="p256", gateways=["gw1"], sites=["site-0001"])
    for words in (("pause", "q4"), ("approve", "q4", "north"), ("resume", "q4")):
        assert said(capsys, words[0], "-i", plan, *words[1:])[0] == 0
    lines = [(one["event"], one["reason"]) for one in store.ledger.of("rollout q4")]
    assert lines == [
        ("rollout-pause-asked", ""),
        ("rollout-approved", "wave north: site-0002"),
        ("rollout-resumed", ""),
    ]
    assert store.verify() == []
    store.ledger.head_path.write_text("{")
    status, out, _ = said(capsys, "pause", "-i", plan, "q4")
    assert (status, files_of(plan).control("q4").paused_by) == (0, who())
    assert "That is not in the ledger: " in out
    status, _, err = said(capsys, "resume", "-i", plan, "q4")
    assert (status, files_of(plan).control("q4").paused_by) == (2, who())
    assert "no number and hash of a line" in err


def test_a_wave_that_is_approved_before_the_first_run_is_approved_with_the_sites_of_the_plan(
    plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, "plan", "-i", plan, "--id", "q4", *KEYS, "--approval")
    _, out, _ = said(capsys, "approve", "-i", plan, "q4", "north")
    assert out == "rollout q4: approved north (3 sites). Who comes to a wave later wants another approval.\n"
    assert files_of(plan).control("q4").approved["north"].sites == ("site-0002", "site-0003", "site-0004")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("approve", "q4", "south"), "rollout q4 has no wave south. It has: canary, north."),
        (("pause", "q9"), "rollout q9: there is none of this id in "),
        (("show", "q9"), "(the last are: later, q4)"),
        (("abort", "later"), "rollout later was planned and never begun: there is nothing to give up."),
    ],
)
def test_what_is_said_of_a_rollout_that_is_not_there_is_an_error(
    plan: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], text: str
) -> None:
    begun(plan)
    said(capsys, "plan", "-i", plan, "--id", "later", *KEYS)
    status, _, err = said(capsys, words[0], "-i", plan, *words[1:])
    assert status == 2
    assert text in err


def test_a_rollout_that_is_at_work_is_not_given_up_under_its_hands(
    plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = begun(plan)
    files.take(what="keys", reason="quarter 4", process=Process.find(os.getppid()))
    status, _, err = said(capsys, "abort", "-i", plan, "q4")
    assert status == 2
    assert f"(pid {os.getppid()}) since " in err
    assert "tools/fleet rollout pause q4" in err
    assert files.control("q4").aborted_by == ""
