# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The task that holds and releases sites; the sites run the real agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.spokewright.fleet.plugins.action import site_hold
from ansible_collections.spokewright.fleet.plugins.plugin_utils import release_run
from unit.action.action_tools import act
from unit.plugin_utils.held_fleet import HeldFleet

if TYPE_CHECKING:
    from pathlib import Path

NORTH = ["site-0002", "site-0003", "site-0004"]


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HeldFleet:
    found = HeldFleet(tmp_path, monkeypatch)
    monkeypatch.setattr(release_run, "collect", found.look)
    return found


def do(held: HeldFleet, state: str, *, check: bool = False, **args: Any) -> dict[str, Any]:
    return act("site_hold", {"plan": str(held.plan), "state": state, "names": ["north"], **args}, check=check)


def test_hold_and_release_and_both_again(held: HeldFleet) -> None:
    foretold = do(held, "held", check=True)
    assert (foretold["changed"], foretold["sites"]["site-0002"]["message"]) == (True, "would be held for 2 h")
    assert len(held.running) == 4
    first = do(held, "held", reason="storm", time="30m")
    assert (first["changed"], first["ok_sites"], first["failed_sites"]) == (True, NORTH, [])
    assert first["sites"]["site-0002"]["held_reason"] == "storm"
    assert do(held, "held", reason="storm", time="30m")["changed"] is False
    assert held.running == ["site-0001"]

    foretold = do(held, "released", rate="60/min", check=True)
    assert foretold["msg"].endswith("3 would be released, 0 as they should be, 0 failed; at 60/min that takes 2 s")
    assert held.running == ["site-0001"]
    released = do(held, "released", rate="120/min")
    assert (released["changed"], released["failed_sites"], released["stopped"]) == (True, [], "")
    assert released["measured_per_minute"] == pytest.approx(120, rel=0.25)
    assert do(held, "released")["changed"] is False
    assert len(held.running) == 4


def test_a_site_that_is_off_is_no_failed_task_and_only_hosts_of_the_play_are_meant(
    held: HeldFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(site_hold.display, "warning", said.append)
    held.off.add("site-0003")
    found = do(held, "held", sites=["site-0002", "site-0003", "site-0001"])
    assert "failed" not in found
    assert (found["ok_sites"], found["failed_sites"]) == (["site-0002"], ["site-0003"])
    assert said == ["site-0003: nothing answers at 172.20.1.3:22 within 6 s."]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"names": []}, r"^No site is named: -e group=NAME, or -e sites=ID,ID\. Nothing was changed\.$"),
        ({"names": ["nort"]}, "^nort: neither a group of the plan, which has canary, north"),
        ({"time": "soon"}, "^'soon' is no time"),
        ({"time": "48h"}, "^a hold of 2 d is not possible"),
        ({"state": "released", "rate": "20"}, "^'20' is no rate"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anybody_is_asked(
    held: HeldFleet, args: dict[str, Any], said: str
) -> None:
    with pytest.raises(AnsibleActionFail, match=said):
        act("site_hold", {"plan": str(held.plan), "state": "held", "names": ["north"], **args})
    assert held.asked == []
