# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook that distributes keys, with the real inventory and key store; only the way to the sites is played."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from unit.plugin_utils.fleet_files import write_fleet

ROOT = Path(__file__).resolve().parents[3]
SITES = ["site-0001", "site-0002", "site-0003", "site-0004"]
ASKED = "SPOKEWRIGHT_TEST_ASKED"
DEAD = "SPOKEWRIGHT_TEST_DEAD"
# Serves the sites it is asked to, once, and remembers what it was asked.
ENGINE = f"""
import json, os
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        args = self._task.args
        with open(os.environ["{ASKED}"], "a+") as asked:
            asked.seek(0)
            served = [site for line in asked for site in json.loads(line)["sites"]]
            if not self._task.check_mode:
                asked.write(json.dumps(args) + "\\n")
        dead = os.environ["{DEAD}"].split()
        sites = {{}}
        for site in args["sites"]:
            ok = site not in dead
            sites[site] = {{"ok": ok, "changed": ok and site not in served, "reason": "", "message": "was asked"}}
        report = {{}} if self._task.check_mode else {{"report": "REPORT.txt"}}
        return {{**result, "changed": True, "sites": sites, "msg": "the sum. Report: REPORT.txt", **report}}
"""


class Controller:
    """A controller with a fleet of four sites."""

    def __init__(self, path: Path) -> None:
        self.path = path
        here = path / "ansible_collections/spokewright/fleet"
        (here / "plugins/action").mkdir(parents=True)
        for name in ("galaxy.yml", "meta", "playbooks", "plugins/modules", "plugins/plugin_utils", "plugins/inventory"):
            (here / name).symlink_to(ROOT / name)
        for name in ("allocations", "site_psk", "site_verdict"):
            (here / f"plugins/action/{name}.py").symlink_to(ROOT / f"plugins/action/{name}.py")
        (here / "plugins/action/site_generation.py").write_text(ENGINE, encoding="utf-8")
        self.plan = write_fleet(path)
        self.asked = path / "asked"
        self.asked.touch()

    def run(self, *options: str, dead: str = "") -> tuple[int, dict[str, tuple[int, int]], str]:
        """The exit code; changed and failed of each host; what was said."""
        ran = subprocess.run(
            ["ansible-playbook", "-i", self.plan, ROOT / "playbooks/distribute_keys.yml", *options],
            cwd=self.path,
            env={
                **os.environ,
                "ANSIBLE_COLLECTIONS_PATH": str(self.path),
                "ANSIBLE_LOCAL_TEMP": str(self.path / "local"),
                ASKED: str(self.asked),
                DEAD: dead,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        found = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+) +unreachable=0 +failed=(\d+)", ran.stdout, re.MULTILINE)
        return ran.returncode, {host: (int(changed), int(failed)) for host, changed, failed in found}, ran.stdout

    def orders(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.asked.read_text(encoding="utf-8").splitlines()]

    def keys(self) -> list[str]:
        return sorted(path.parent.name for path in (self.path / "keystore").glob("sites/*/*.vault"))


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path)


def test_dead_sites_are_failed_hosts_and_the_others_are_served(controller: Controller) -> None:
    status, recap, said = controller.run(dead="site-0001 site-0003")

    assert status == 2, said
    assert {host: failed for host, (_changed, failed) in recap.items()} == {
        "site-0001": 1,
        "site-0002": 0,
        "site-0003": 1,
        "site-0004": 0,
    }
    assert controller.keys() == SITES
    (order,) = controller.orders()
    assert (order["verb"], order["sites"]) == ("stage", SITES)
    assert order["report"] == str(controller.path / "reports" / "distribute_keys")
    assert "keystore.key was made: it alone opens the key store" in said


@pytest.mark.parametrize("dead", ["", "site-0001", " ".join(SITES)])
def test_where_the_report_is_comes_last_whoever_failed(controller: Controller, dead: str) -> None:
    status, recap, said = controller.run(dead=dead)

    assert status == (2 if dead else 0), said
    assert sorted(host for host, (_changed, failed) in recap.items() if failed) == dead.split()
    assert said.count("msg: 'the sum. Report: REPORT.txt'") + said.count('"msg": "the sum. Report: REPORT.txt"') == 1
    assert said.index("Report: REPORT.txt") > said.rindex("TASK [Say what became of each site]")


def test_check_makes_nothing_and_the_second_run_changes_nothing(controller: Controller) -> None:
    status, recap, said = controller.run("--check")
    assert status == 0, said
    assert [host for host in SITES if recap[host][0] == 0] == []
    assert sorted(path.name for path in controller.path.iterdir() if path.name.startswith(("keystore", "test."))) == [
        "test.fleet.yml"
    ]

    assert controller.run()[0] == 0
    for options in ((), ("--check",)):
        status, recap, said = controller.run(*options)
        assert (status, recap) == (0, dict.fromkeys(SITES, (0, 0))), said


def test_limit_makes_and_sends_the_key_of_that_site_alone(controller: Controller) -> None:
    status, recap, said = controller.run("--limit", "site-0003")

    assert (status, list(recap)) == (0, ["site-0003"]), said
    assert controller.keys() == ["site-0003"]
    assert [order["sites"] for order in controller.orders()] == [["site-0003"]]


def test_a_second_operator_is_refused_before_any_site_is_asked(controller: Controller) -> None:
    controller.run("--limit", "site-0003")
    path = controller.path / "keystore" / "operation.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    with subprocess.Popen(["sleep", "60"]) as other:
        fields = Path(f"/proc/{other.pid}/stat").read_text(encoding="ascii").split()
        owner = {**record["owner"], "pid": other.pid, "started": fields[21]}
        path.write_text(json.dumps({**record, "what": "rotate everything", "owner": owner}), encoding="utf-8")
        status, _recap, said = controller.run()
        other.kill()

    assert status == 2, said
    assert f"(pid {other.pid}) since {record['since']}: rotate everything" in " ".join(said.split())
    assert len(controller.orders()) == 1
    assert controller.keys() == ["site-0003"]
