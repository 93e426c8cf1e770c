# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of a rollout as a whole, and where its waves are drawn."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_figures import (
    NO_WAVE,
    completed,
    tamed,
    verdict,
    waves_of,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_timeline import (
    BINS,
    LEFT,
    MOST_TICKS,
    RIGHT,
    WIDTH,
    histogram,
    timeline,
)
from rollout_samples import at, finished, halted, rollout, site, wave


def two(state: str, outcome: str, **more: Any) -> dict[str, Any]:
    sites = {"site-0001": site("site-0001", wave="canary"), "site-0002": site("site-0002", wave="north", state=state)}
    waves = [wave("canary", ["site-0001"]), wave("north", ["site-0002"], state="waiting", **more)]
    return rollout(waves=waves, sites=sites, outcome=outcome)


@pytest.mark.parametrize(
    ("data", "kind", "words", "counts"),
    [
        (two("done", "finished"), "good", "Finished: all 2 sites run the new generation.", ""),
        (two("parked", "finished"), "mixed", "Finished: 1 of 2 sites run the new generation.", "1 parked."),
        (two("failed", "finished"), "bad", "Finished: 1 of 2 sites run the new generation.", "1 failed."),
        (
            {**two("waiting", "paused", approval=True), "paused_by": "ann@noc"},
            "mixed",
            "Paused by ann@noc at wave north.",
            "1 of 2 sites run the new generation, 1 waiting.",
        ),
        (
            two("waiting", "open"),
            "mixed",
            "Not finished.",
            "1 of 2 sites run the new generation, 1 waiting.",
        ),
        (
            two("waiting", "paused", approval=True, approved_by="eve"),
            "mixed",
            "Paused at wave north.",
            "1 of 2 sites run the new generation, 1 waiting.",
        ),
        (
            two("waiting", "aborted"),
            "mixed",
            "Aborted: no further site is changed.",
            "1 of 2 sites run the new generation, 1 waiting.",
        ),
        (
            halted(),
            "bad",
            "Halted by the gate of wave north: 1 site failed, the budget is 0.",
            "3 of 7 sites run the new generation, 1 failed, 1 aborted, 1 parked, 1 waiting.",
        ),
    ],
)
def test_the_verdict(data: dict[str, Any], kind: str, words: str, counts: str) -> None:
    found = verdict(data)

    assert (found.kind, found.words, found.counts) == (kind, words, counts)


def test_who_was_offline_for_how_long() -> None:
    assert completed(halted())["offline"] == {"sites": 3, "median": 0.31, "worst": 0.9, "worst_site": "site-0002"}


def test_nobody_was_activated() -> None:
    data = rollout(waves=[], sites={"site-0001": site("site-0001", wave="", state="parked")}, outcome="finished")

    assert completed(data)["offline"] == {"sites": 0, "median": None, "worst": None, "worst_site": ""}


def test_a_site_that_no_wave_names_is_not_lost() -> None:
    data = halted()
    data["waves"][1]["sites"].remove("site-0005")

    found = waves_of(data)

    assert [one.name for one in found] == ["canary", "north", "south", NO_WAVE]
    assert list(found[-1].sites) == ["site-0005"]
    assert sum(len(one.sites) for one in found) == 7


def test_what_came_over_the_wire_is_tamed_wherever_it_stands() -> None:
    said = {"a\x1b": ["one\ntwo", {"b": "\x1b[2J\u202ejpg\ud800"}], "n": 3, "none": None}

    assert tamed(said) == {"a\\x1b": ["one two", {"b": "\\x1b[2J\\u202ejpg\\ud800"}], "n": 3, "none": None}


def test_the_time_line() -> None:
    data = halted()

    found = timeline(data=data, waves=waves_of(data))

    canary, north, south = found.rows
    per_second = (WIDTH - LEFT - RIGHT) / 130
    assert canary.span == pytest.approx((LEFT + 10 * per_second, 52 * per_second), abs=0.2)
    assert canary.soak == pytest.approx((LEFT + 17 * per_second, 45 * per_second), abs=0.2)
    assert north.failed == pytest.approx([LEFT + 71 * per_second], abs=0.1)
    assert (south.span, south.columns) == (None, "")
    assert [halt.label for halt in found.halts] == ["1"]
    assert found.halts[0].x == pytest.approx(LEFT + 127 * per_second, abs=0.1)
    assert [tick.label for tick in found.ticks] == ["23:50:00", "23:50:30", "23:51:00", "23:51:30", "23:52:00"]


@pytest.mark.parametrize(
    ("seconds", "first", "last"),
    [
        (0, "23:50:00", "23:50:01"),
        (8, "23:50:00", "23:50:08"),
        (3600, "23:50", "00:50"),
        (86_400 * 2, "27 Nov 00:00", "28 Nov 18:00"),
        (86_400 * 60, "03 Dec", "14 Jan"),
    ],
)
def test_the_scale_fits_what_it_shows(seconds: int, first: str, last: str) -> None:
    data = rollout(waves=[], sites={}, outcome="finished", ended=at(seconds))

    ticks = timeline(data=data, waves=[]).ticks

    assert 2 <= len(ticks) <= MOST_TICKS
    assert (ticks[0].label, ticks[-1].label) == (first, last)
    assert all(LEFT <= tick.x <= WIDTH - RIGHT for tick in ticks)


@pytest.mark.parametrize("seconds", [[0.0], [0.31], [0.2, 0.3, 0.31, 45.0], [1.0] * 1000 + [600.0]])
def test_the_histogram_shows_every_site(seconds: list[float]) -> None:
    found = histogram(seconds=seconds, median=seconds[0])

    assert found
    assert sum(one.sites for one in found.bins) == len(seconds)
    assert len(found.bins) <= BINS + 1
    assert all(one.height >= 2 and math.isfinite(one.x) and one.x + one.width <= WIDTH - RIGHT for one in found.bins)
    assert RIGHT <= found.median <= WIDTH - RIGHT
    assert len(found.ticks) <= MOST_TICKS + 1


def test_there_is_no_histogram_of_nothing() -> None:
    assert histogram(seconds=[], median=0.0) is None


def test_a_large_rollout_is_drawn_with_few_strokes() -> None:
    data = finished(10_000)

    assert all(len(row.columns) < 5000 for row in timeline(data=data, waves=waves_of(data)).rows)
