# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a tunnel instance lives, whether to ask it, and whether to end it so that systemd starts it anew.

Runs on gateways: standard library only, no clock and no input of its own.

OpenVPN greets whoever connects to its management socket, one client at a time, and logs two lines for each. So it is
asked once a minute. In between its event loop is watched: a packet that means nothing is sent to its port, and a loop
that lives wakes up for it, which the kernel counts. Only when that count stands still is it asked at once. A daemon
whose socket somebody else holds therefore lives on, and a frozen one neither counts nor greets.

One that wants to run and is not let (a storm of packets or a neighbour has its processor), or that waits for the script
that judges a key, neither counts nor greets either, and to end it would only make the storm worse: it is left alone
until it has been so for SPIN_SECONDS.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

from ansible_collections.spokewright.fleet.plugins.module_utils.health_rules import MISSES

ASK_SECONDS = 60.0
SPIN_SECONDS = 10.0
"""How long one may be busy without an answer. By then its sites have left, and it may as well be an endless loop."""
PROVEN = 10
"""How many good looks at a process it takes to know that it had started. One that is just starting is systemd's."""

Answer = t.Literal["free", "waiting", "answered", "refused"]


@dataclass(frozen=True)
class Look:
    """What one look at an instance saw.

    Args:
        answer: nothing asked; asked, and no answer yet; the greeting; nobody listens there.
        pid: the process that listens on the socket, as long as it lives.
        wakes: how often that process has gone to sleep of its own accord.
        busy: it runs or wants to, waits for the disk, or for a program that it has started.
    """

    answer: Answer
    pid: int | None
    wakes: int | None
    busy: bool = False


@dataclass(frozen=True)
class Instance:
    """What is known of an instance from one look to the next."""

    pid: int | None = None
    wakes: int | None = None
    proofs: int = 0
    misses: int = 0
    greeted: float | None = None
    busy: float | None = None
    cured: float | None = None


@dataclass(frozen=True)
class Step:
    """What a look led to: the next state, the observation for the score, and what to do now."""

    state: Instance
    good: bool | None
    ask: bool
    cure: bool
    detail: str


def step(*, before: Instance, look: Look, now: float, late: bool, cure_pause: float) -> Step:
    """Take in one look. ``late``: this machine did not let us run in time, so silence of others says nothing."""
    state = before if look.pid == before.pid else Instance(cured=before.cured)
    woke = None not in (look.wakes, state.wakes) and look.wakes != state.wakes
    greeted = look.answer == "answered"
    state = replace(state, pid=look.pid, wakes=look.wakes, greeted=now if greeted else state.greeted)
    if greeted or woke:
        state = replace(state, misses=0, busy=None, proofs=state.proofs + (PROVEN if greeted else 1))
        ask = look.answer != "waiting" and (state.greeted is None or now - state.greeted >= ASK_SECONDS)
        return Step(state=state, good=True, ask=ask, cure=False, detail=_held(look=look, state=state, now=now))
    ask = look.answer != "waiting"
    if late:
        return Step(state=state, good=None, ask=ask, cure=False, detail="")
    if look.busy:
        state = replace(state, busy=now if state.busy is None else state.busy)
        if now - (state.busy or now) < SPIN_SECONDS:
            return Step(state=state, good=None, ask=ask, cure=False, detail="")
    state = replace(state, misses=state.misses + 1)
    if look.pid is None:
        return Step(state=state, good=False, ask=ask, cure=False, detail="nobody listens on its management socket")
    rested = state.cured is None or now - state.cured >= cure_pause
    cure = state.misses >= MISSES and state.proofs >= PROVEN and rested
    if cure:
        state = replace(state, cured=now, proofs=0)
    detail = "pid %d neither moves nor answers" % look.pid
    if look.busy:
        detail = "pid %d has been busy for %d s and answers nobody" % (look.pid, now - (state.busy or now))
    return Step(state=state, good=False, ask=ask, cure=cure, detail=detail)


def _held(*, look: Look, state: Instance, now: float) -> str:
    if look.answer == "waiting" and state.greeted is not None and now - state.greeted >= 2 * ASK_SECONDS:
        return "lives, but somebody has held its management socket for %d s" % (now - state.greeted)
    return ""
