# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waves: site groups in order, each at most so many sites at a time."""

from __future__ import annotations

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.waves import Rule, Share, cut

GROUPS = {"canary": ["c1", "c2", "c3"], "north": ["n1", "n2", "n3", "n4", "n5"], "empty": []}


def waves(*rules: Rule) -> list[tuple[str, str]]:
    return [(wave.name, " ".join(wave.sites)) for wave in cut(rules=rules, groups=GROUPS)]


def test_a_group_is_a_wave_and_one_without_sites_is_none() -> None:
    assert waves(Rule(group="north"), Rule(group="empty"), Rule(group="canary")) == [
        ("north", "n1 n2 n3 n4 n5"),
        ("canary", "c1 c2 c3"),
    ]


def test_a_limit_cuts_a_group_into_waves_of_that_size() -> None:
    assert waves(Rule(group="north", limit=2)) == [
        ("north 1/3", "n1 n2"),
        ("north 2/3", "n3 n4"),
        ("north 3/3", "n5"),
    ]


def test_a_group_that_is_named_again_takes_its_limit_first_and_the_rest_in_its_place() -> None:
    assert waves(Rule(group="north", limit=1), Rule(group="canary", limit=3), Rule(group="north")) == [
        ("north 1/2", "n1"),
        ("canary", "c1 c2 c3"),
        ("north 2/2", "n2 n3 n4 n5"),
    ]


def test_what_a_rule_asks_for_is_in_each_of_its_waves() -> None:
    rule = Rule(group="canary", limit=2, soak_seconds=60, approval=True, success_percent=95)
    asked = [(one.soak_seconds, one.approval, one.success_percent) for one in cut(rules=[rule], groups=GROUPS)]
    assert asked == [(60, True, 95), (60, True, 95)]


@pytest.mark.parametrize(
    ("share", "total", "sites"),
    [
        (Share(number=0), 400, 0),
        (Share(number=3), 2, 3),
        (Share(number=0, percent=True), 400, 0),
        (Share(number=10, percent=True), 400, 40),
        (Share(number=10, percent=True), 41, 5),
        (Share(number=1, percent=True), 8, 1),
    ],
)
def test_a_percentage_is_rounded_up(share: Share, total: int, sites: int) -> None:
    assert share.of(total) == sites
