# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin, run by Ansible itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.spokewright.fleet.plugins.inventory import fleet as plugin
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import InputErrors
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from unit.plugin_utils.fleet_files import PLAN, SITES, write_fleet

ROOT = Path(__file__).resolve().parents[3]


def ansible_inventory(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ansible-inventory with the project's configuration."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible-inventory")), *arguments],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def listed(plan_file: Path) -> dict[str, Any]:
    done = ansible_inventory("-i", str(plan_file), "--list")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_list_shows_groups_and_variables(tmp_path: Path) -> None:
    found = listed(write_fleet(tmp_path))

    assert found["gateways"]["hosts"] == ["gw1", "gw2"]
    assert found["sites"]["children"] == ["canary", "north"]
    assert found["instance_tun1"]["hosts"] == ["site-0002", "site-0004"]
    hosts = found["_meta"]["hostvars"]
    assert hosts["site-0004"]["fleet_tunnel_address"] == "10.101.0.33"
    assert hosts["site-0004"]["fleet_name"] == "test"
    assert hosts["gw1"]["fleet_sites"][0]["id"] == "site-0001"
    assert "fleet_sites" not in hosts["site-0004"]


def test_graph_of_the_example_fleet() -> None:
    done = ansible_inventory("-i", "inventories/example/example.fleet.yml", "--graph")

    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert sum("--site-" in line for line in lines) == 2 * 424
    assert "  |--@gateways:" in lines


def test_the_example_fleet_has_nothing_left_to_allocate(tmp_path: Path) -> None:
    """Its lock is committed: whoever starts from it sees what a lock looks like, and no pending change."""
    copy = tmp_path / "example"
    shutil.copytree(ROOT / "inventories" / "example", copy)
    assert load_fleet(plan_file=copy / "example.fleet.yml").changes == ()


def test_own_groups_and_variables(tmp_path: Path) -> None:
    plan = (
        PLAN
        + """
compose:
  first_lan: fleet_site_lans[0]
keyed_groups:
  - prefix: prefers
    key: fleet_site_transports[0]
"""
    )
    sites = SITES.replace("10.64.2.0/24,", "10.64.2.0/24,transports=internet")
    found = listed(write_fleet(tmp_path, plan=plan, sites=sites))

    assert found["prefers_internet"]["hosts"] == ["site-0002"]
    assert found["_meta"]["hostvars"]["site-0003"]["first_lan"] == {"__ansible_unsafe": "10.64.3.0/24"}


def test_values_are_never_templates(tmp_path: Path) -> None:
    """What an operator keeps in a file of ours is data."""
    plan = PLAN.replace("key_store: keystore", "key_store: '{{ 1 + 1 }}'")

    hostvars = listed(write_fleet(tmp_path, plan=plan))["_meta"]["hostvars"]

    assert hostvars["gw1"]["fleet_key_store"] == {"__ansible_unsafe": str(tmp_path / "{{ 1 + 1 }}")}


BROKEN = {
    "a bad value": PLAN.replace("block_prefix: 28", "block_prefix: 40"),
    "no plugin key": PLAN.replace("plugin: spokewright.fleet.fleet\n", ""),
    "an empty plugin key": PLAN.replace("plugin: spokewright.fleet.fleet\n", "plugin:\n"),
    "another plugin": PLAN.replace("plugin: spokewright.fleet.fleet\n", "plugin: constructed\n"),
    "no YAML": PLAN.replace("fleet: test", "fleet: ["),
    "no YAML and no plugin key": "host1\n[",
    "an empty file": "",
    "comments only": "# nothing\n",
    "a word": "host1\n",
}


@pytest.mark.parametrize("fail_setting", ["True", "False"])
@pytest.mark.parametrize("plan", BROKEN.values(), ids=BROKEN)
def test_a_broken_plan_never_becomes_an_empty_inventory(plan: str, fail_setting: str, tmp_path: Path) -> None:
    plan_file = write_fleet(tmp_path, plan=plan)

    done = ansible_inventory("-i", str(plan_file), "--list", ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=fail_setting)

    assert done.returncode != 0
    assert done.stdout == ""
    assert "1 problem found, nothing was touched." in done.stderr


@pytest.mark.parametrize("fail_setting", ["True", "False"])
@pytest.mark.parametrize(
    "plan",
    [PLAN + "compose: 5\n", PLAN + "keyed_groups: [5]\n", PLAN + "strict: true\ncompose: {x: nothing.y}\n"],
    ids=["compose no mapping", "keyed_groups no mapping", "strict"],
)
def test_what_ansible_itself_refuses_ends_the_run_too(plan: str, fail_setting: str, tmp_path: Path) -> None:
    plan_file = write_fleet(tmp_path, plan=plan)

    settings = dict.fromkeys(
        ("ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED", "ANSIBLE_INVENTORY_UNPARSED_FAILED"), fail_setting
    )
    done = ansible_inventory("-i", str(plan_file), "--list", **settings)

    assert done.returncode != 0
    assert done.stdout == ""
    assert str(plan_file) in done.stderr


@pytest.mark.parametrize("fail_setting", ["True", "False"])
def test_two_plans_never_become_one_fleet(fail_setting: str, tmp_path: Path) -> None:
    plan_file = write_fleet(tmp_path)
    shutil.copy(plan_file, tmp_path / "two.fleet.yml")

    done = ansible_inventory("-i", str(tmp_path), "--list", ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=fail_setting)

    assert done.returncode != 0
    assert done.stdout == ""
    assert f"already holds the fleet of {plan_file}. One run serves one fleet" in done.stderr


def test_the_whole_text_reaches_the_operator(tmp_path: Path) -> None:
    plan_file = write_fleet(tmp_path, sites=SITES.replace("0003,north", "0003,nort").replace("10.64.4.0", "10.64.4.1"))

    done = ansible_inventory("-i", str(plan_file), "--list")

    assert done.returncode != 0
    for line in (
        f"{tmp_path}/sites.csv:4: group: 'nort' is no group of the plan. Did you mean 'north'?",
        "sites.csv:5: lan: '10.64.4.1/24' has bits set behind its prefix length. The network is 10.64.4.0/24.",
        "2 problems found, nothing was touched.",
    ):
        assert line in done.stderr


def test_other_files_are_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all: {hosts: {one: {}}}\n", encoding="utf-8")

    done = ansible_inventory("-i", str(tmp_path / "hosts.yml"), "--list")

    assert done.returncode == 0
    assert json.loads(done.stdout)["ungrouped"]["hosts"] == ["one"]


def test_every_key_of_a_plan_is_documented(tmp_path: Path) -> None:
    """In ansible-doc and in the manual; the list of keys is what the reader itself answers to an unknown one."""
    with pytest.raises(InputErrors) as caught:
        load_fleet(plan_file=write_fleet(tmp_path, plan=PLAN + "zzz: 1\n"))
    keys = caught.value.problems[0].remedy.removeprefix("Known: ").rstrip(".").split(", ")

    options = yaml.safe_load(plugin.DOCUMENTATION)["options"]
    manual = (ROOT / "docs" / "registry-and-plan.md").read_text(encoding="utf-8")
    assert set(options) == set(keys)
    assert [key for key in keys if f"`{key}" not in manual] == []
    assert [key for key in options["tunnels"]["suboptions"] if f"`tunnels.{key}`" not in manual] == []


def test_the_example_in_the_documentation_is_a_good_plan(tmp_path: Path) -> None:
    fleet = load_fleet(plan_file=write_fleet(tmp_path, plan=plugin.EXAMPLES))

    assert [gateway.name for gateway in fleet.plan.gateways] == ["gw1", "gw2"]
