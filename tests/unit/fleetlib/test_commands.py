# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tools/fleet prints about a plan and its lock."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fleetlib.cli import main
from unit.plugin_utils.fleet_files import PLAN, SITES, write_fleet

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

FIRST = "there is no lock file yet: all 4 sites get their first address"


def test_a_fleet_without_a_lock_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan_file = str(write_fleet(tmp_path))

    for verb in ("check", "plan"):
        assert main([verb, "-i", plan_file]) == 0
        assert FIRST in capsys.readouterr().out
    main(["plan", "-i", plan_file, "--write"])
    capsys.readouterr()
    assert main(["check", "-i", plan_file]) == 0
    assert FIRST not in capsys.readouterr().out


def test_a_refused_write_prints_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan_file = write_fleet(tmp_path)
    main(["plan", "-i", str(plan_file), "--write"])
    capsys.readouterr()
    plan_file.write_text(PLAN.replace("count: 2", "count: 1"), encoding="utf-8")

    assert main(["plan", "-i", str(plan_file), "--write", "--format", "json"]) == 2
    assert set(json.loads(capsys.readouterr().out)) == {"error"}


def test_a_release_is_shown_as_a_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan_file = str(write_fleet(tmp_path))
    main(["plan", "-i", plan_file, "--write"])
    write_fleet(tmp_path, sites="\n".join(SITES.splitlines()[:-1]))
    capsys.readouterr()

    assert main(["plan", "-i", plan_file, "--release", "site-0004"]) == 0

    out = capsys.readouterr().out
    assert "site released: site-0004: 10.101.0.33 -> free (released by hand" in out
    assert "site removed" not in out
