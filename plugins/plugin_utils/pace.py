# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When the next held site may be released: at the rate that was asked for, or as the gateways bear it. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.durations import MINUTE, duration

GO, WAIT, STOP = "go", "wait", "stop"
# A look that is older says nothing of now.
STALE_SECONDS: Final = 20.0
# At this rate a site that comes up as it should is seen to be up by then.
SECONDS_TO_COME_UP: Final = 15.0
LEAST_IN_FLIGHT: Final = 10
LEAST_LATE: Final = 3
LATE_SHARE: Final = 10
# Of the turns that a slow controller missed, no more than those of so many seconds are made up for.
MADE_UP_SECONDS: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How fast, and what holds it back.

    ``rate``: sites a second. ``late_seconds``: a released site that is not up by then counts as late. ``patience``: for
    how long it waits for the gateways to become better.
    """

    rate: float
    late_seconds: float = 60.0
    patience: float = 120.0

    @property
    def most_in_flight(self) -> int:
        """So many may be released and not yet up."""
        return max(LEAST_IN_FLIGHT, math.ceil(self.rate * SECONDS_TO_COME_UP))

    @property
    def most_handshakes(self) -> int:
        """So many half-open sessions of the gateways are no storm: a client that tries again leaves one behind."""
        return 2 * self.most_in_flight


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the last look at the gateways said. ``at``: when, by the clock that the pace runs by."""

    at: float
    owner: bool
    handshakes: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """What to do now, and why not to go on."""

    do: str
    why: str = ""


class Pace:
    """One release. Ask it before every site, and tell it of every site that was released.

    Each turn has its time from the beginning, so that what a turn takes adds up to nothing.
    """

    def __init__(self, *, rules: Rules, now: float) -> None:
        self.rules = rules
        self.begun: list[float] = []
        self.waited = 0.0
        self._next = now
        self._kept_since: float | None = None

    def step(self, *, now: float, in_flight: int, late: int, seen: Seen | None) -> Step:
        """Whether the next site may be released."""
        if late > max(LEAST_LATE, len(self.begun) // LATE_SHARE):
            return Step(do=STOP, why=f"{late} released sites were not up after {duration(self.rules.late_seconds)}")
        why = self._keeps_back(now=now, in_flight=in_flight, seen=seen)
        if why:
            return self._kept(why, now=now)
        if self._kept_since is not None:
            # What was missed while it waited is not made up for: that would be a burst.
            self.waited += now - self._kept_since if self.begun else 0.0
            self._kept_since, self._next = None, max(self._next, now)
        return Step(do=GO if now >= self._next else WAIT)

    def released(self, *, now: float) -> None:
        """A site was released. The next turn is counted from when this one was due, and the first one was due then."""
        due = max(self._next, now - MADE_UP_SECONDS) if self.begun else now
        self.begun.append(now)
        self._next = due + 1 / self.rules.rate

    @property
    def measured(self) -> float | None:
        """Sites a second over the whole, from the first to the last; nothing with less than two."""
        if len(self.begun) < 2 or self.begun[-1] <= self.begun[0]:
            return None
        return (len(self.begun) - 1) / (self.begun[-1] - self.begun[0])

    def _kept(self, why: str, *, now: float) -> Step:
        if self._kept_since is None:
            self._kept_since = now
        if now - self._kept_since > self.rules.patience:
            return Step(do=STOP, why=f"for {duration(self.rules.patience)}: {why}")
        return Step(do=WAIT, why=why)

    def _keeps_back(self, *, now: float, in_flight: int, seen: Seen | None) -> str:
        if seen is None or now - seen.at > STALE_SECONDS:
            return "the gateways do not answer"
        if not seen.owner:
            return "no gateway that holds the addresses answers"
        if seen.handshakes > self.rules.most_handshakes:
            return f"{seen.handshakes} handshakes are half-open on the gateways, more than {self.rules.most_handshakes}"
        if in_flight >= self.rules.most_in_flight:
            return f"{in_flight} released sites are not up yet"
        return ""


def per_minute(rate: float) -> str:
    """A rate as it is said."""
    return f"{round(rate * MINUTE, 1):g}/min"
