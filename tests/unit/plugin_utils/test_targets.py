# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many sites are worked on at a time, by the ways that lead to them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.targets import at_once


def sites(*, direct: int, through: int) -> list[Any]:
    way = _Way()
    return [SimpleNamespace(bastion=None)] * direct + [SimpleNamespace(bastion=way)] * through


class _Way:
    """A bastion as the plan has it."""

    channels = 10


@pytest.mark.parametrize(
    ("direct", "through", "expected"), [(0, 40, 10), (40, 0, 32), (0, 0, 32), (1, 40, 11), (40, 40, 32)]
)
def test_no_site_takes_a_turn_only_to_wait_for_the_bastion(direct: int, through: int, expected: int) -> None:
    assert at_once(sites=sites(direct=direct, through=through), workers=32) == expected
