# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holes in a stream of numbered probes, by the time each was sent: pure.

A probe counts as answered when its answer came within LATE seconds. A hole reaches from the last answered probe before
to the first answered one after it. One that never ends has no end, which a list of gaps between answers would not show:
so every stream also says when its last answered probe was sent, and whether answers go on at the end.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LATE = 1.0
# Shorter ones are single packets lost; a stream "works again" after the last hole that is longer.
WORTH = 0.2
# No probe of the last moment can have been answered yet.
TAIL = 0.5


@dataclass(frozen=True, kw_only=True)
class Hole:
    """No answer between these two send times; `end` is infinite when none came any more."""

    begin: float
    end: float
    lost: int

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.end - self.begin


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one stream went through, in seconds since the fault."""

    site: str
    direction: str
    sent: int
    lost: int
    longest: float
    again: float
    first_lost: float | None
    last_answer: float
    goes_on: bool
    widest_pause: float

    def line(self) -> str:
        """One line of a log."""
        first = "none" if self.first_lost is None else f"{self.first_lost:.2f}"
        end = "answers go on" if self.goes_on else "NO ANSWERS AT THE END"
        return (
            f"{self.site} {self.direction}: sent {self.sent}, lost {self.lost}, longest hole {self.longest:.2f} s, "
            f"works again at {self.again:.2f}, first lost at {first}, last answered at {self.last_answer:.2f}, {end}"
        )


def holes(*, sent: Sequence[float], rtt: Sequence[float], until: float) -> list[Hole]:
    """Every run of unanswered probes among those sent before `until`; a negative rtt is no answer."""
    found: list[Hole] = []
    last: float | None = None
    lost = 0
    for when, took in zip(sent, rtt, strict=True):
        if when >= until:
            break
        if 0 <= took <= LATE:
            if lost:
                begin = last if last is not None else sent[0]
                found.append(Hole(begin=begin, end=when, lost=lost))
            last, lost = when, 0
        else:
            lost += 1
    if lost:
        found.append(Hole(begin=last if last is not None else sent[0], end=math.inf, lost=lost))
    return found


def figures(
    *, site: str, direction: str, sent: Sequence[float], rtt: Sequence[float], fault: float, end: float
) -> Figures:
    """Judge one stream: `fault` and `end` on the clock of `sent`."""
    until = end - TAIL
    inside = [(when, took) for when, took in zip(sent, rtt, strict=True) if fault - 1 <= when < until]
    if not inside:
        return Figures(
            site=site,
            direction=direction,
            sent=0,
            lost=0,
            longest=math.inf,
            again=math.inf,
            first_lost=None,
            last_answer=-math.inf,
            goes_on=False,
            widest_pause=math.inf,
        )
    times = [when for when, _took in inside]
    found = holes(sent=times, rtt=[took for _when, took in inside], until=until)
    answered = [when for when, took in inside if 0 <= took <= LATE]
    lost = [when for when, took in inside if not 0 <= took <= LATE]
    last_answer = answered[-1] - fault if answered else -math.inf
    worth = [hole for hole in found if hole.seconds >= WORTH]
    return Figures(
        site=site,
        direction=direction,
        sent=len(inside),
        lost=len(lost),
        longest=max((hole.seconds for hole in found), default=0.0),
        again=max(0.0, worth[-1].end - fault) if worth else 0.0,
        first_lost=lost[0] - fault if lost else None,
        last_answer=last_answer,
        goes_on=bool(answered) and until - answered[-1] < max(WORTH, 3 * _pause(times)),
        widest_pause=_pause(times),
    )


def _pause(times: Sequence[float]) -> float:
    """The longest time in which nothing was sent: what the probe itself could not see."""
    return max((after - before for before, after in itertools.pairwise(times)), default=0.0)
