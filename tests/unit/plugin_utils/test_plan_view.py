# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan in words, and the consent that a move of sites needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet, write_lock
from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan_view import (
    lock_texts,
    plan_report,
    refuse_moves,
    sites_that_move,
)
from unit.plugin_utils.fleet_files import PLAN, write_fleet

if TYPE_CHECKING:
    from pathlib import Path


def test_new_sites_need_no_consent(tmp_path: Path) -> None:
    fleet = load_fleet(plan_file=write_fleet(tmp_path))

    before, after = lock_texts(fleet=fleet)

    assert before == ""
    assert '"site-0001"' in after
    refuse_moves(fleet=fleet, consent="-")


def test_sites_that_would_move_to_another_instance_are_named_and_refused(tmp_path: Path) -> None:
    plan_file = write_fleet(tmp_path)
    write_lock(fleet=load_fleet(plan_file=plan_file))
    plan_file.write_text(PLAN.replace("count: 2", "count: 1"), encoding="utf-8")
    fleet = load_fleet(plan_file=plan_file)
    moving = sites_that_move(fleet=fleet)

    assert moving == ("site-0002", "site-0004")
    with pytest.raises(
        FleetError, match=r"2 sites would move to another tunnel instance: site-0002, site-0004\."
    ) as text:
        refuse_moves(fleet=fleet, consent="add --move-sites")
    assert "to do it, add --move-sites." in str(text.value)
    assert {change["kind"] for change in plan_report(fleet=fleet)["changes"]} >= {"block-moved"}
