# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys for a hundred real sites. Each test goes on where the one before it ended."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from integration.labtools import INVENTORY, PLAN, PLAYBOOK, ROOT, fleet, forget_fleet, lab, newest_keys, on, playbook

if TYPE_CHECKING:
    from collections.abc import Iterator

SITES = 100
ALL = [f"site-{number:04}" for number in range(1, SITES + 1)]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module", autouse=True)
def hosts_as_new() -> Iterator[None]:
    forget_fleet()
    up = lab("up", "--sites", str(SITES))
    assert up.status == 0, up.output
    yield
    if os.environ.get("SPOKEWRIGHT_KEEP_LAB") is None:
        forget_fleet()


def test_check_says_what_would_travel_and_touches_nothing() -> None:
    run = playbook("distribute_keys.yml", "--check")

    assert run.status == 0, run.output[-3000:]
    assert [site for site in ALL if run.recap[site].changed == 0] == []
    assert not (INVENTORY / "keystore").exists()
    assert not (INVENTORY / "keystore.key").exists()
    assert on("site-0001", "test -e /etc/spokewright").status != 0


def test_limit_touches_one_site() -> None:
    run = playbook("distribute_keys.yml", "--limit", "site-0003")

    assert run.status == 0, run.output[-3000:]
    assert set(run.recap) == {"site-0003"}
    assert on("site-0003", "test -e /etc/spokewright/generations/1/psk.key").status == 0
    assert on("site-0004", "test -e /etc/spokewright").status != 0
    assert {site for site, key in newest_keys().items() if key != (0, "none")} == {"site-0003"}


def test_all_sites_are_served_and_a_second_run_changes_nothing() -> None:
    run = playbook("distribute_keys.yml")

    assert run.status == 0, run.output[-3000:]
    assert [site for site in ALL if run.recap[site].changed == (site == "site-0003")] == []
    assert newest_keys() == dict.fromkeys(ALL, (1, "staged"))
    for options in ([], ["--check"]):
        again = playbook("distribute_keys.yml", *options)
        assert (again.status, again.changed) == (0, {}), again.output[-3000:]


def test_the_second_operator_is_told_who_is_at_work_and_since_when() -> None:
    new = fleet("key", "regenerate", *ALL[:20], "--yes", "--reason", "two operators")
    assert new.status == 0, new.output
    command = [str(PLAYBOOK), "-i", str(PLAN), "playbooks/distribute_keys.yml"]
    first = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end and str(first.pid) not in record():
            assert first.poll() is None
            time.sleep(0.05)
        second = playbook("distribute_keys.yml")
    finally:
        said, _ = first.communicate(timeout=300)

    assert first.returncode == 0, said[-3000:]
    assert second.status == 4, second.output[-3000:]
    assert "in use by" in second.output
    assert f"pid {first.pid}" in second.output
    assert " since 20" in second.output
    assert playbook("distribute_keys.yml").changed == {}


def record() -> str:
    """What the key store says about who is at work."""
    path = INVENTORY / "keystore" / "operation.json"
    return path.read_text(encoding="utf-8") if path.exists() else ""
