# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long something takes, as a person says it."""

from __future__ import annotations

from typing import Final

MINUTE: Final = 60
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR


def duration(seconds: float) -> str:
    """Two units at most: 0.31 s, 45.2 s, 2 min 10 s, 1 h 5 min, 3 d 4 h."""
    if seconds < 10:
        return f"{round(seconds, 2):g} s"
    # Rounded before it is decided how it is written: 59.96 s is a minute, 3599.6 s an hour.
    if round(seconds, 1) < MINUTE:
        return f"{round(seconds, 1):g} s"
    whole = round(seconds)
    if whole < HOUR:
        return _two(whole // MINUTE, "min", whole % MINUTE, "s")
    minutes = round(seconds / MINUTE)
    if minutes < DAY // MINUTE:
        return _two(minutes // 60, "h", minutes % 60, "min")
    hours = round(seconds / HOUR)
    return _two(hours // 24, "d", hours % 24, "h")


def _two(many: int, unit: str, rest: int, smaller: str) -> str:
    return f"{many} {unit} {rest} {smaller}" if rest else f"{many} {unit}"
