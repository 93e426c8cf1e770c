# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A soak: sites have to stay well, and one that is beyond hope is not waited for."""

from __future__ import annotations

from ansible_collections.spokewright.fleet.plugins.plugin_utils.soak import soak


class Time:
    """A clock that a sleep moves on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def soaked(
    looks: list[dict[str, str]], *, seconds: float = 60, may_lose: int = 0, stop: float = 9e9
) -> tuple[dict[str, str], float]:
    time, left = Time(), list(looks)

    def look(_sites: object) -> dict[str, str]:
        return left.pop(0) if len(left) > 1 else left[0]

    lost = soak(
        sites=["a", "b"],
        until=time.now + seconds,
        may_lose=may_lose,
        look=look,
        stop=lambda: time.now >= stop,
        clock=lambda: time.now,
        sleep=time.sleep,
    )
    return lost, time.now - 1000.0


def test_sites_that_stay_well_have_passed_when_the_time_is_over() -> None:
    assert soaked([{}]) == ({}, 60.0)


def test_a_site_that_was_away_for_one_look_and_came_back_is_well() -> None:
    assert soaked([{}, {"a": "down"}, {}]) == ({}, 60.0)


def test_what_counts_is_the_end() -> None:
    assert soaked([{}, {}, {}, {}, {}, {}, {"b": "down"}]) == ({"b": "down"}, 60.0)


def test_three_bad_looks_in_a_row_end_it() -> None:
    assert soaked([{}, {"a": "down"}]) == ({"a": "down"}, 30.0)


def test_what_the_budget_allows_ends_nothing() -> None:
    assert soaked([{"a": "down"}], may_lose=1) == ({"a": "down"}, 60.0)


def test_it_ends_when_it_is_told_to() -> None:
    assert soaked([{}], stop=1020.0) == ({}, 20.0)
