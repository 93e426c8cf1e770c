# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tools/fleet hold, release and status of held sites: what they print and end with; sites run the real agent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import release_run, status
from fleetlib.cli import main
from unit.plugin_utils.held_fleet import HeldFleet

if TYPE_CHECKING:
    from pathlib import Path

NORTH = ["site-0002", "site-0003", "site-0004"]


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HeldFleet:
    found = HeldFleet(tmp_path, monkeypatch)
    monkeypatch.setattr(status, "collect", found.look)
    monkeypatch.setattr(release_run, "collect", found.look)
    return found


def fleet(held: HeldFleet, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main([*words, "-i", str(held.plan)])
    return code, capsys.readouterr().out


def test_hold_status_release(held: HeldFleet, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = fleet(held, capsys, "hold", "north", "--for", "90m", "--reason", "storm", "--check")
    assert code == 0
    assert "hold: 3 sites, 3 would be held, 0 as they should be, 0 failed" in said
    assert "site-0002: would be held for 1 h 30 min" in said
    assert len(held.running) == 4

    code, said = fleet(held, capsys, "hold", "north", "--for", "90m", "--reason", "storm")
    assert code == 0
    assert "hold: 3 sites, 3 held, 0 as they should be, 0 failed" in said
    assert "A site that was held now starts its client again by itself at 2" in said
    assert held.running == ["site-0001"]

    code, said = fleet(held, capsys, "status")
    assert code == 1
    assert "1/4 sites up, 3 held\n" in said
    assert said.count("held until 2") == 3
    assert ": storm\n" in said

    held.off.add("site-0004")
    code, said = fleet(held, capsys, "release", "north", "--rate", "600/min")
    assert code == 1
    assert "site-0004  unreachable  site-0004: nothing answers" in said
    assert "release: 3 sites, 2 released, 0 as they should be, 1 failed, in " in said
    assert "starts its client by itself when its time is over." in said

    held.off.clear()
    code, said = fleet(held, capsys, "release", "--all", "--rate", "10/s", "--format", "json")
    report: dict[str, Any] = json.loads(said)
    assert (code, report["changed"], report["failed_sites"]) == (0, True, [])
    assert [site for site, one in report["sites"].items() if one["changed"]] == ["site-0004"]
    code, said = fleet(held, capsys, "release", "--all")
    assert (code, "release: 4 sites, 0 released, 4 as they should be, 0 failed" in said) == (0, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hold"], "no site is named. Name groups or sites, or --all for all 4 sites."),
        (["release", "nort"], "nort: neither a group of the plan, which has canary, north, nor a site"),
        (["hold", "north", "--for", "25h"], "a hold of 1 d 1 h is not possible: a site is held for 1 s to 1 d"),
    ],
)
def test_what_cannot_be_is_said_before_anybody_is_asked(
    held: HeldFleet, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main([*words, "-i", str(held.plan)]) == 2
    assert said in capsys.readouterr().err
    assert held.asked == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hold", "north", "--for", "soon"], "'soon' is no time. Write hours, minutes and seconds"),
        (["release", "north", "--rate", "20"], "'20' is no rate. Write how many sites in which time"),
    ],
)
def test_a_time_and_a_rate_that_make_no_sense(
    held: HeldFleet, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    with pytest.raises(SystemExit):
        main([*words, "-i", str(held.plan)])
    assert said in capsys.readouterr().err
