# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout that is gone on with after its plan, the registry or the limit has changed touches nobody by mistake."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from unit.roles.test_site_tunnel import rollout, said

if TYPE_CHECKING:
    from pathlib import Path

Q4 = ("-e", "rollout=q4")
WAVES = "waves: [{group: canary}, {group: north}, {group: south}]"


def planned(tmp_path: Path, *lines: str) -> tuple[str, str]:
    """The plan of rollout q4, which a person may have changed since."""
    (tmp_path / "rollouts/q4").mkdir(parents=True, exist_ok=True)
    (tmp_path / "rollouts/q4/plan.yml").write_text("\n".join(["what: configuration", *lines, ""]))
    return Q4


def record(tmp_path: Path) -> dict[str, Any]:
    name = (tmp_path / "rollouts/current").read_text().strip()
    found: dict[str, Any] = json.loads((tmp_path / "rollouts" / name / "state.json").read_text())
    return found


def states(tmp_path: Path) -> dict[str, str]:
    return {site: line["state"] for site, line in record(tmp_path)["sites"].items()}


def test_a_limit_of_one_site_touches_only_that_site_though_others_wait(tmp_path: Path) -> None:
    assert rollout(tmp_path, {"c1": "gate"})[0] == ["c1"]
    activated, _, output = rollout(tmp_path, {}, "--limit", "c1")
    assert activated == ["c1"]
    assert states(tmp_path) == {"c1": "done", "n1": "waiting", "n2": "waiting", "s1": "waiting"}
    assert record(tmp_path)["outcome"] == "open"
    assert "1 done, 3 waiting, open: 3 sites to go, not in this run" in said(output)
    assert rollout(tmp_path, {"c1": "settled"})[0] == ["n1", "n2", "s1"]
    assert record(tmp_path)["outcome"] == "finished"


def test_a_limit_does_not_jump_over_those_who_wait_before_it(tmp_path: Path) -> None:
    rollout(tmp_path, {}, *planned(tmp_path, "waves: [{group: canary, approval: true}, {group: north}]"))
    activated, _, output = rollout(tmp_path, {}, *Q4, "--limit", "n1")
    assert activated == []
    assert "halted: wave canary comes first, and who waits there is not in this run: c1" in said(output)


def test_a_first_run_with_a_limit_does_not_cut_the_waves_for_all_others(tmp_path: Path) -> None:
    plan = planned(tmp_path, "waves: [{group: canary}, {group: north, limit: 1}, {group: south}]")
    assert rollout(tmp_path, {}, *plan, "--limit", "n2")[0] == ["n2"]
    activated, asked, _ = rollout(tmp_path, {"n2": "settled"}, *plan)
    assert activated == ["c1", "n1", "s1"]
    assert [one["sites"] for one in asked if one["verb"] == "activate"] == [["c1"], ["n1"], ["s1"]]


def test_who_is_excluded_meanwhile_is_not_touched(tmp_path: Path) -> None:
    rollout(tmp_path, {"c1": "gate"}, *planned(tmp_path, WAVES))
    activated, _, output = rollout(tmp_path, {}, *planned(tmp_path, "exclude: [n1]", WAVES))
    assert activated == ["c1", "n2", "s1"]
    assert "3 total, 3 done" in said(output)


def test_a_failed_site_that_is_excluded_holds_nobody_up_any_more(tmp_path: Path) -> None:
    rollout(tmp_path, {"n1": "gate"}, *planned(tmp_path, WAVES))
    again = planned(tmp_path, "exclude: [n1]", WAVES)
    assert rollout(tmp_path, {"c1": "settled", "n2": "settled"}, *again)[0] == ["s1"]


def test_a_group_that_is_named_no_more_is_not_touched(tmp_path: Path) -> None:
    rollout(tmp_path, {"c1": "gate"}, *planned(tmp_path, WAVES))
    again = planned(tmp_path, "waves: [{group: canary}, {group: south}]")
    assert rollout(tmp_path, {}, *again)[0] == ["c1", "s1"]


def test_a_site_that_left_the_registry_is_gone_from_the_rollout_too(tmp_path: Path) -> None:
    rollout(tmp_path, {"c1": "gate"})
    activated, _, output = rollout(tmp_path, {}, without=("n1",))
    assert activated == ["c1", "n2", "s1"]
    assert "3 total, 3 done" in said(output)


