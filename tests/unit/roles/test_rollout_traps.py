# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Ansible's own thresholds let through in a staged rollout, each with ours in its place.

Ansible counts no unreachable host, miscounts when hosts fail and are unreachable in one task, begins the next play
after a lost one, and keeps no file to go on with. A rollout of ours must not depend on any of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unit.roles.test_site_tunnel import rollout, said

if TYPE_CHECKING:
    from pathlib import Path

NO_ROOM = """
what: configuration
budgets: {failed: 0, unreachable: 0}
waves: [{group: canary}, {group: north}, {group: south}]
"""


def planned(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "rollouts/strict").mkdir(parents=True)
    (tmp_path / "rollouts/strict/plan.yml").write_text(NO_ROOM)
    return ("-e", "rollout=strict")


def test_1_an_unreachable_site_counts(tmp_path: Path) -> None:
    activated, _, output = rollout(tmp_path, {"s1": "stage"}, *planned(tmp_path), reason="unreachable")
    assert activated == []
    assert "halted: 1 site could not be reached, the budget for that is 0" in said(output)


def test_2_a_site_that_becomes_unreachable_in_a_wave_ends_the_rollout_and_not_only_the_wave(tmp_path: Path) -> None:
    activated, _, output = rollout(tmp_path, {"n1": "activate"}, *planned(tmp_path), reason="unreachable")
    assert activated == ["c1", "n1", "n2"]
    assert "1 parked" in said(output)
    assert "1 waiting" in said(output)


def test_3_a_failed_and_an_unreachable_site_in_one_wave_are_both_counted(tmp_path: Path) -> None:
    activated, _, output = rollout(tmp_path, {"n1": "activate", "n2": "gate"}, *planned(tmp_path), reason="unreachable")
    assert activated == ["c1", "n1", "n2"]
    assert "4 total, 1 done, 1 failed, 1 parked, 1 waiting, halted: 1 site failed" in said(output)


def test_4_a_failed_site_stops_what_comes_after_without_any_threshold(tmp_path: Path) -> None:
    assert rollout(tmp_path, {"c1": "confirm"})[0] == ["c1"]


def test_5_without_evidence_nobody_is_confirmed(tmp_path: Path) -> None:
    asked = rollout(tmp_path, {"c1": "gate"})[1]
    assert [one["sites"] for one in asked if one["verb"] == "confirm"] == [[]]


def test_6_what_a_halted_run_did_not_reach_is_reached_by_the_next(tmp_path: Path) -> None:
    assert rollout(tmp_path, {"n1": "gate"})[0] == ["c1", "n1", "n2"]
    activated, _, output = rollout(tmp_path, {"c1": "settled", "n2": "settled"})
    assert activated == ["n1", "s1"]
    assert "4 total, 4 done" in said(output)


def test_7_a_step_for_all_sites_that_breaks_leaves_no_site_that_looks_well(tmp_path: Path) -> None:
    """The gate cannot read the key store's index."""
    index = tmp_path / "keystore/index/c1.json"
    index.parent.mkdir(parents=True)
    (tmp_path / "keystore").chmod(0o700)
    index.write_text("{")
    activated, asked, output = rollout(tmp_path, {}, real=("tunnel_gate",))
    assert activated == ["c1"]
    assert [one["sites"] for one in asked if one["verb"] == "confirm"] == [[]]
    recap = [line for line in output.partition("PLAY RECAP")[2].splitlines() if " : ok=" in line]
    assert [line.split()[0] for line in recap if "failed=1" in line] == ["c1"]
    assert "4 total, 1 failed, 3 waiting, halted: 1 site failed, the budget for that is 0" in said(output)
    assert f"{index} is no index of a site" in said(output)
