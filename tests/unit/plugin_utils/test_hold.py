# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long, how fast, and what a site would answer."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.hold import (
    Hold,
    HoldError,
    foretell_hold,
    read_rate,
    read_span,
)

SHOWN = {"current": 3, "pending": 0, "holds": True, "held": 0, "service": "active"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), (" 1h5s ", 3605)]
)
def test_a_time_as_a_person_writes_it(text: str, seconds: int) -> None:
    assert read_span(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "2 h", "1d", "1.5h", "30m2h"])
def test_no_time(text: str) -> None:
    with pytest.raises(HoldError, match=r"is no time\. Write hours, minutes and seconds as 2h"):
        read_span(text)


@pytest.mark.parametrize(("text", "rate"), [("20/min", 20 / 60), ("2/s", 2.0), ("600/h", 600 / 3600), ("0.5/s", 0.5)])
def test_a_rate_as_a_person_writes_it(text: str, rate: float) -> None:
    assert read_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "20", "0/min", "20/day", "-1/s", "fast", "20 / min"])
def test_no_rate(text: str) -> None:
    with pytest.raises(HoldError, match=r"is no rate\. Write how many sites in which time"):
        read_rate(text)


@pytest.mark.parametrize("seconds", [0, -5, 86401])
def test_a_hold_that_is_not_possible(seconds: int) -> None:
    with pytest.raises(HoldError, match="a site is held for 1 s to 1 d, and may be held again before that is over"):
        Hold(seconds=seconds, by="ann@desk")


def test_what_a_site_is_told_is_on_one_line() -> None:
    words = Hold(seconds=60, by="ann@desk", reason="a\nstorm \x1b[2J of  the third", now=1000.9).words
    assert words == ("hold", "60", "1000", "ann@desk", "a storm [2J of the third")
    assert len(Hold(seconds=60, by="ann", reason="x" * 999).words[4]) == 200
    # The site would not keep a blank at the end, so the same words would be another hold each time.
    assert Hold(seconds=60, by="ann", reason="x" * 199 + " of the third").words[4] == "x" * 199


@pytest.mark.parametrize(
    ("different", "changed", "reason", "message"),
    [
        ({}, True, "", "would be held for 2 h"),
        ({"init": "none"}, False, "no-service-manager", "no init system that could keep the client stopped was found"),
        ({"current": 0}, False, "no-generation", "nothing runs here that could be held"),
        ({"pending": 3}, False, "on-probation", "generation 3 is on probation, and would go back by itself"),
        ({"holds": False}, False, "too-old", "generation 3 knows no holds and would start its client again"),
        ({"held": 7000, "held_by": "ann", "held_reason": "storm"}, True, "", "would be held for 2 h"),
        (
            {"held": 7000, "held_by": "ann", "held_reason": "storm", "service": "inactive"},
            False,
            "",
            "held for another 1 h 57 min",
        ),
        (
            {"held": 7000, "held_by": "bob", "held_reason": "storm", "service": "inactive"},
            True,
            "",
            "would be held for 2 h",
        ),
        (
            {"held": 600, "held_by": "ann", "held_reason": "storm", "service": "inactive"},
            True,
            "",
            "would be held for 2 h",
        ),
    ],
)
def test_what_a_site_would_answer(different: dict[str, Any], changed: bool, reason: str, message: str) -> None:  # noqa: FBT001 - a column of the table
    found = foretell_hold(hold=Hold(seconds=7200, by="ann", reason="storm"), shown={**SHOWN, **different})
    assert (found["changed"], found["reason"]) == (changed, reason)
    assert found["message"].startswith(message)


def test_what_a_site_would_answer_to_a_release() -> None:
    assert foretell_hold(hold=None, shown=SHOWN) == {"changed": False, "reason": "", "message": "not held"}
    found = foretell_hold(hold=None, shown={**SHOWN, "held": 120})
    assert found == {"changed": True, "reason": "", "message": "would be released, 2 min before its time is over"}
