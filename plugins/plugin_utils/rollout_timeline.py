# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where on the page a rollout's waves, halts and seconds offline are drawn. Pure geometry, in units of the drawing."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.durations import DAY, HOUR, MINUTE, duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_figures import Wave

WIDTH: Final = 1000.0
LEFT: Final = 190.0
RIGHT: Final = 24.0
TOP: Final = 34.0
ROW: Final = 52.0
BAR: Final = 28.0
# A wave of no length is still to be seen.
LEAST: Final = 3.0
# Activations that are nearer to each other than this are one column.
COLUMN: Final = 4.0
MOST_TICKS: Final = 9
NICE: Final = (
    *(1, 2, 5, 10, 15, 30),
    *(MINUTE * many for many in (1, 2, 5, 10, 15, 30)),
    *(HOUR * many for many in (1, 2, 3, 6, 12)),
    *(DAY * many for many in (1, 2, 7, 14, 28, 91, 364)),
)
BINS: Final = 24
HISTOGRAM: Final = 150.0


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A line of the grid with what stands at it."""

    x: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One wave. `span` and `soak` are a place and a width; `columns` is a path of the activations over time."""

    name: str
    state: str
    y: float
    sites: int
    span: tuple[float, float] | None
    soak: tuple[float, float] | None
    columns: str
    failed: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The drawing."""

    height: float
    ticks: Sequence[Tick]
    rows: Sequence[Row]
    halts: Sequence[Tick]


@dataclass(frozen=True, kw_only=True)
class Bin:
    """So many sites were offline for between `low` and `high` seconds."""

    x: float
    width: float
    height: float
    sites: int
    low: str
    high: str


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How many sites were offline for how long; `most` are in one bin, `median` is a place on the scale."""

    bins: Sequence[Bin]
    most: int
    ticks: Sequence[Tick]
    median: float


def timeline(*, data: Mapping[str, Any], waves: Sequence[Wave]) -> Timeline:
    """Lay out the waves between the begin and the end of the rollout."""
    scale = _Scale(began=_moment(data["began"]), ended=_moment(data["ended"]))
    rows = [_row(wave=wave, y=TOP + number * ROW, scale=scale) for number, wave in enumerate(waves)]
    return Timeline(
        height=TOP + len(rows) * ROW + 30,
        ticks=scale.ticks(),
        rows=rows,
        halts=[
            Tick(x=scale.x(_moment(halt["at"])), label=str(number))
            for number, halt in enumerate(data["halts"], start=1)
        ],
    )


def histogram(*, seconds: Iterable[float], median: float) -> Histogram | None:
    """Lay out how long sites were offline; nothing when none was."""
    found = sorted(seconds)
    if not found:
        return None
    step = _nice_number(max(found[-1], 0.01) / BINS)
    many = [0] * (math.floor(found[-1] / step) + 1)
    for one in found:
        many[math.floor(one / step)] += 1
    wide = (WIDTH - 2 * RIGHT) / len(many)
    every = math.ceil(len(many) / MOST_TICKS)
    return Histogram(
        bins=[
            Bin(
                x=RIGHT + number * wide,
                width=max(wide - 2, 1),
                # A single site among thousands is what one looks for.
                height=max(HISTOGRAM * sites / max(many), 2.0),
                sites=sites,
                low=f"{number * step:.3g}",
                high=f"{(number + 1) * step:.3g}",
            )
            for number, sites in enumerate(many)
            if sites
        ],
        most=max(many),
        ticks=[
            Tick(x=RIGHT + number * wide, label=duration(number * step)) for number in range(0, len(many) + 1, every)
        ],
        median=RIGHT + min(median / step, len(many)) * wide,
    )


class _Scale:
    """From moments to places."""

    def __init__(self, *, began: float, ended: float) -> None:
        self._began = began
        # A rollout of no length has a second, so that there is a scale.
        self._span = max(ended - began, 1.0)

    @property
    def end(self) -> float:
        return self._began + self._span

    def x(self, moment: float) -> float:
        share = min(max((moment - self._began) / self._span, 0.0), 1.0)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def ticks(self) -> list[Tick]:
        step = next((one for one in NICE if self._span / one <= MOST_TICKS - 1), NICE[-1])
        first = math.ceil(self._began / step) * step
        moments = [float(one) for one in range(first, math.floor(self.end) + 1, step)]
        return [Tick(x=self.x(one), label=_clock(one, step=step, span=self._span)) for one in moments]


def _row(*, wave: Wave, y: float, scale: _Scale) -> Row:
    facts = wave.facts
    span = soak = None
    if facts["began"]:
        begin = scale.x(_moment(facts["began"]))
        ended = _moment(facts["ended"]) if facts["ended"] else scale.end
        span = (begin, max(scale.x(ended) - begin, LEAST))
        if facts["soak_seconds"] and facts["state"] in {"done", "soaking"}:
            from_here = max(scale.x(ended - facts["soak_seconds"]), begin)
            soak = (from_here, max(begin + span[1] - from_here, 0.0))
    active = [(scale.x(_moment(one["activated"])), one["state"]) for one in wave.sites.values() if one["activated"]]
    return Row(
        name=wave.name,
        state=str(facts["state"]),
        y=y,
        sites=len(wave.sites),
        span=span,
        soak=soak,
        columns=_columns([x for x, _state in active], bottom=y + 6 + BAR),
        failed=sorted({x for x, state in active if state == "failed"}),
    )


def _columns(places: Sequence[float], *, bottom: float) -> str:
    """A path of one stroke for each moment at which sites were activated, as high as these were many."""
    many: dict[int, int] = {}
    for place in places:
        slot = int((place - LEFT) // COLUMN)
        many[slot] = many.get(slot, 0) + 1
    most = max(many.values(), default=1)
    return "".join(
        f"M{LEFT + (slot + 0.5) * COLUMN:g} {bottom:g}v{-max(round((BAR - 6) * number / most, 1), 4):g}"
        for slot, number in sorted(many.items())
    )


def _moment(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


def _clock(moment: float, *, step: float, span: float) -> str:
    form = "%H:%M:%S" if step < MINUTE else "%H:%M"
    if span > DAY:
        form = "%d %b" if step >= DAY else "%d %b %H:%M"
    return dt.datetime.fromtimestamp(moment, tz=dt.UTC).strftime(form)


def _nice_number(least: float) -> float:
    """The next of 1, 2, 5, 10, ... of any power of ten."""
    power = float(10 ** math.floor(math.log10(least)))
    return next(power * many for many in (1, 2, 5, 10) if power * many >= least * 0.999)
