# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From single observations to one score: when a check turns bad, when it is good again, and what that weighs.

Runs on gateways: standard library only, no clock and no input of its own.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field, replace

Role = t.Literal["owner", "standby", "fault", "unknown"]

MISSES = 3
SUCCESSES = 10
OWNER_MISSES = 1
STANDBY_SUCCESSES = 2
"""When both gateways lose the same thing, the standby says so first, and is the last to say that it is back. Otherwise
the owner would be the worse one for a moment, and the addresses would move to a gateway that is no better."""

MEMORY = 20 * SUCCESSES
"""For how many looks a fall is remembered. Each further one doubles the successes that it takes to be good again."""
LONGEST = 10


@dataclass(frozen=True)
class Verdict:
    """What is thought of one check. ``well`` is None until enough has been seen. ``since`` is the caller's clock."""

    well: bool | None = None
    since: float = 0.0
    run: int = 0
    falls: tuple[float, ...] = ()

    @property
    def bad(self) -> bool:
        """Known to be bad."""
        return self.well is False


def judge(*, before: Verdict, good: bool | None, now: float, interval: float, owner: bool) -> Verdict:
    """Take in one observation. None: this look could not be taken, and says nothing."""
    if good is None:
        return before
    falls = tuple(fall for fall in before.falls if now - fall < MEMORY * interval)
    before = replace(before, falls=falls)
    if before.well is None and good:
        return replace(before, well=True, since=now, run=0)
    if before.bad:
        run = before.run + 1 if good else 0
        if run < _successes(falls=len(falls), owner=owner):
            return replace(before, run=run)
        return replace(before, well=True, since=now, run=0)
    run = 0 if good else before.run + 1
    if run < MISSES + (OWNER_MISSES if owner else 0):
        return replace(before, run=run)
    return Verdict(well=False, since=now, run=0, falls=(*falls, now))


def _successes(*, falls: int, owner: bool) -> int:
    times = min(LONGEST, 1 << max(0, falls - 1))
    return SUCCESSES * times + (0 if owner else STANDBY_SUCCESSES)


@dataclass(frozen=True)
class Subject:
    """What is penalised once, however many of its checks are bad.

    It is dead when one of ``any_of`` is bad, or all of ``all_of`` are.

    Args:
        patience: seconds that a check may be bad before it counts.
        binding: whether an owner gives the addresses away for it. What is not binding only makes a standby less fit:
            moving all sites because a few have lost their second way would do more harm than good.
    """

    name: str
    penalty: int
    any_of: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()
    patience: float = 0.0
    binding: bool = True


@dataclass(frozen=True)
class Score:
    """How well this gateway is, how much of that keepalived is told, and which check is to blame for how much."""

    value: int
    told: int
    penalties: t.Mapping[str, int] = field(default_factory=dict)


def weigh(
    *, subjects: t.Sequence[Subject], verdicts: t.Mapping[str, Verdict], now: float, floor: int, owner: bool
) -> Score:
    """Add up the penalties; never below ``floor``, which keeps a bad gateway better than none."""
    penalties: dict[str, int] = {}
    withheld = 0
    for subject in subjects:
        blamed = _blamed(subject=subject, verdicts=verdicts, now=now)
        if blamed and subject.penalty:
            penalties[blamed] = subject.penalty
            withheld += 0 if subject.binding or not owner else subject.penalty
    total = sum(penalties.values())
    return Score(value=max(floor, -total), told=max(floor, withheld - total), penalties=penalties)


def _blamed(*, subject: Subject, verdicts: t.Mapping[str, Verdict], now: float) -> str:
    def counts(name: str) -> bool:
        return verdicts[name].bad and now - verdicts[name].since >= subject.patience

    for name in subject.any_of:
        if counts(name):
            return name
    if subject.all_of and all(counts(name) for name in subject.all_of):
        return subject.all_of[0]
    return ""


def role(*, held: int, vips: int, fault: bool) -> Role:
    """What this gateway is, from how many of the virtual addresses it holds."""
    if held == vips and vips:
        return "owner"
    if held:
        return "unknown"
    return "fault" if fault else "standby"


HOLD_SECONDS = 30.0


@dataclass(frozen=True)
class Hold:
    """A planned hand-over: until when the addresses are given away, on the wall clock and on one nobody sets."""

    text: str
    until: float
    latest: float


def hold(*, before: Hold | None, text: str | None, wall: float, now: float) -> Hold | None:
    """The hold that is in force. None: there is none, it is over, or its file says no time.

    It ends at the time in the file, and in any case 30 s after it was first seen, so that neither a slip of the pen nor
    a clock that is set back keeps a gateway out of service.
    """
    if text is None:
        return None
    if before is None or before.text != text:
        try:
            until = float(text)
        except ValueError:
            return None
        before = Hold(text=text, until=min(until, wall + HOLD_SECONDS), latest=now + HOLD_SECONDS)
    return before if wall < before.until and now < before.latest else None
