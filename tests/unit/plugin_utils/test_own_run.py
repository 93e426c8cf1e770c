# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker that outlives its run takes hold of nothing and begins nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.own_run import RunEndedError, is_over, own_run

if TYPE_CHECKING:
    from pathlib import Path


def worker(told: Path) -> None:
    os.setsid()
    run = own_run()
    told.with_suffix(".before").write_text(f"{run} {is_over(run)}")
    deadline = time.monotonic() + 20
    while not is_over(run) and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        told.write_text(f"{own_run()}")
    except RunEndedError as exc:
        told.write_text(f"{is_over(run)} {exc}")


def controller(told: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=worker, args=(told,))
    process.start()
    process.join()


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path.read_text()


def test_a_worker_knows_when_its_run_was_killed(tmp_path: Path) -> None:
    told = tmp_path / "told"
    run = multiprocessing.get_context("fork").Process(target=controller, args=(told,))
    run.start()
    assert wait_for(told.with_suffix(".before")) == f"{run.pid} False"
    assert run.pid is not None
    os.kill(run.pid, signal.SIGKILL)
    run.join()
    assert wait_for(told) == "True the run that this step belongs to has ended. Nothing was begun."


def test_a_command_without_a_run_above_it_is_never_over() -> None:
    assert not is_over(None)
    assert own_run() == os.getppid()


@pytest.mark.parametrize("run", [1, 2**22 + 1])
def test_another_process_is_not_the_run(run: int) -> None:
    assert is_over(run) == (run != os.getppid())
