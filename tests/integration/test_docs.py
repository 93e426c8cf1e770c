# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command of README, rotation, rollouts, brake, tutorial, daily work, pair and capacity, as a reader does."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from integration.labtools import ROOT, forget_fleet, lab

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
    pytest.mark.usefixtures("lab_goes_off"),
    pytest.mark.timeout(1500),
]

ROLLOUT = "ansible-playbook playbooks/rollout.yml -e rollout=2026-q4"

# What a document says ends otherwise than well, by the text before it: the mistake made on purpose, the pair of one.
ENDS_OTHERWISE = {
    ("tutorial.md", "tools/fleet check"): 2,
    ("tutorial.md", "tools/fleet status", "tools/lab kill gw1"): 1,
    # It stops before the wave that wants an approval.
    ("rollouts.md", ROLLOUT, "--check"): 3,
    ("rollouts.md", "tools/fleet rollout show 2026-q4"): 1,
    # A fleet with held sites is not well.
    ("hold-and-release.md", "tools/fleet status", "tools/fleet hold north"): 1,
    ("storm-runbook.md", "tools/fleet status", "tools/fleet hold south"): 1,
    # Nothing was removed from this fleet, so there is nothing to release.
    ("daily-work.md", "tools/fleet plan --release site-0009 --write"): 2,
}
# Run by this test itself, or by whoever runs it.
NOT_HERE = {"make test", ". .venv/bin/activate"}


def commands(document: str) -> list[str]:
    """The lines after a prompt in a document's console blocks."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```console\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def run(command: str, *, seconds: float = 900) -> tuple[int, str]:
    """Run one line as a reader's shell would, with the environment that the README activates."""
    environment = {**os.environ, "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env=environment,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=seconds,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module", autouse=True)
def fresh_lab() -> Iterator[None]:
    """A reader begins with nothing."""
    forget_fleet()
    yield
    (ROOT / "pins").unlink(missing_ok=True)


def follow(*documents: str) -> set[str]:
    """Run what the documents say, one after the other; the commands that were run."""
    before = ""
    seen: set[str] = set()
    for document in documents:
        name = document.rpartition("/")[2]
        for command in commands(document):
            if command in NOT_HERE or (command.startswith("make demo") and document != "README.md"):
                continue
            seen.add(command)
            status, output = run(command)
            expected = ENDS_OTHERWISE.get((name, command), 0)
            for (where, what, *after), code in ENDS_OTHERWISE.items():
                if after and (where, what) == (name, command) and after[0] in before:
                    expected = code
            assert status == expected, f"{document}: {command}: exit status {status}\n{output[-3000:]}"
            before = command
    return seen


def test_the_readme() -> None:
    assert "make demo" in follow("README.md")


@pytest.mark.long
def test_a_rotation_of_the_keys_and_a_staged_rollout_go_on_where_the_readme_ends() -> None:
    assert follow("docs/rotate-keys.md", "docs/rollouts.md", "docs/storm-explained.md")


@pytest.mark.long
def test_hold_and_release_and_the_storm_runbook_go_on_where_the_readme_ends() -> None:
    assert follow("docs/hold-and-release.md", "docs/storm-runbook.md")


@pytest.mark.long
def test_a_new_server_key_and_a_new_ca() -> None:
    forget_fleet()
    assert lab("up", "--sites", "4").status == 0
    status, output = run("ansible-playbook playbooks/site.yml")
    assert status == 0, output[-3000:]
    assert follow("docs/rotate-server-key.md")


@pytest.mark.long
def test_the_daily_work_and_the_tutorial_go_on_where_the_readme_ends() -> None:
    follow("docs/daily-work.md", "docs/tutorial.md")
    assert lab("status").status != 0, "the tutorial ends with the lab gone"


@pytest.mark.long
def test_the_pair_and_its_runbook() -> None:
    forget_fleet()
    assert lab("up", "--sites", "4").status == 0
    status, output = run("ansible-playbook playbooks/site.yml")
    assert status == 0, output[-3000:]

    for document in ("docs/the-pair.md", "docs/pair-runbook.md", "docs/capacity.md"):
        assert commands(document), document
        for command in commands(document):
            status, output = run(command)
            assert status == 0, f"{document}: {command}: exit status {status}\n{output[-3000:]}"
