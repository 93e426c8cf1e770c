# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plays of the brake as they are, on a fleet that cannot be logged in to."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from unit.plugin_utils.fleet_files import write_fleet

ROOT = Path(__file__).resolve().parents[3]
RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=0\s+failed=(\d+)", re.MULTILINE)


def play(folder: Path, name: str, *options: str) -> tuple[int, dict[str, tuple[int, int]], str]:
    """The exit code; changed and failed of each host; what was said."""
    # There is no login key, so nobody is called.
    plan = write_fleet(folder)
    done = subprocess.run(
        ["ansible-playbook", "-i", plan, ROOT / "playbooks" / name, *options],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_LOCAL_TEMP": str(folder / "local")},
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    recap = {host: (int(changed), int(failed)) for host, changed, failed in RECAP.findall(done.stdout)}
    return done.returncode, recap, " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("name", "options", "failed"),
    [
        ("hold_sites.yml", ("-e", "group=canary", "-e", "for=30m", "-e", "reason=a storm"), ["site-0001"]),
        ("hold_sites.yml", ("-e", "sites=site-0002,site-0003", "-e", "group=canary"), ["site-0001", "0002", "0003"]),
        ("hold_sites.yml", ("-e", '{"sites": ["site-0002"]}', "--check"), ["site-0002"]),
        ("release_sites.yml", ("-e", "group=north", "-e", "rate=2/s", "--limit", "site-0004"), ["site-0004"]),
    ],
    ids=["group", "both", "list", "limit"],
)
def test_who_cannot_be_told_is_a_failed_host_and_the_others_are_not_touched(
    tmp_path: Path, name: str, options: tuple[str, ...], failed: list[str]
) -> None:
    code, recap, said = play(tmp_path, name, *options)

    assert code == 2, said
    assert [host[-4:] for host, (_changed, wrong) in recap.items() if wrong] == [site[-4:] for site in failed]
    assert {changed for changed, _failed in recap.values()} == {0}
    assert said.count("id_ed25519") >= len(failed)


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("hold_sites.yml", (), "No site is named: -e group=NAME, or -e sites=ID,ID. Nothing was changed."),
        ("release_sites.yml", ("-e", "group=nort"), "nort: neither a group of the plan, which has canary, north, nor"),
        ("hold_sites.yml", ("-e", "group=north", "-e", "for=2d"), "'2d' is no time. Write hours, minutes and seconds"),
    ],
    ids=["nobody", "no-group", "no-time"],
)
def test_what_makes_no_sense_is_said(tmp_path: Path, name: str, options: tuple[str, ...], error: str) -> None:
    code, _recap, said = play(tmp_path, name, *options)

    assert code != 0
    assert error in said
