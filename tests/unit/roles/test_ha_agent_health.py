# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health daemon's unit: what becomes of the score when the daemon ends, and what makes a run restart it."""

from __future__ import annotations

import posixpath
import subprocess
import typing as t
from pathlib import Path

import jinja2
import pytest
import yaml

ROLE = Path(__file__).parents[3] / "roles/ha_agent"


class Gateway:
    """The files of the unit, below a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.score = directory / "score"
        constants = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))
        jinja = jinja2.Environment(
            loader=jinja2.FileSystemLoader(ROLE / "templates"),
            undefined=jinja2.StrictUndefined,
            autoescape=False,  # noqa: S701 - as Ansible renders
        )
        jinja.filters |= {"comment": lambda text: f"# {text}", "dirname": posixpath.dirname}
        known: dict[str, t.Any] = {
            "ansible_managed": "Ansible managed",
            "ha_agent_score_file": str(self.score),
            "__ha_agent_health_program": str(directory / "program"),
            "__ha_agent_health_config_file": str(directory / "health.json"),
            "__ha_agent_health_started": str(directory / "started"),
            "__ha_agent_health_unit_file": str(directory / "spokewright-health.service"),
            "__ha_agent_health_config": {"interval": 0.3},
        }
        known["__ha_agent_health_digest"] = jinja.from_string(constants["__ha_agent_health_digest"]).render(known)
        self.unit = jinja.get_template("spokewright-health.service.j2").render(known)
        (directory / "program").mkdir()
        for name in ("program/__main__.py", "program/rules.py", "health.json", "spokewright-health.service"):
            (directory / name).write_text(name, encoding="utf-8")

    def systemd(self, kind: str) -> None:
        """Run the unit's own line of one kind, as systemd would."""
        (line,) = [row.partition("=")[2] for row in self.unit.splitlines() if row.startswith(f"{kind}=")]
        subprocess.run(line.replace("$$", "$"), shell=True, check=True)  # noqa: S602 - the unit's own line

    def started_with(self) -> str:
        self.systemd("ExecStartPre")
        return (self.directory / "started").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("before", "after"),
    [("0", "0"), ("-40", "-40"), ("-253", "-253"), ("-254", "0"), ("", "0"), ("?", "0"), (None, "0")],
)
def test_a_penalty_outlives_the_daemon_and_a_fault_does_not(before: str | None, after: str, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    if before is not None:
        gateway.score.write_text(f"{before}\n", encoding="utf-8")
    gateway.systemd("ExecStopPost")

    assert gateway.score.read_text(encoding="utf-8").strip() == after


def test_each_file_it_was_started_with_counts_and_nothing_else(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    digests = {gateway.started_with(), gateway.started_with()}
    for name in ("program/__main__.py", "program/rules.py", "health.json", "spokewright-health.service"):
        (tmp_path / name).write_text("changed", encoding="utf-8")
        digests.add(gateway.started_with())
    (tmp_path / "program/more.py").write_text("more", encoding="utf-8")
    digests.add(gateway.started_with())

    assert len(digests) == 6
    gateway.score.write_text("-40\n", encoding="utf-8")
    assert gateway.started_with() in digests


def test_keepalived_neither_needs_nor_waits_for_it_and_it_is_started_for_ever(tmp_path: Path) -> None:
    unit = Gateway(tmp_path).unit

    assert "keepalived.service" not in unit
    assert {"StartLimitIntervalSec=0", "Restart=always", "WatchdogSec=5"} <= set(unit.splitlines())
