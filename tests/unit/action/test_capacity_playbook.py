# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The play that measures gateways as it is, on gateways that cannot be logged in to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from unit.action.test_hold_playbooks import play

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("options", "asked"),
    [((), {"gw1", "gw2"}), (("--limit", "gw2"), {"gw2"}), (("-e", '{"capacity_gateways": ["gw1"]}'), {"gw1"})],
    ids=["all", "limit", "named"],
)
def test_gateways_of_the_play_are_measured_and_no_others(
    tmp_path: Path, options: tuple[str, ...], asked: set[str]
) -> None:
    code, _recap, said = play(tmp_path, "capacity.yml", *options)

    assert code == 2
    assert {name for name in ("gw1", "gw2") if f"{name}: 50 handshakes" in said} == asked
    assert "Nothing was written" in said
