# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose turn it is: at the rate that was asked for, and not while the gateways cannot bear it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.pace import (
    GO,
    STOP,
    WAIT,
    Pace,
    Rules,
    Seen,
    per_minute,
)


def release(pace: Pace, *, sites: int, began: float, each: float = 0.0, tick: float = 0.05) -> float:
    """A controller that needs so long for each site; when it was done."""
    now = began
    while len(pace.begun) < sites:
        if pace.step(now=now, in_flight=0, late=0, seen=Seen(at=now, owner=True, handshakes=0)).do == GO:
            pace.released(now=now)
            now += each
        now += tick
    return now


@pytest.mark.parametrize(("rate", "each"), [(20 / 60, 0.0), (20 / 60, 2.0), (2.0, 0.4), (10.0, 0.04)])
def test_what_a_turn_takes_adds_up_to_nothing(rate: float, each: float) -> None:
    pace = Pace(rules=Rules(rate=rate), now=1000.0)
    release(pace, sites=100, began=1000.0, each=each)
    assert pace.measured == pytest.approx(rate, rel=0.02)
    assert pace.waited == 0


def test_what_a_controller_that_stood_still_has_missed_is_no_burst() -> None:
    pace = Pace(rules=Rules(rate=10.0), now=1000.0)
    before = release(pace, sites=20, began=1000.0)
    release(pace, sites=60, began=before + 30, tick=0.005)
    at_once = [one for one in pace.begun if before + 30 <= one < before + 31]
    assert len(at_once) <= 21


def test_the_first_turn_is_when_somebody_is_there_to_be_released() -> None:
    pace = Pace(rules=Rules(rate=2.0), now=1000.0)
    release(pace, sites=3, began=1000.9)
    assert pace.measured == pytest.approx(2.0, rel=0.1)


def step(pace: Pace, *, now: float = 1000.0, **seen: Any) -> tuple[str, str]:
    found = {"in_flight": 0, "late": 0, "owner": True, "handshakes": 0, "at": now, **seen}
    look = Seen(at=found["at"], owner=found["owner"], handshakes=found["handshakes"])
    one = pace.step(now=now, in_flight=found["in_flight"], late=found["late"], seen=look)
    return one.do, one.why


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        ({"at": 979.0}, "the gateways do not answer"),
        ({"owner": False}, "no gateway that holds the addresses answers"),
        ({"handshakes": 31}, "31 handshakes are half-open on the gateways, more than 30"),
        ({"in_flight": 15}, "15 released sites are not up yet"),
    ],
)
def test_it_waits_while_the_gateways_cannot_bear_more_and_stops_when_that_lasts(seen: dict[str, Any], why: str) -> None:
    pace = Pace(rules=Rules(rate=1.0), now=1000.0)
    assert step(pace, **seen) == (WAIT, why)
    age = 1000.0 - seen.get("at", 1000.0)
    assert step(pace, now=1119.0, **{**seen, "at": 1119.0 - age}) == (WAIT, why)
    assert step(pace, now=1121.0, **{**seen, "at": 1121.0 - age}) == (STOP, f"for 2 min: {why}")


def test_it_goes_on_at_its_rate_when_the_gateways_are_well_again() -> None:
    pace = Pace(rules=Rules(rate=1.0), now=1000.0)
    pace.released(now=1000.0)
    assert step(pace, now=1010.0, owner=False)[0] == WAIT
    assert step(pace, now=1050.0) == (GO, "")
    pace.released(now=1050.0)
    assert step(pace, now=1050.5) == (WAIT, "")
    assert step(pace, now=1051.0) == (GO, "")
    assert pace.waited == 40.0


def test_sites_that_do_not_come_up_stop_it() -> None:
    pace = Pace(rules=Rules(rate=1.0), now=1000.0)
    for _site in range(50):
        pace.released(now=1000.0)
    assert step(pace, late=5)[0] != STOP
    assert step(pace, late=6) == (STOP, "6 released sites were not up after 1 min")
    assert step(Pace(rules=Rules(rate=1.0), now=1000.0), late=3)[0] == GO


def test_a_rate_as_it_is_said() -> None:
    assert [per_minute(rate) for rate in (20 / 60, 0.33249, 2.0)] == ["20/min", "19.9/min", "120/min"]
