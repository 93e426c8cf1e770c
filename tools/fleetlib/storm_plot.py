# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recovery as a picture: how many sites are back, over time. The same storms give the same file, byte for byte."""

from __future__ import annotations

import math
import typing as t

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_measured import Comparison
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_model import Outcome

SUFFIXES: t.Final = (".svg", ".png")
# A line of more points looks the same and is a large file.
POINTS: t.Final = 80
# Quicker and slower recoveries on one picture: from this ratio on, each second to the right counts less.
FAR_APART: t.Final = 8.0
COLUMNS: t.Final = 4
COLOURS: t.Final = {"ours": "C0", "stock": "C1", "story": "C3"}


def check_plot(path: Path) -> None:
    """Say before a long simulation that its picture could not be drawn.

    Raises:
        FleetError: another kind of file, no such directory, or no library to draw with.
    """
    if path.suffix not in SUFFIXES:
        raise FleetError(f"--plot {path}: a picture is written as {' or '.join(SUFFIXES)}. Name such a file.")
    if not path.parent.is_dir():
        raise FleetError(f"--plot {path}: there is no directory {path.parent}. Make it first.")
    _figure(1.0, 1.0)


def plot_recovery(*, panels: Mapping[str, Sequence[tuple[str, Outcome]]], path: Path) -> None:
    """A panel for each title, a line for each configuration in it."""
    rows = math.ceil(len(panels) / 2)
    figure = _figure(7.5 if len(panels) == 1 else 10.0, 4.2 if len(panels) == 1 else 3.2 * rows)
    grid = figure.subplots(rows, min(2, len(panels)), squeeze=False).flatten()
    for axes, (title, lines) in zip(grid, panels.items(), strict=False):
        for label, outcome in lines:
            _line(axes, times=outcome.back, affected=outcome.affected, until=outcome.ended, label=label)
        _scale(axes, [max(outcome.back[-1] if outcome.back else outcome.ended, 0.1) for _label, outcome in lines])
        axes.set_title(title, fontsize="small")
        axes.set_xlabel("seconds")
        axes.set_ylabel("sites back, %")
        axes.legend(fontsize="x-small", frameon=False)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    _save(figure, path)


def plot_calibration(*, these: Sequence[Comparison], path: Path) -> None:
    """A panel for each scene and number of sites: measured as a line, the model broken."""
    panels: dict[tuple[int, str], list[Comparison]] = {}
    for one in these:
        panels.setdefault((one.measured.sites, one.measured.title), []).append(one)
    rows = max(1, math.ceil(len(panels) / COLUMNS))
    figure = _figure(10.0, 2.1 * rows + 0.4)
    grid = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for axes, (which, group) in zip(grid, panels.items(), strict=False):
        ends = []
        for one in group:
            measured = [time for time in one.measured.times if not math.isinf(time)]
            colour = COLOURS.get(one.measured.side)
            until = max(one.measured.waited, one.outcome.ended)
            many = len(one.measured.times)
            _line(axes, times=measured, affected=many, until=until, label=one.measured.side, colour=colour)
            _line(axes, times=one.times, affected=many, until=until, label="", style="--", colour=colour)
            ends += [max(0.1, *measured[-1:], *one.times[-1:])]
        _scale(axes, ends)
        axes.set_title(f"{which[1]}, {which[0]} sites", fontsize="small")
        axes.tick_params(labelsize="x-small")
        axes.legend(fontsize="x-small", frameon=False)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel("seconds; measured: line, model: broken", fontsize="small")
    figure.supylabel("sites back, %", fontsize="small")
    _save(figure, path)


def _line(
    axes: Axes,
    *,
    times: Sequence[float],
    affected: int,
    until: float,
    label: str,
    style: str = "-",
    colour: str | None = None,
) -> None:
    """A staircase; it ends where the last site was back, or goes on flat where one never was."""
    some = sorted({round(number * (len(times) - 1) / (POINTS - 1)) for number in range(POINTS)}) if times else []
    x = [times[one] for one in some]
    y = [100 * (one + 1) / affected for one in some]
    if x:
        x, y = [x[0], *x], [0.0, *y]
    if len(times) < affected:
        x, y = [*x, until], [*y, y[-1] if y else 0.0]
    axes.plot(x, y, linestyle=style, color=colour, label=label or None, drawstyle="steps-post", linewidth=1.3)


def _scale(axes: Axes, ends: Sequence[float]) -> None:
    if max(ends) > FAR_APART * min(ends):
        from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415 - _figure has said where it comes from

        axes.set_xscale("log")
        axes.set_xlim(left=max(0.1, axes.get_xlim()[0]))
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(lambda value, _position: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0)
    axes.set_ylim(0, 103)
    axes.grid(visible=True, alpha=0.3)


def _figure(wide: float, high: float) -> Figure:
    try:
        # Half a second, which nobody else has to wait for.
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as exc:
        raise FleetError(
            "--plot draws with matplotlib, which cannot be loaded "
            f"({exc}). Install what the project needs with `make`, or leave --plot away."
        ) from exc
    return Figure(figsize=(wide, high), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - _figure has said where it comes from

    # Text stays text, nothing says when it was drawn, and names inside do not come from chance.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "spokewright"}):
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, dpi=120, metadata=metadata)
