# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of a rollout, wave by wave, with sites and gateways that answer as a test says."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from unit.plugin_utils.fleet_files import HEADER, PLAN, host_key, write_fleet

ROOT = Path(__file__).resolve().parents[3]
FATES = "SPOKEWRIGHT_TEST_FATES"
SAID = "SPOKEWRIGHT_TEST_SAID"
LOSE = "lose the record"
ACTION = f"""
import json, os
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        args, fates = self._task.args, json.loads(os.environ["{FATES}"])
        verb = args.get("verb", "gate")
        sites = args["sites"]
        with open(os.environ["{SAID}"], "a") as said:
            said.write(json.dumps({{**args, "verb": verb}}) + "\\n")
        if verb == "gate" and any(fates.get(site) == "{LOSE}" for site in sites):
            state = os.path.join(os.path.dirname(task_vars["plan"]), "rollouts/q4/state.json")
            os.unlink(state)
            os.mkdir(state)
        well = [site for site in sites if fates.get(site) != verb]
        reason = os.environ["SPOKEWRIGHT_TEST_REASON"]
        found = {{site: {{"ok": site in well, "changed": True, "message": verb, "reason": reason}} for site in sites}}
        return {{**result, "sites": found, "ok_sites": well, "activated": {{site: 1.0 for site in well}},
                "unsettled_sites": [site for site in well if fates.get(site) not in ("settled", "held")],
                "held_sites": [site for site in well if fates.get(site) == "held"], "openvpn_missing": []}}
"""
GROUPS = {"canary": ["c1"], "north": ["n1", "n2"], "south": ["s1"]}
PLAYBOOK = [
    {
        "hosts": "sites",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.fail": {"msg": "left"}, "when": "inventory_hostname in left"}],
    },
    {
        "hosts": "sites",
        "gather_facts": False,
        "tasks": [
            {
                "spokewright.fleet.rollout": {
                    "plan": "{{ plan }}",
                    "state": "claimed",
                    "rollout": "{{ rollout | default('') }}",
                    "what": "{{ what | default('configuration') }}",
                    "reason": "{{ reason | default('') }}",
                    "beside": "{{ beside | default(false) }}",
                },
                "run_once": True,
                "register": "claimed",
            },
            {"ansible.builtin.import_role": {"name": "spokewright.fleet.site_tunnel", "rolespec_validate": False}},
        ],
        "vars": {
            "site_tunnel_plan": "{{ plan }}",
            "site_tunnel_any_pair": True,
            "site_tunnel_beside": "{{ beside | default(false) }}",
            "site_tunnel_claim": "{{ claimed }}",
        },
    },
]


def a_fleet(tmp_path: Path, *, without: tuple[str, ...] = ()) -> Path:
    """The plan of the sites above."""
    lines = [
        f"{site},{group},172.20.1.{number},{host_key(site)},10.64.{number}.0/24,"
        for number, (group, site) in enumerate(((group, site) for group in GROUPS for site in GROUPS[group]), start=1)
        if site not in without
    ]
    plan = PLAN.replace("groups: [canary, north]", f"groups: [{', '.join(GROUPS)}]")
    return write_fleet(tmp_path, plan=plan, sites="\n".join([HEADER, *lines, ""]))


