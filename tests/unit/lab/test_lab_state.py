# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab remembers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lablib import paths, state
from lablib.errors import LabError
from lablib.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "RUN", tmp_path / "run")
    monkeypatch.setattr(paths, "STATE", tmp_path / "run/state.json")
    monkeypatch.setattr(paths, "LOCK", tmp_path / "lock")
    return tmp_path


def example() -> state.State:
    return state.State(
        boot_id=state.boot_id(),
        release="bookworm",
        tree="/tree",
        sites=8,
        hosts={
            "gw1": state.HostState(
                power="on", nspawn=state.Process(pid=5, started=6), init=None, cuts={"internet": "silent"}
            )
        },
        sysctls={"kernel.pid_max": ("32768", "4194304")},
        made_netns_directory=True,
    )


def test_what_is_saved_is_loaded() -> None:
    example().save()
    assert state.load() == example()
    assert [path.name for path in paths.RUN.iterdir()] == ["state.json"]


def test_no_state_is_no_lab() -> None:
    assert state.load() is None
    with pytest.raises(LabError, match=r"No lab is up\. Start one with: tools/lab up"):
        state.require()


def test_a_state_of_an_earlier_boot_of_the_machine_is_no_lab() -> None:
    old = example()
    old.boot_id = "another"
    old.save()
    assert state.load() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 1, "boot_id": 3, "hosts": 5}'])
def test_a_broken_state_is_one_error(text: str) -> None:
    paths.RUN.mkdir()
    paths.STATE.write_text(text, encoding="utf-8")
    if text.endswith("5}"):
        paths.STATE.write_text(json.dumps({**json.loads(text), "boot_id": state.boot_id()}), encoding="utf-8")
    with pytest.raises(LabError, match=r"state\.json is not readable .* Remove it and run: tools/lab down"):
        state.load()


def test_a_state_of_a_later_version_is_left_alone() -> None:
    paths.RUN.mkdir()
    paths.STATE.write_text('{"version": 99}', encoding="utf-8")
    with pytest.raises(LabError, match="has version 99, this lab knows 1"):
        state.load()


def test_a_second_command_names_the_one_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(state, "LOCK_SECONDS", 0.3)
    with state.locked(verb="up", progress=Progress()):
        second = state.locked(verb="down", progress=Progress())
        with pytest.raises(LabError, match=r"still held by tools/lab up \(pid \d+\) after 0\.3 seconds"):
            second.__enter__()
    assert "Waiting for tools/lab up (pid " in capsys.readouterr().err


def test_a_lock_whose_file_down_has_removed_is_taken_anew() -> None:
    with state.locked(verb="down", progress=Progress()):
        paths.LOCK.unlink()
    with state.locked(verb="up", progress=Progress()):
        assert paths.LOCK.read_text(encoding="utf-8").startswith("tools/lab up (pid ")
