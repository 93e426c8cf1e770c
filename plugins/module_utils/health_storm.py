# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a gateway is in a reconnect storm: from what was counted to one word, with no clock and no input of its own.

Runs on gateways: standard library only. A storm is no reason to move the addresses, the other gateway would get the
same sites; so nothing here has a part in the score. It is something to say, with the command that ends it.

A restart of an instance and a move of the addresses look like a storm for as long as the sites need to come back, which
is under ten seconds. So a sign must go on for longer than that, and be seen at more than a handful of sites.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

from ansible_collections.spokewright.fleet.plugins.module_utils.management import UNDEF

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.module_utils.management import Client

COMMAND = "tools/fleet hold GROUP"
HELD = 10.0
"""Seconds that a sign stands after it was last seen: in a storm clients come in bursts, 2, 4 and 8 s apart, and a
status file is 10 s old at most."""
YOUNG = 5
"""A session that began within so many seconds before the status was written has just shaken hands."""


@dataclass(frozen=True)
class Rules:
    """When to call it a storm. ``share`` and ``sessions`` must both be reached, ``seconds`` is how long."""

    share: float
    sessions: int
    seconds: float
    drops: float


@dataclass(frozen=True)
class Count:
    """What was counted at one moment; packets and lines since the moment before. ``span`` is how long ago that was."""

    sessions: int = 0
    half_open: int = 0
    young: int = 0
    drops: int = 0
    limited: int = 0
    span: float = 1.0

    def __add__(self, other: Count) -> Count:
        return replace(
            self,
            sessions=self.sessions + other.sessions,
            half_open=self.half_open + other.half_open,
            young=self.young + other.young,
        )


@dataclass(frozen=True)
class Storm:
    """What is known of a storm. ``since`` is Unix time, None when there is none; then the rest is of the last one."""

    since: float | None = None
    signs: tuple[str, ...] = ()
    sessions: int = 0
    half_open: int = 0
    half_open_peak: int = 0
    handshakes_per_second: float = 0.0
    drops: int = 0
    limited: int = 0
    command: str = COMMAND


@dataclass(frozen=True)
class State:
    """A storm, and on a clock that nobody sets: since when there are signs, and when each was seen last."""

    storm: Storm = Storm()
    bad_since: float | None = None
    seen: tuple[tuple[str, str, float], ...] = ()
    drops: int = 0
    limited: int = 0


def count(*, clients: t.Sequence[Client], now: int) -> Count:
    """The sessions of one instance. ``now`` is the daemon's own time of its status."""
    return Count(
        sessions=len(clients),
        half_open=sum(client.common_name == UNDEF for client in clients),
        young=sum(client.connected_since > now - YOUNG for client in clients),
    )


def signs(*, counted: Count, rules: Rules) -> dict[str, str]:
    """What speaks for a storm at this moment: a name that stays and a sentence with numbers."""
    found = {}
    enough = max(rules.sessions, rules.share * counted.sessions)
    if counted.half_open >= enough:
        found["half open"] = "%d of %d sessions are half open" % (counted.half_open, counted.sessions)
    if counted.young >= enough:
        found["handshakes"] = "%.0f handshakes a second" % (counted.young / YOUNG)
    if counted.drops >= rules.drops * counted.span:
        found["drops"] = "full receive buffers drop %.0f packets a second" % (counted.drops / counted.span)
    # A flood of others meets the limits as well, and there is nobody to hold then.
    if counted.limited and (found or max(counted.young, counted.half_open) >= rules.sessions):
        found["limited"] = "the limits of the daemons refuse handshakes"
    return found


def step(*, before: State, counted: Count, rules: Rules, now: float, wall: float) -> State:
    """Take in what was counted."""
    fresh = signs(counted=counted, rules=rules)
    kept = [(name, text, when) for name, text, when in before.seen if name not in fresh and now - when < HELD]
    seen = (*((name, text, now) for name, text in fresh.items()), *kept)
    bad_since = before.bad_since
    if seen and bad_since is None:
        bad_since = now
    state = replace(before, seen=seen, bad_since=bad_since)
    state = replace(state, drops=before.drops + counted.drops, limited=before.limited + counted.limited)
    if not seen and before.storm.since is None:
        return replace(state, bad_since=None, drops=0, limited=0, storm=_now(Storm(), counted))
    # ``bad_since`` of a storm that is on is when the last sign was seen: the same number for both ways.
    if before.storm.since is not None:
        return _still(state=state, before=before, counted=counted, rules=rules, now=now)
    # A sign that is only held may not complete the time: what was over is not to be called a storm afterwards.
    if not fresh or bad_since is None or now - bad_since < rules.seconds:
        return replace(state, storm=_now(Storm(), counted))
    storm = _now(Storm(since=wall, signs=_texts(state), drops=state.drops, limited=state.limited), counted)
    return replace(state, storm=storm, bad_since=now)


def _still(*, state: State, before: State, counted: Count, rules: Rules, now: float) -> State:
    """A storm that is on: it is over when no sign was seen for as long as it takes to call it one."""
    if state.seen:
        storm = replace(before.storm, signs=_texts(state), drops=state.drops, limited=state.limited)
        return replace(state, storm=_now(storm, counted), bad_since=now)
    quiet = now - (before.bad_since if before.bad_since is not None else now)
    storm = _now(replace(before.storm, drops=state.drops, limited=state.limited), counted)
    if quiet < rules.seconds:
        return replace(state, storm=storm, bad_since=before.bad_since)
    return State(storm=replace(storm, since=None, signs=()))


def _now(storm: Storm, counted: Count) -> Storm:
    return replace(
        storm,
        sessions=counted.sessions,
        half_open=counted.half_open,
        half_open_peak=max(storm.half_open_peak, counted.half_open),
        handshakes_per_second=round(counted.young / YOUNG, 1),
    )


def _texts(state: State) -> tuple[str, ...]:
    return tuple(text for _name, text, _when in sorted(state.seen))
