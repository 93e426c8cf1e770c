# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holes by send time."""

from __future__ import annotations

import math

import pytest

from faultlib.holes import LATE, WORTH, Figures, Hole, figures, holes

STEP = 0.02


def stream(*, seconds: float, lost: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Probes every 20 ms from 0 on, unanswered when they were sent within one of these stretches."""
    sent = [number * STEP for number in range(round(seconds / STEP))]
    rtt = [-1.0 if any(begin <= when < end for begin, end in lost) else 0.001 for when in sent]
    return sent, rtt


def judged(*, lost: list[tuple[float, float]], seconds: float = 30, fault: float = 10) -> Figures:
    sent, rtt = stream(seconds=seconds, lost=lost)
    return figures(site="site-0001", direction="core->site", sent=sent, rtt=rtt, fault=fault, end=seconds)


def test_answered_probes_have_no_hole() -> None:
    sent, rtt = stream(seconds=5, lost=[])

    assert holes(sent=sent, rtt=rtt, until=5) == []


def test_a_hole_reaches_from_the_last_answered_probe_to_the_next_answered_one() -> None:
    found = holes(sent=[0.0, 1.0, 2.0, 3.0, 4.0], rtt=[0.1, -1, -1, 0.1, 0.1], until=9)

    assert found == [Hole(begin=0.0, end=3.0, lost=2)]
    assert found[0].seconds == 3.0


def test_an_answer_that_comes_too_late_is_none() -> None:
    found = holes(sent=[0.0, 1.0, 2.0], rtt=[0.1, LATE + 0.01, LATE], until=9)

    assert found == [Hole(begin=0.0, end=2.0, lost=1)]


def test_a_hole_without_an_end_is_infinite_and_not_left_out() -> None:
    found = holes(sent=[0.0, 1.0, 2.0], rtt=[0.1, -1, -1], until=9)

    assert found == [Hole(begin=0.0, end=math.inf, lost=2)]


def test_a_stream_that_was_never_answered_is_one_hole() -> None:
    (found,) = holes(sent=[3.0, 4.0], rtt=[-1, -1], until=9)

    assert (found.begin, found.end) == (3.0, math.inf)


def test_probes_of_the_last_moment_are_not_judged() -> None:
    assert holes(sent=[0.0, 1.0, 2.0], rtt=[0.1, 0.1, -1], until=2.0) == []


def test_a_site_works_again_after_the_hole() -> None:
    found = judged(lost=[(10.1, 16.5)])

    assert found.again == pytest.approx(6.5, abs=2 * STEP)
    assert found.longest == pytest.approx(6.4, abs=2 * STEP)
    assert found.first_lost == pytest.approx(0.1, abs=STEP)
    assert found.goes_on


def test_a_second_short_hole_counts_for_the_time_it_works_again() -> None:
    found = judged(lost=[(10.1, 12), (14, 14.5)])

    assert found.again == pytest.approx(4.5, abs=2 * STEP)
    assert found.longest == pytest.approx(1.9, abs=2 * STEP)


def test_single_lost_probes_are_no_outage() -> None:
    found = judged(lost=[(12, 12.03), (15, 15.0 + WORTH / 2)])

    assert found.again == 0
    assert found.lost > 0


def test_what_was_before_the_fault_is_not_the_faults() -> None:
    found = judged(lost=[(2, 5)])

    assert (found.lost, found.again, found.first_lost) == (0, 0, None)


def test_answers_that_stopped_for_good_are_told() -> None:
    found = judged(lost=[(12, 99)])

    assert not found.goes_on
    assert found.again == math.inf
    assert found.last_answer == pytest.approx(2, abs=2 * STEP)
    assert "NO ANSWERS AT THE END" in found.line()


def test_a_probe_that_was_not_sent_is_no_hole_but_a_pause() -> None:
    sent = [0.0, 0.02, 0.04, 5.0, 5.02]
    found = figures(site="s", direction="d", sent=sent, rtt=[0.001] * 5, fault=0.0, end=5.6)

    assert found.longest == 0
    assert found.widest_pause == pytest.approx(4.96)


def test_nothing_sent_is_nothing_proven() -> None:
    found = figures(site="s", direction="d", sent=[], rtt=[], fault=0.0, end=5.0)

    assert not found.goes_on
    assert found.again == math.inf
