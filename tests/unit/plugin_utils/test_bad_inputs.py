# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every bad registry, plan and lock of `bad_inputs.yml`, matched on the whole text an operator gets."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import InputErrors
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from unit.plugin_utils.fleet_files import HEADER, PLAN, SITES, host_key, site_line, write_fleet

CASES: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("bad_inputs.yml").read_text(encoding="utf-8"))

LOCK = """{
 "version": 1,
 "network": "10.101.0.0/24",
 "block_prefix": 28,
 "instances": 2,
 "blocks": {
  "10.101.0.16/28": "tun0",
  "10.101.0.32/28": "tun1"
 },
 "sites": {
  "site-0001": "10.101.0.16",
  "site-0002": "10.101.0.32"
 },
 "tombstones": {
  "site-0099": {"address": "10.101.0.17", "removed": "2026-11-01"}
 }
}
"""

KEY = host_key("site-0003")
BASE64 = KEY.split()[1]
NAMES = {
    "{key3}": KEY,
    "{b643}": BASE64,
    "{key3cut}": f"ssh-ed25519 {base64.b64encode(base64.b64decode(BASE64)[:40]).decode()}",
    "{key4}": host_key("site-0004"),
    "{bastionkey}": host_key("bastion"),
    "{gw1key}": host_key("gw1"),
    "{gw2key}": host_key("gw2"),
}


def _filled(text: str) -> str:
    for name, value in NAMES.items():
        text = text.replace(name, value)
    return text


def _edited(text: str, edits: list[list[str]]) -> str:
    for old, new in edits:
        if old == "*":
            text = new
            continue
        assert _filled(old) in text, f"the case replaces {old!r}, which is not there"
        text = text.replace(_filled(old), _filled(new))
    return text


def _written(case: dict[str, Any], folder: Path) -> Path:
    sites = SITES
    if "many" in case:
        sites = "\n".join([HEADER, *(site_line(number) for number in range(1, case["many"] + 1))])
    sites = _edited(sites, case.get("sites", []))
    plan = _edited(PLAN, case.get("plan", []))
    if "plan_ends_before" in case:
        plan = plan[: plan.index(case["plan_ends_before"])]
    return write_fleet(
        folder,
        plan=plan,
        sites=None if case.get("sites_missing") else sites.encode(case.get("encoding", "utf-8")),
        lock=_edited(LOCK, case["lock"]) if "lock" in case else None,
    )


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_bad_input_gets_its_error(case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan_file = _written(case, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(InputErrors) as caught:
        load_fleet(plan_file=plan_file)

    assert str(caught.value) == case["expect"].rstrip("\n")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_table_is_long_enough_and_names_each_case_once() -> None:
    assert len(CASES) >= 60
    assert len({case["name"] for case in CASES}) == len(CASES)


def test_the_good_files_are_good(tmp_path: Path) -> None:
    """Else every case above would fail for the wrong reason."""
    assert len(load_fleet(plan_file=write_fleet(tmp_path)).sites) == 4
    assert len(load_fleet(plan_file=write_fleet(tmp_path, lock=LOCK)).sites) == 4


def test_five_faults_are_five_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    case = next(case for case in CASES if case["name"] == "five faults, five problems")

    with pytest.raises(InputErrors) as caught:
        load_fleet(plan_file=_written(case, tmp_path))

    assert [(problem.file, problem.line, problem.field, problem.value) for problem in caught.value.problems] == [
        ("sites.csv", 3, "group", "nroth"),
        ("sites.csv", 3, "lan", "10.64.2.1/24"),
        ("sites.csv", 4, "id", "site-0001"),
        ("sites.csv", 5, "lan", "10.101.0.16/28"),
        ("sites.csv", 5, "oob_address", "172.20.1.400"),
    ]
    assert all(problem.remedy for problem in caught.value.problems)
