# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the verify script notes is what a look finds."""

from __future__ import annotations

import os
import subprocess
import typing as t
from pathlib import Path

import jinja2
import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils.gateway_look import presented

TEMPLATE = Path(__file__).parents[3] / "roles/tunnel_server/templates/tunnel-verify.j2"
KID = "0123456789abcdef"


def verify(folder: Path, metadata: str, run: str | None = None) -> int:
    (folder / "denied").mkdir(exist_ok=True)
    environment = jinja2.Environment(autoescape=False)  # noqa: S701 - as Ansible renders
    environment.filters |= {"comment": lambda text: f"# {text}", "quote": lambda text: f"'{text}'"}
    known: dict[str, t.Any] = {
        "ansible_managed": "test",
        "__tunnel_server_denied_directory": str(folder / "denied"),
        "__tunnel_server_run": run or str(folder),
        "tunnel_server_minimum_epoch": 1,
    }
    script = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(known)
    (folder / "metadata").write_text(metadata, encoding="ascii")
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        env={**os.environ, "metadata_type": "0", "metadata_file": str(folder / "metadata")},
        check=False,
        capture_output=True,
    )
    return done.returncode


def test_the_key_a_site_came_with_is_found_and_the_last_one_counts(tmp_path: Path) -> None:
    assert presented(tmp_path) == {}
    assert verify(tmp_path, f"v=1 site=site-0001 kid={KID} epoch=1 issued=5") == 0
    assert verify(tmp_path, f"v=1 site=site-0001 kid={'f' * 16} epoch=2 issued=6") == 0
    assert verify(tmp_path, f"v=1 site=tun0 kid={KID} epoch=7 issued=6") == 0
    found = presented(tmp_path)
    assert {site: one[:2] for site, one in found.items()} == {"site-0001": ("f" * 16, 2), "tun0": (KID, 7)}
    assert found["site-0001"][2] == pytest.approx((tmp_path / "site-0001.kid").stat().st_mtime)


def test_a_refused_key_is_not_noted(tmp_path: Path) -> None:
    (tmp_path / "denied").mkdir()
    (tmp_path / "denied" / KID).touch()
    assert verify(tmp_path, f"v=1 site=site-0001 kid={KID} epoch=1 issued=5") == 1
    assert presented(tmp_path) == {}


def test_a_place_that_cannot_be_written_refuses_nobody(tmp_path: Path) -> None:
    assert verify(tmp_path, f"v=1 site=site-0001 kid={KID} epoch=1 issued=5", run=str(tmp_path / "none")) == 0


def test_a_note_that_is_just_being_written_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "site-0001.kid").write_text("", encoding="ascii")
    assert presented(tmp_path) == {}
