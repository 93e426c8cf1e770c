# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run over many sites allows each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.site_run import SiteRun
from unit.plugin_utils.fleet_files import write_fleet

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("verb", "seconds"), [("stage", 120), ("activate", 30), ("confirm", 30)])
def test_a_frozen_site_does_not_use_up_the_dead_man_timers_of_the_others(
    tmp_path: Path, verb: str, seconds: int
) -> None:
    run = SiteRun(fleet=load_fleet(plan_file=write_fleet(tmp_path)), verb=verb, deadman_seconds=120, dry_run=False)

    assert run.timeouts.deadline == seconds
