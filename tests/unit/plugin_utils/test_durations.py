# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.durations import duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.314, "0.31 s"),
        (9.999, "10 s"),
        (45.23, "45.2 s"),
        (59.96, "1 min"),
        (60, "1 min"),
        (130.2, "2 min 10 s"),
        (3599.6, "1 h"),
        (3900, "1 h 5 min"),
        (86399, "1 d"),
        (100800, "1 d 4 h"),
    ],
)
def test_a_duration_is_said_in_two_units_at_most(seconds: float, said: str) -> None:
    assert duration(seconds) == said
