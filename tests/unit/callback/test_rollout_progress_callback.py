# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of ansible-playbook with an action that says what it is told to say in the rollout's place."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
# Of the same Python as this test: run with another ansible-core, it is that one which is tried.
BIN = Path(sys.executable).parent
ACTION = """
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        return {**super().run(tmp, task_vars), **self._task.args}
"""
# A callback of somebody else, to see whether it still hears of the end.
OTHER = '''
DOCUMENTATION = """
name: other
type: notification
short_description: Say that the end was heard
description: [Says it.]
"""
from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "other"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_stats(self, stats):
        self._display.display("the other callback heard of the end")
'''
CLOSED = {"event": "closed", "rollout": "ID", "total": 4, "done": 4}


@dataclass(frozen=True)
class Run:
    """One ended run."""

    status: int
    output: str


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """The collection with everything it has but the rollout itself."""
    fleet = tmp_path / "collections" / "ansible_collections" / "spokewright" / "fleet"
    (fleet / "plugins" / "action").mkdir(parents=True)
    for name in ("callback", "plugin_utils", "module_utils"):
        (fleet / "plugins" / name).symlink_to(ROOT / "plugins" / name)
    (fleet / "galaxy.yml").symlink_to(ROOT / "galaxy.yml")
    (fleet / "plugins" / "action" / "rollout.py").write_text(ACTION, encoding="utf-8")
    (fleet / "plugins" / "action" / "something_else.py").write_text(ACTION, encoding="utf-8")
    (tmp_path / "ansible.cfg").touch()
    other = tmp_path / "callback_plugins"
    other.mkdir()
    (other / "other.py").write_text(OTHER, encoding="utf-8")
    return tmp_path


def play(stage: Path, *results: dict[str, Any], name: str = "rollout", enabled: str = "") -> Run:
    """One task for each result, on localhost."""
    tasks = [{f"spokewright.fleet.{name}": one, "name": f"step {number}"} for number, one in enumerate(results)]
    playbook = stage / "play.yml"
    playbook.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]), "utf-8")
    configuration = configparser.ConfigParser()
    configuration.read(ROOT / "ansible.cfg", encoding="utf-8")
    environment = {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_CONFIG": str(stage / "ansible.cfg"),
        "ANSIBLE_HOME": str(stage / "home"),
        "ANSIBLE_COLLECTIONS_PATH": str(stage / "collections"),
        "ANSIBLE_CALLBACKS_ENABLED": enabled or configuration["defaults"]["callbacks_enabled"],
        "ANSIBLE_CALLBACK_PLUGINS": str(stage / "callback_plugins"),
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
    }
    done = subprocess.run(
        [BIN / "ansible-playbook", playbook],
        cwd=stage,
        env=environment,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return Run(done.returncode, done.stdout)


@pytest.mark.parametrize(
    ("results", "status"),
    [
        # The rollout ended well.
        ([{"event": CLOSED}], 0),
        # Sites failed, and Ansible itself sees nothing wrong.
        ([{"event": CLOSED | {"exit_code": 2}}], 2),
        # A gate halted it; the task failed, for which Ansible would say 2.
        ([{"event": CLOSED | {"exit_code": 3}, "failed": True, "msg": "halted"}], 3),
        ([{"event": {"event": "refused", "rollout": "ID", "exit_code": 4}, "failed": True, "msg": "eve has it"}], 4),
        # A later task that fails does not hide what became of the rollout.
        ([{"event": CLOSED | {"exit_code": 3}}, {"failed": True, "msg": "another step"}], 3),
        # Without a rollout everything is as Ansible says.
        ([{"changed": False}], 0),
        ([{"failed": True, "msg": "an error"}], 2),
        ([{"event": CLOSED}, {"failed": True, "msg": "an error"}], 2),
    ],
)
def test_the_run_ends_with_the_code_of_the_rollout(stage: Path, results: list[dict[str, Any]], status: int) -> None:
    done = play(stage, *results)

    assert done.status == status, done.output
    # Nothing of the end is lost, and nothing looks like a crash.
    assert "PLAY RECAP" in done.output
    assert "localhost                  : ok=" in done.output
    for sign in ("Traceback", "WARNING", "ERROR]: Unexpected", "DEPRECATION"):
        assert sign not in done.output


def test_each_event_is_one_line(stage: Path) -> None:
    done = play(
        stage,
        {"event": {"event": "opened", "rollout": "ID", "waves": 2, "total": 4}},
        {"event": {"event": "wave_began", "rollout": "ID", "wave": "canary", "number": 1, "waves": 2, "sites": 2}},
        {"event": {"event": "refused", "rollout": "ID", "exit_code": 4}, "failed": True, "msg": "eve has it"},
    )

    assert [line for line in done.output.splitlines() if line.startswith("rollout ")] == [
        "rollout ID: 4 sites in 2 waves: 0 of 4 sites done",
        "rollout ID: wave 1 of 2, canary, begins with 2 sites",
        "rollout ID: refused: eve has it",
    ]


def test_another_action_ends_nothing(stage: Path) -> None:
    done = play(stage, {"event": CLOSED | {"exit_code": 3}}, name="something_else")

    assert done.status == 0
    assert "rollout ID" not in done.output


def test_a_step_that_another_run_keeps_out_ends_with_its_code(stage: Path) -> None:
    refused = {"failed": True, "msg": "in use by ann", "event": {"event": "refused", "rollout": "", "exit_code": 4}}
    done = play(stage, refused, name="something_else")

    assert done.status == 4
    assert "\nrefused: in use by ann" in done.output


def test_a_callback_before_it_hears_of_the_end(stage: Path) -> None:
    done = play(stage, {"event": CLOSED | {"exit_code": 3}}, enabled="other, spokewright.fleet.rollout_progress")

    assert (done.status, "the other callback heard of the end" in done.output) == (3, True)


def test_it_is_the_last_one_that_the_checkout_enables() -> None:
    configuration = configparser.ConfigParser()
    configuration.read(ROOT / "ansible.cfg", encoding="utf-8")

    enabled = configuration["defaults"]["callbacks_enabled"].split(",")
    assert enabled[-1].strip() == "spokewright.fleet.rollout_progress"


def test_ansible_doc_knows_it() -> None:
    done = subprocess.run(
        [BIN / "ansible-doc", "-t", "callback", "--json", "spokewright.fleet.rollout_progress"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )

    assert json.loads(done.stdout)["spokewright.fleet.rollout_progress"]["doc"]["type"] == "notification"
