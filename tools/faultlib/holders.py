# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who held which virtual address when: pure.

A time line is made of what the kernels of both gateways said (an address came, an address went), or of who answered an
ARP request: the first is what a gateway believes, the second what a neighbour sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True, kw_only=True)
class Event:
    """At this time this gateway got the address, or lost it."""

    time: float
    gateway: str
    vip: str
    held: bool


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of time."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.begin


def without_power(events: Iterable[Event], *, dead: Mapping[str, Sequence[Span]]) -> list[Event]:
    """The events with each gateway's addresses gone while it had no power: its kernel was not there to say so."""
    found = sorted(events, key=lambda event: event.time)
    for gateway, spans in dead.items():
        for span in spans:
            held = {vip for vip in {event.vip for event in found} if gateway in holders(found, vip=vip, at=span.begin)}
            found = [one for one in found if one.gateway != gateway or not span.begin <= one.time < span.end]
            found += [Event(time=span.begin, gateway=gateway, vip=vip, held=False) for vip in sorted(held)]
            found.sort(key=lambda event: event.time)
    return found


def holders(events: Iterable[Event], *, vip: str, at: float) -> set[str]:
    """Who holds the address at that time."""
    found: set[str] = set()
    for event in sorted(events, key=lambda event: event.time):
        if event.time > at:
            break
        if event.vip == vip:
            (found.add if event.held else found.discard)(event.gateway)
    return found


def _states(events: Iterable[Event], *, vip: str) -> list[tuple[float, frozenset[str]]]:
    """Every change of the set of holders."""
    found: list[tuple[float, frozenset[str]]] = []
    now: set[str] = set()
    for event in sorted((event for event in events if event.vip == vip), key=lambda event: event.time):
        (now.add if event.held else now.discard)(event.gateway)
        if not found or found[-1][1] != now:
            found.append((event.time, frozenset(now)))
    return found


def _spans(events: Iterable[Event], *, vip: str, begin: float, end: float, count: range) -> list[Span]:
    states = _states(events, vip=vip)
    if not states or states[0][0] > begin:
        states = [(begin, frozenset()), *states]
    ends = [when for when, _who in states[1:]] + [math.inf]
    clipped = [
        Span(begin=max(when, begin), end=min(until, end))
        for (when, who), until in zip(states, ends, strict=True)
        if len(who) in count
    ]
    return [span for span in clipped if span.seconds > 0]


def overlaps(events: Iterable[Event], *, vip: str, begin: float, end: float) -> list[Span]:
    """When more than one gateway held it."""
    return _spans(events, vip=vip, begin=begin, end=end, count=range(2, 99))


def gaps(events: Iterable[Event], *, vip: str, begin: float, end: float) -> list[Span]:
    """When nobody held it."""
    return _spans(events, vip=vip, begin=begin, end=end, count=range(1))


def moved_at(events: Iterable[Event], *, vip: str, to: str, after: float) -> float:
    """When that gateway got the address for the first time after that moment; infinite when it never did."""
    times = [event.time for event in events if event.vip == vip and event.gateway == to and event.held]
    return min((when for when in times if when >= after), default=math.inf)


def role_changes(events: Sequence[Event], *, vip: str, begin: float, end: float) -> int:
    """How often the address came to another gateway than the one that held it last."""
    last: str | None = None
    changes = 0
    for event in sorted(events, key=lambda event: event.time):
        if event.vip != vip or not event.held or event.time > end:
            continue
        if last is not None and event.gateway != last and event.time >= begin:
            changes += 1
        last = event.gateway
    return changes


def splits(events: Iterable[Event], *, vips: Sequence[str], begin: float, end: float) -> list[Span]:
    """When one gateway held some of the addresses and the other one some others, or both held some."""
    ordered = sorted((event for event in events if event.vip in vips), key=lambda event: event.time)
    held: set[tuple[str, str]] = set()
    found: list[Span] = []
    for event, until in zip(ordered, [one.time for one in ordered[1:]] + [math.inf], strict=True):
        (held.add if event.held else held.discard)((event.gateway, event.vip))
        span = Span(begin=max(event.time, begin), end=min(until, end))
        if len({gateway for gateway, _vip in held}) > 1 and span.seconds > 0:
            if found and found[-1].end == span.begin:
                span = Span(begin=found.pop().begin, end=span.end)
            found.append(span)
    return found
