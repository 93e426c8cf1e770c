# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program for gateways is the modules themselves, and runs there without the collection."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import program

if TYPE_CHECKING:
    from pathlib import Path


def test_it_holds_what_the_module_imports_and_no_more() -> None:
    files = program.files(entry="gateway_look")

    assert sorted(files) == ["__main__.py", "gateway_look.py", "icmp_echo.py", "management.py"]
    assert files == program.files(entry="gateway_look")


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(program.ProgramError, match="has no module nothing"):
        program.files(entry="nothing")


def test_the_health_daemon_runs_from_a_directory_of_its_own(tmp_path: Path) -> None:
    directory = tmp_path / "health"
    directory.mkdir()
    for name, text in program.files(entry="health_daemon").items():
        (directory / name).write_text(text)
    (tmp_path / "config").write_text(json.dumps({"interval": 0.3}))

    done = subprocess.run(
        [sys.executable, "-I", "-B", directory, "--check", tmp_path / "config"],
        check=False,
        capture_output=True,
        text=True,
        env={},
        cwd="/",
    )

    assert done.returncode == 1
    assert f"{tmp_path}/config: floor: it is missing" in done.stderr.splitlines()
    assert sorted(path.name for path in directory.iterdir()) == sorted(program.files(entry="health_daemon"))
