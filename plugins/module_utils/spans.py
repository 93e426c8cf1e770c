# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A length of time as a person says it."""

from __future__ import annotations

MINUTE, HOUR, DAY = 60, 3600, 86400


def span(seconds: float) -> str:
    """In the largest unit of which there are two: 95 s, 40 min, 3 h, 12 d."""
    whole = max(0, int(seconds))
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if whole >= 2 * unit:
            return "%d %s" % (whole // unit, name)
    return "%d s" % whole