def rollout(
    tmp_path: Path,
    fates: dict[str, str],
    *options: str,
    left: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    reason: str = "",
    real: tuple[str, ...] = (),
    refused: bool = False,
) -> tuple[list[str], list[dict[str, Any]], str]:
    """The sites that were activated, in order; everything that was asked; what Ansible said."""
    here = tmp_path / "ansible_collections/spokewright/fleet"
    if not here.exists():
        (here / "plugins/action").mkdir(parents=True)
        for name in ("galaxy.yml", "meta", "roles", "plugins/modules", "plugins/plugin_utils", "plugins/module_utils"):
            (here / name).symlink_to(ROOT / name)
        for name in {"site_generation", "tunnel_gate"} - {*real}:
            (here / f"plugins/action/{name}.py").write_text(ACTION)
        for name in ("site_verdict", "rollout", *real):
            (here / f"plugins/action/{name}.py").symlink_to(ROOT / f"plugins/action/{name}.py")
    children: dict[str, Any] = {
        group: {"hosts": {site: {} for site in sites if site not in without}} for group, sites in GROUPS.items()
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": {"sites": {"children": children}}}}))
    (tmp_path / "play.yml").write_text(yaml.safe_dump(PLAYBOOK))
    said = tmp_path / "said"
    said.write_text("")
    variables = json.dumps({"left": left, "plan": str(a_fleet(tmp_path, without=without))})
    ran = subprocess.run(
        ["ansible-playbook", "-i", "hosts.yml", "play.yml", "-e", variables, *options],
        cwd=tmp_path,
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(tmp_path),
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
            FATES: json.dumps(fates),
            SAID: str(said),
            "SPOKEWRIGHT_TEST_REASON": reason,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    asked = [json.loads(line) for line in said.read_text().splitlines()]
    assert refused or asked, ran.stdout + ran.stderr
    return [site for one in asked if one["verb"] == "activate" for site in sorted(one["sites"])], asked, ran.stdout


@pytest.mark.parametrize(
    ("fates", "activated"),
    [
        pytest.param({}, ["c1", "n1", "n2", "s1"], id="all well"),
        pytest.param({"c1": "settled"}, ["n1", "n2", "s1"], id="a group with nothing to change keeps nobody back"),
        pytest.param({"c1": "stage"}, [], id="nobody of the first group could be changed"),
        pytest.param({"n1": "stage", "n2": "stage"}, ["c1"], id="nobody of a later group could be changed"),
        pytest.param({"n1": "stage"}, ["c1", "n2", "s1"], id="one dead site among others"),
        pytest.param({"n1": "stage", "n2": "settled"}, ["c1", "s1"], id="one dead site, the others as they should be"),
        pytest.param({"n1": "stage", "n2": "activate"}, ["c1", "n2"], id="one dead, the other did not start"),
        pytest.param({"n1": "gate"}, ["c1", "n1", "n2"], id="one site did not pass the gate"),
    ],
)
def test_a_group_lets_the_next_one_go_only_when_it_could_show_that_the_change_is_sound(
    tmp_path: Path, fates: dict[str, str], activated: list[str]
) -> None:
    assert rollout(tmp_path, fates)[0] == activated


def test_a_group_whose_sites_all_left_the_run_before_stops_the_next_and_says_so(tmp_path: Path) -> None:
    activated, _, output = rollout(tmp_path, {}, left=("c1",))

    assert activated == []
    assert "4 total, 1 aborted, 3 waiting, halted: none of its sites is well" in " ".join(output.split())


def test_a_setting_of_the_wrong_kind_is_refused_before_any_site_is_asked(tmp_path: Path) -> None:
    _, asked, output = rollout(tmp_path, {}, "-e", "site_tunnel_workers=many", refused=True)

    assert asked == []
    assert "'site_tunnel_workers' is of type" in said(output)


def test_a_group_outside_the_limit_stops_nobody(tmp_path: Path) -> None:
    assert rollout(tmp_path, {"c1": "stage", "n1": "stage"}, "--limit", "n2,s1")[0] == ["n2", "s1"]


def test_the_gate_knows_when_the_sites_would_go_back(tmp_path: Path) -> None:
    gates = [one for one in rollout(tmp_path, {})[1] if one["verb"] == "gate"]

    assert [(one["since"], one["deadman_seconds"]) for one in gates[:1]] == [({"c1": 1.0}, 120)]


def test_held_sites_that_run_what_they_should_keep_nobody_back_and_no_gateway_is_asked_about_them(
    tmp_path: Path,
) -> None:
    activated, asked, output = rollout(tmp_path, dict.fromkeys(("c1", "n1", "n2"), "held"))
    assert activated == ["s1"]
    assert [one["sites"] for one in asked if one["verb"] == "gate"] == [["s1"]]
    assert "1 total, 1 done" in said(output)


def said(output: str) -> str:
    return " ".join(output.split())


def test_sites_that_cannot_be_reached_are_parked_up_to_the_budget(tmp_path: Path) -> None:
    activated, _, output = rollout(tmp_path, {"n1": "stage"}, reason="unreachable")
    assert activated == ["c1", "n2", "s1"]
    assert "4 total, 3 done, 1 parked" in said(output)


def test_a_later_wave_that_is_all_away_is_passed_over_within_the_budget_and_the_first_is_not(tmp_path: Path) -> None:
    here = tmp_path / "rollouts/q4"
    here.mkdir(parents=True)
    (here / "plan.yml").write_text(
        "what: configuration\nbudgets: {unreachable: 2}\nwaves: [{group: canary}, {group: north}, {group: south}]\n"
    )
    activated, _, output = rollout(tmp_path, {"c1": "stage"}, "-e", "rollout=q4", reason="unreachable")
    assert activated == []
    assert "halted: no site of wave canary could be reached, and none before it has shown a sound" in said(output)

    away = {"n1": "stage", "n2": "stage"}
    activated, _, output = rollout(tmp_path, away, "-e", "rollout=q4", reason="unreachable")
    assert activated == ["c1", "s1"]
    assert "rollout q4: 4 total, 2 done, 2 parked" in said(output)
    waves = json.loads((here / "state.json").read_text())["waves"]
    assert [one["state"] for one in waves] == ["done", "passed over", "done"]


def test_a_wave_plan_is_followed_with_its_limits_its_approvals_and_its_budgets(tmp_path: Path) -> None:
    here = tmp_path / "rollouts/q4"
    here.mkdir(parents=True)
    (here / "plan.yml").write_text(
        "what: configuration\nbudgets: {failed: 1}\nexclude: [s1]\n"
        "waves: [{group: canary}, {group: north, limit: 1, approval: true}, {group: south}]\n"
    )
    stopped, _, output = rollout(tmp_path, {}, "-e", "rollout=q4")
    assert stopped == ["c1"]
    assert "halted: wave north 1/2 wants an approval: tools/fleet rollout approve q4" in said(output)

    given = {f"north {number}/2": {"by": "ann", "sites": [f"n{number}"]} for number in (1, 2)}
    (here / "control.json").write_text(json.dumps({"approved": {**given, "north 2/2": {"by": "ann", "sites": ["n9"]}}}))
    activated, _, output = rollout(tmp_path, {"c1": "settled"}, "-e", "rollout=q4")
    assert activated == ["n1"]
    assert "wave north 2/2 wants another approval, ann has approved it without n2: tools/fleet" in said(output)

    (here / "control.json").write_text(json.dumps({"approved": given}))
    activated, _, output = rollout(tmp_path, {"c1": "settled", "n1": "settled"}, "-e", "rollout=q4")
    assert activated == ["n2"]
    assert "rollout q4: 3 total, 3 done" in said(output)


def test_a_rollout_that_is_paused_touches_nobody_until_it_goes_on(tmp_path: Path) -> None:
    rollout(tmp_path, {"c1": "gate"})
    name = (tmp_path / "rollouts/current").read_text().strip()
    control = tmp_path / "rollouts" / name / "control.json"
    control.write_text('{"paused_by": "ann@noc"}')
    activated, _, output = rollout(tmp_path, {})
    assert activated == []
    assert f"paused: paused by ann@noc; go on with: tools/fleet rollout resume {name}" in said(output)

    control.write_text("{}")
    assert rollout(tmp_path, {})[0] == ["c1", "n1", "n2", "s1"]


def test_a_look_keeps_nothing_and_activates_nobody(tmp_path: Path) -> None:
    activated, asked, _ = rollout(tmp_path, {}, "--check")
    assert [one["verb"] for one in asked] == ["stage", "activate"]
    assert activated == ["c1", "n1", "n2", "s1"]
    assert not (tmp_path / "rollouts").exists()