def test_an_approval_that_is_wanted_meanwhile_is_waited_for(tmp_path: Path) -> None:
    rollout(tmp_path, {"c1": "gate"}, *planned(tmp_path, WAVES))
    again = planned(tmp_path, "waves: [{group: canary}, {group: north, approval: true}, {group: south}]")
    assert rollout(tmp_path, {}, *again)[0] == ["c1"]
    once_more = planned(tmp_path, WAVES)
    assert rollout(tmp_path, {"c1": "settled"}, *once_more)[0] == ["n1", "n2", "s1"]


def test_a_smaller_limit_holds_for_those_who_wait(tmp_path: Path) -> None:
    rollout(tmp_path, {"c1": "gate"}, *planned(tmp_path, WAVES))
    again = planned(tmp_path, "waves: [{group: canary}, {group: north, limit: 1}, {group: south}]")
    asked = rollout(tmp_path, {}, *again)[1]
    assert [one["sites"] for one in asked if one["verb"] == "activate"] == [["c1"], ["n1"], ["n2"], ["s1"]]


def test_a_look_at_a_planned_rollout_tells_its_own_waves_and_writes_nothing(tmp_path: Path) -> None:
    plan = planned(tmp_path, "waves: [{group: north, limit: 1}]")
    output = rollout(tmp_path, {}, *plan, "--check", "-v")[2]
    assert "rollout q4: 2 sites in waves north 1/2, north 2/2" in said(output)
    assert [one.name for one in (tmp_path / "rollouts").rglob("*")] == ["q4", "plan.yml"]


def test_a_look_at_a_rollout_that_waits_says_for_what(tmp_path: Path) -> None:
    reason = "reason: new ciphers"
    plan = planned(tmp_path, reason, "waves: [{group: canary}, {group: north, approval: true}, {group: south}]")
    rollout(tmp_path, {}, *plan)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "rollouts").rglob("*")}
    output = rollout(tmp_path, {"c1": "settled"}, *plan, "--check", "-v")[2]
    assert "it would stop before wave north: wave north wants an approval" in said(output)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "rollouts").rglob("*")} == before


def test_a_look_at_new_keys_that_are_half_brought_is_no_second_rollout(tmp_path: Path) -> None:
    """The claim of a look is not kept: what it is about comes with the play."""
    keys = ("-e", json.dumps({"what": "keys", "reason": "q4"}))
    rollout(tmp_path, {"c1": "gate"}, *keys)
    assert record(tmp_path)["what"] == "keys"
    activated, _, output = rollout(tmp_path, {}, *keys, "--check")
    assert activated == ["c1", "n1", "n2", "s1"]
    assert "is not finished" not in said(output)


def test_what_is_done_beside_a_rollout_is_kept_under_what_it_is(tmp_path: Path) -> None:
    rollout(tmp_path, {"c1": "gate"})
    keys = json.dumps({"what": "keys", "reason": "lost", "beside": True})
    assert rollout(tmp_path, {}, "-e", keys, "--limit", "n1")[0] == ["n1"]
    found = [json.loads(path.read_text()) for path in sorted((tmp_path / "rollouts").glob("*-keys/state.json"))]
    assert [(one["what"], one["reason"], list(one["sites"])) for one in found] == [("keys", "lost", ["n1"])]
    assert record(tmp_path)["what"] == "configuration"


def test_a_plan_for_something_else_is_refused(tmp_path: Path) -> None:
    plan = planned(tmp_path, WAVES)
    output = rollout(tmp_path, {}, *plan, "-e", json.dumps({"what": "keys", "reason": "q4"}), refused=True)[2]
    assert "rollout q4 brings configuration, and not keys: q4. Run it with ansible-playbook" in said(output)


def test_a_record_that_cannot_be_kept_after_a_wave_lets_nobody_go_on_and_calls_nobody_well(tmp_path: Path) -> None:
    """Its file becomes a directory when the gate is asked, which stands for a full disk."""
    activated, _, output = rollout(tmp_path, {"n1": "lose the record"}, *planned(tmp_path, WAVES))
    assert activated == ["c1", "n1", "n2"]
    recap = [line.split()[0] for line in output.partition("PLAY RECAP")[2].splitlines() if "failed=1" in line]
    assert recap == ["c1", "n1", "n2", "s1"]
    assert "state.json cannot be used" in said(output)


def test_one_of_two_that_failed_can_be_mended_alone(tmp_path: Path) -> None:
    rollout(tmp_path, {"n1": "gate", "n2": "confirm"})
    activated, _, output = rollout(tmp_path, {}, "--limit", "n1")
    assert activated == ["n1"]
    assert "2 done, 1 failed, 1 waiting, halted: 1 site failed, the budget for that is 0" in said(output)
