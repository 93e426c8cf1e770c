# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a rollout as a file: what it means, and what is said of a bad one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError, InputErrors
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet, load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.wave_plan import (
    WavePlan,
    read_wave_plan,
    refuse_id,
    sites_by_group,
    usual,
    wave_plan_text,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.waves import Rule, Share
from unit.plugin_utils.fleet_files import write_fleet

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = WavePlan(
    what="keys",
    reason='quarter 4, "again": #1',
    rules=(Rule(group="canary", limit=1, soak_seconds=600, approval=True, success_percent=95), Rule(group="north")),
    failed=Share(number=2),
    unreachable=Share(number=10, percent=True),
    exclude=("site-0002",),
)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return load_fleet(plan_file=write_fleet(tmp_path))


@pytest.mark.parametrize("plan", [WHOLE, usual(what="configuration", reason="", groups=["canary", "north"])])
def test_what_is_written_is_read(fleet: Fleet, plan: WavePlan) -> None:
    assert read_wave_plan(text=wave_plan_text(plan=plan, rollout="q4"), file="plan.yml", fleet=fleet) == plan


def test_a_plan_is_for_the_sites_of_its_groups_without_those_it_excludes(fleet: Fleet) -> None:
    assert sites_by_group(plan=WHOLE, fleet=fleet) == {"canary": ["site-0001"], "north": ["site-0003", "site-0004"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "plan.yml: is empty. Write one with"),
        ("what: keys\nwaves: [{group: north}]\n", "plan.yml:1: what: new keys want a reason. Add `reason:`."),
        (
            "what: kexs\nreason: r\nwaves: [{group: north}]\n",
            "'kexs' is not one of configuration, keys. Did you mean 'keys'?",
        ),
        ("what: configuration\n", "plan.yml:1: waves: is missing. Add it; docs/rollouts.md tells every key."),
        ("what: configuration\nwaves: []\n", "plan.yml:2: waves: is an empty list."),
        (
            "what: configuration\nwaves: [{group: nroth}]\n",
            "waves[0].group: 'nroth' is no site group. Did you mean 'north'?",
        ),
        ("what: configuration\nwaves: [{group: zzz}]\n", "'zzz' is no site group. There are: canary, north."),
        ("what: configuration\nwaves: [{group: north, limit: 0}]\n", "waves[0].limit: 0 is out of range."),
        ("what: configuration\nwaves: [{group: north, soak_seconds: 9999999}]\n", "9999999 is out of range."),
        ("what: configuration\nwaves: [{group: north, approval: perhaps}]\n", "'perhaps' is neither true nor false."),
        (
            "what: configuration\nwaves: [{group: north, success: 90}]\n",
            "'90' is no percentage. Write the part of the wave",
        ),
        ("what: configuration\nwaves: [{group: north, success: 101%}]\n", "'101%' is no number of sites."),
        (
            "what: configuration\nwaves: [{group: north, soak: 1}]\n",
            "'soak' is no key that is known here. Known: approval, group, limit,",
        ),
        (
            "what: configuration\nwaves: [{group: north}, {group: north}]\n",
            "takes all of north, and a later wave names it again",
        ),
        (
            "what: configuration\nbudgets: {failed: -1}\nwaves: [{group: north}]\n",
            "budgets.failed: '-1' is no number of sites",
        ),
        (
            "what: configuration\nbudgets: {unreachable: half}\nwaves: [{group: north}]\n",
            "'half' is no number of sites. Write a",
        ),
        ("what: configuration\nexclude: [site-0009]\nwaves: [{group: north}]\n", "'site-0009' is not in the registry."),
        ("what: configuration\nreason: [a]\nwaves: [{group: north}]\n", "reason: is a list, not text."),
        ("- a\n", "the plan is a list, not a mapping."),
    ],
)
def test_a_bad_plan_is_told_with_its_place(fleet: Fleet, text: str, said: str) -> None:
    with pytest.raises(InputErrors) as caught:
        read_wave_plan(text=text, file="plan.yml", fleet=fleet)
    assert said in str(caught.value)


def test_all_faults_are_told_at_once(fleet: Fleet) -> None:
    text = "what: nothing\nbudgets: {failed: x}\nexclude: [site-0009]\nwaves: [{group: zzz, limit: x}]\n"
    with pytest.raises(InputErrors, match="5 problems found, nothing was touched"):
        read_wave_plan(text=text, file="plan.yml", fleet=fleet)


@pytest.mark.parametrize("name", ["", "../x", "Q4", "a b", "-a", "x" * 64])
def test_an_id_that_is_no_name_of_a_directory_is_refused(name: str) -> None:
    with pytest.raises(FleetError, match=r"is no id of a rollout. Write small letters"):
        refuse_id(name)
