# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock that is there but cannot be read never becomes a fleet without a lock."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import InputErrors
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet, write_lock
from unit.plugin_utils.fleet_files import PLAN, SITES, write_fleet

if TYPE_CHECKING:
    from pathlib import Path


def refusal(plan_file: Path) -> str:
    with pytest.raises(InputErrors) as caught:
        load_fleet(plan_file=plan_file)
    return str(caught.value)


@pytest.mark.parametrize("target", ["test.lock.json", "elsewhere.json"], ids=["a loop", "dangling"])
def test_a_lock_that_is_a_broken_link_is_a_fault(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan_file = write_fleet(tmp_path)
    (tmp_path / "test.lock.json").symlink_to(target)

    assert refusal(plan_file) == (
        "test.lock.json: is a symbolic link that leads to no file. Restore the lock from git; without it every site "
        "may get a new address.\n1 problem found, nothing was touched."
    )


def test_a_lock_whose_directory_is_missing_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan_file = write_fleet(tmp_path, plan=PLAN.replace("lock: test", "lock: none/test"))

    assert refusal(plan_file) == (
        "test.fleet.yml:5: lock: its directory none does not exist or cannot be entered. Make the directory, or "
        "correct the path.\n1 problem found, nothing was touched."
    )


def test_a_lock_that_cannot_be_looked_up_is_a_fault(tmp_path: Path) -> None:
    plan_file = write_fleet(tmp_path, plan=PLAN.replace("lock: test", "lock: " + 300 * "t"))

    assert "cannot be read: File name too long. Check its permissions." in refusal(plan_file)


@pytest.mark.parametrize("key", ["blocks", "sites", "tombstones"])
def test_a_lock_without_a_section_is_a_fault(key: str, tmp_path: Path) -> None:
    plan_file = write_fleet(tmp_path)
    write_lock(fleet=load_fleet(plan_file=plan_file))
    lock = tmp_path / "test.lock.json"
    document = json.loads(lock.read_text(encoding="utf-8"))
    document["x" + key] = document.pop(key)
    lock.write_text(json.dumps(document), encoding="utf-8")

    text = refusal(plan_file)

    assert f"{key}: is missing. Restore the lock from git" in text
    assert f"x{key}: 'x{key}' is no key of a lock." in text


@pytest.mark.parametrize(
    "lock",
    ["[" * 200000 + "]" * 200000, '{"version": ' + "9" * 5000 + "}"],
    ids=["nested", "digits"],
)
def test_a_lock_python_cannot_hold_is_a_fault(lock: str, tmp_path: Path) -> None:
    assert "the lock is nested too deep, or holds a number" in refusal(write_fleet(tmp_path, lock=lock))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("fleet: test", "fleet: " + "[" * 5000, "it is nested too deep"),
        ("fleet: test", r'fleet: "\UFFFFFFFF"', "impossible character"),
        ("registry: sites.csv", "registry: ~nouser/x", "4: registry: '~nouser/x' starts in the home of a user"),
        ("registry: sites.csv", r'registry: "a\0b"', "4: registry: 'a\0b' is no path."),
        ("registry: sites.csv", r'registry: "a\ud800b"', r"4: registry: 'a\ud800b' is no path."),
        ("port: 22", f"port: {'9' * 5000}", f"ssh.port: {'9' * 20}... is out of range."),
        ("10.101.0.0/24", f"10.101.0.0/{'2' * 5000}", "is no IPv4 prefix."),
    ],
)
def test_a_plan_python_cannot_hold_is_a_fault(old: str, new: str, says: str, tmp_path: Path) -> None:
    assert says in refusal(write_fleet(tmp_path, plan=PLAN.replace(old, new)))


def test_a_port_of_thousands_of_digits_is_a_fault(tmp_path: Path) -> None:
    sites = SITES.replace("10.64.2.0/24,", f"10.64.2.0/24,oob_port={'9' * 5000}")

    assert "is no port. Write a number from 1 to 65535." in refusal(write_fleet(tmp_path, sites=sites))
