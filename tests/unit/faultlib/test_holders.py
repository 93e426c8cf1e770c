# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The time line of the addresses' holders."""

from __future__ import annotations

import math

from faultlib.holders import (
    Event,
    Span,
    gaps,
    holders,
    moved_at,
    overlaps,
    role_changes,
    splits,
    without_power,
)

IN, OUT = "10.200.0.1", "198.19.0.1"


def got(time: float, gateway: str, vip: str = IN) -> Event:
    return Event(time=time, gateway=gateway, vip=vip, held=True)


def left(time: float, gateway: str, vip: str = IN) -> Event:
    return Event(time=time, gateway=gateway, vip=vip, held=False)


CLEAN = [got(0, "gw1"), left(10, "gw1"), got(10.5, "gw2")]
DOUBLE = [got(0, "gw1"), got(10, "gw2"), left(12, "gw1")]


def test_who_holds_it_at_a_time() -> None:
    assert holders(CLEAN, vip=IN, at=5) == {"gw1"}
    assert holders(CLEAN, vip=IN, at=10.2) == set()
    assert holders(CLEAN, vip=IN, at=11) == {"gw2"}
    assert holders(CLEAN, vip=OUT, at=11) == set()


def test_a_clean_move_has_a_gap_and_no_overlap() -> None:
    assert overlaps(CLEAN, vip=IN, begin=0, end=20) == []
    assert gaps(CLEAN, vip=IN, begin=0, end=20) == [Span(begin=10, end=10.5)]


def test_two_holders_are_an_overlap() -> None:
    assert overlaps(DOUBLE, vip=IN, begin=0, end=20) == [Span(begin=10, end=12)]
    assert gaps(DOUBLE, vip=IN, begin=0, end=20) == []


def test_two_holders_at_the_end_are_one_until_the_end() -> None:
    assert overlaps(DOUBLE[:2], vip=IN, begin=0, end=20) == [Span(begin=10, end=20)]


def test_spans_are_cut_at_what_is_asked_for() -> None:
    assert overlaps(DOUBLE, vip=IN, begin=11, end=20) == [Span(begin=11, end=12)]
    assert overlaps(DOUBLE, vip=IN, begin=12.5, end=20) == []


def test_nobody_at_all_is_a_gap() -> None:
    assert gaps([], vip=IN, begin=0, end=20) == [Span(begin=0, end=20)]
    assert gaps([got(5, "gw1")], vip=IN, begin=0, end=20) == [Span(begin=0, end=5)]


def test_a_gateway_without_power_holds_nothing() -> None:
    """Its kernel is not there to say so: the namespace is found gone only later."""
    events = [got(0, "gw1"), got(10.3, "gw2"), left(10.8, "gw1"), got(30, "gw1"), left(31, "gw1")]

    found = without_power(events, dead={"gw1": [Span(begin=10, end=20)]})

    assert overlaps(found, vip=IN, begin=0, end=25) == []
    assert gaps(found, vip=IN, begin=0, end=25) == [Span(begin=10, end=10.3)]
    assert overlaps(found, vip=IN, begin=0, end=40) == [Span(begin=30, end=31)], "what it does after the boot counts"


def test_when_it_moved() -> None:
    assert moved_at(CLEAN, vip=IN, to="gw2", after=9.9) == 10.5
    assert moved_at(CLEAN, vip=IN, to="gw2", after=11) == math.inf
    assert moved_at(CLEAN, vip=OUT, to="gw2", after=0) == math.inf


def test_flaps_are_counted_as_moves_to_another_gateway_only() -> None:
    events = [
        got(0, "gw1"),
        left(1, "gw1"),
        got(2, "gw1"),
        left(3, "gw1"),
        got(4, "gw2"),
        left(5, "gw2"),
        got(6, "gw1"),
    ]

    assert role_changes(events, vip=IN, begin=0, end=10) == 2
    assert role_changes(events, vip=IN, begin=5, end=10) == 1
    assert role_changes(events, vip=IN, begin=0, end=3) == 0


def test_addresses_on_two_gateways_are_a_split() -> None:
    events = [got(0, "gw1"), got(0, "gw1", OUT), left(10, "gw1"), got(11, "gw2"), left(13, "gw1", OUT)]

    assert splits(events, vips=[IN, OUT], begin=0, end=20) == [Span(begin=11, end=13)]
    assert splits(events, vips=[IN], begin=0, end=20) == []


def test_a_split_that_stays_lasts_until_the_end() -> None:
    events = [got(0, "gw1"), got(0, "gw2", OUT)]

    assert splits(events, vips=[IN, OUT], begin=5, end=20) == [Span(begin=5, end=20)]
