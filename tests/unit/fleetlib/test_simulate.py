# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tools/fleet simulate prints."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fleetlib.cli import main
from unit.plugin_utils.fleet_files import write_fleet

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_plan_at_hand_and_a_larger_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = str(write_fleet(tmp_path))

    assert main(["simulate", "-i", plan]) == 0
    assert "4/4" in capsys.readouterr().out
    assert main(["simulate", "-i", plan, "--sites", "200", "--scene", "outage", "--format", "json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["sites"], one["back"], one["limit"]) == (200, 200, "retransmission of clients")
    assert main(["simulate", "-i", plan, "--sites", "0"]) == 2
