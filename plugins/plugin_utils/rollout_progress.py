# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a rollout is, one line for each thing that happens, and with which code the run is to end. Pure."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ansible_collections.spokewright.fleet.plugins.plugin_utils.durations import duration
from ansible_collections.spokewright.fleet.plugins.plugin_utils.refusal import REFUSED
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_figures import EXIT_CODES
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_lines import LOCKED
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import tame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Mood = Literal["plain", "good", "bad"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """What is shown, and in which mood."""

    text: str
    mood: Mood


class RolloutProgress:
    """Follows the events of the rollouts of one run."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wave_began: dict[str, float] = {}
        # How many sites the waves that have ended had, and how long these took.
        self._spent: dict[str, tuple[int, float]] = {}
        self._codes: dict[str, int] = {}

    @property
    def exit_code(self) -> int:
        """What the run ends with: the gravest of what each rollout said last."""
        return max(self._codes.values(), default=0)

    def line(self, event: Mapping[str, Any], *, message: str = "") -> Line:
        """Take note of an event and say it. `message` is the result's own."""
        kind, rollout = str(event.get("event", "")), str(event.get("rollout", ""))
        code = int(event.get("exit_code") or 0)
        if kind == REFUSED and not code:
            code = LOCKED
        self._codes[rollout] = code
        said = f"rollout {rollout}: {self._said(kind, event)}"
        if kind == REFUSED:
            said = f"rollout {rollout}: refused: {message}" if rollout else f"refused: {message}"
        mood: Mood = "plain"
        if code or event.get("failed"):
            mood = "bad"
        elif kind in {"wave_ended", "closed"}:
            mood = "good"
        return Line(text=tame(said), mood=mood)

    def _said(self, kind: str, event: Mapping[str, Any]) -> str:
        known = {
            "opened": self._opened,
            "wave_began": self._wave_begins,
            "wave_ended": self._wave_ends,
            "closed": self._closed,
        }
        return known[kind](event) if kind in known else kind

    @staticmethod
    def _opened(event: Mapping[str, Any]) -> str:
        return f"{event.get('total', 0)} sites in {event.get('waves', 0)} waves{_so_far(event)}"

    def _wave_begins(self, event: Mapping[str, Any]) -> str:
        self._wave_began[str(event.get("rollout", ""))] = self._clock()
        sites = int(event.get("sites") or 0)
        each = self._each(event)
        return f"{_wave(event)} begins with {sites} sites" + (f", about {duration(each * sites)}" if each else "")

    def _wave_ends(self, event: Mapping[str, Any]) -> str:
        rollout = str(event.get("rollout", ""))
        began = self._wave_began.pop(rollout, None)
        took = ""
        if began is not None:
            seconds = self._clock() - began
            sites, spent = self._spent.get(rollout, (0, 0.0))
            self._spent[rollout] = (sites + int(event.get("sites") or 0), spent + seconds)
            took = f" after {duration(seconds)}"
        return f"{_wave(event)} ended{took}{_so_far(event)}{self._left(event)}"

    @staticmethod
    def _closed(event: Mapping[str, Any]) -> str:
        code = int(event.get("exit_code") or 0)
        end = EXIT_CODES.get(code, f"exit code {code}")
        report = f"; report: {event['report']}" if event.get("report") else ""
        return f"ended, {end}{_so_far(event)}{report}"

    def _each(self, event: Mapping[str, Any]) -> float:
        """The seconds that a site of the waves so far took; 0 when none has ended yet."""
        sites, spent = self._spent.get(str(event.get("rollout", "")), (0, 0.0))
        return spent / sites if sites else 0.0

    def _left(self, event: Mapping[str, Any]) -> str:
        over = sum(int(event.get(state) or 0) for state in ("done", "failed", "aborted", "parked"))
        seconds = self._each(event) * max(int(event.get("total") or 0) - over, 0)
        return f"; about {duration(seconds)} of work left" if seconds else ""


def _wave(event: Mapping[str, Any]) -> str:
    return f"wave {event.get('number', '?')} of {event.get('waves', '?')}, {event.get('wave', '')},"


def _so_far(event: Mapping[str, Any]) -> str:
    total = int(event.get("total") or 0)
    if not total:
        return ""
    others = [f"{event[state]} {state}" for state in ("failed", "aborted", "parked") if event.get(state)]
    return ": " + ", ".join([f"{event.get('done', 0)} of {total} sites done", *others])
