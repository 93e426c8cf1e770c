# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A keepalived that stands still is ended with its parent; one that moves, is gone, or is another's number never is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils.health_keepalived import (
    KeepalivedWatch,
    Pulse,
    feel,
    frozen,
)

INTERVAL, SECONDS, PAUSE = 0.25, 3.0, 60.0
# A parent and a child by the names that keepalived's have; the child moves all the time, as one that sends adverts.
FAMILY = """
import os, sys, time
def called(name):
    with open("/proc/self/comm", "w") as file:
        file.write(name)
called(sys.argv[1])
child = os.fork()
if not child:
    called(sys.argv[1] + "_vrrp")
    while True:
        time.sleep(0.001)
with open(sys.argv[2], "w") as file:
    file.write("%d\\n" % child)
os.waitpid(child, 0)
"""


def pulse_after(*wakes: int | None, late: tuple[int, ...] = ()) -> tuple[Pulse, float]:
    pulse, now = Pulse(), 1000.0
    for number, one in enumerate(wakes):
        now += INTERVAL
        pulse = feel(before=pulse, pid=7 if one is not None else None, wakes=one, now=now, late=number in late)
    return pulse, now


@pytest.mark.parametrize(
    ("wakes", "late", "is_frozen"),
    [
        ([5] * 13, (), True),
        ([5] * 12, (), False),
        ([*range(20)], (), False),
        ([5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 8], (), False),
        ([5] * 20, (12,), False),
        ([5] * 25, (12,), True),
        ([None] * 20, (), False),
    ],
    ids=["still", "not yet", "busy", "once a second", "we were late ourselves", "and then it was", "not there"],
)
def test_only_what_stands_still_for_the_whole_time_is_frozen(
    wakes: list[int | None], late: tuple[int, ...], *, is_frozen: bool
) -> None:
    pulse, now = pulse_after(*wakes, late=late)

    assert frozen(pulse=pulse, now=now, seconds=SECONDS) is is_frozen


class Family:
    """Two processes and the watch over them, with a clock of ours."""

    def __init__(self, directory: Path, name: str = "keepalived") -> None:
        self.pid_file, self.now, self.said = directory / "vrrp.pid", 1000.0, list[str]()
        self.watch = KeepalivedWatch(
            seconds=SECONDS,
            cure_pause=PAUSE,
            log=lambda _priority, line: self.said.append(line),
            pid_file=str(self.pid_file),
        )
        self.parent = subprocess.Popen([sys.executable, "-c", FAMILY, name, str(self.pid_file)])
        until(lambda: self.pid_file.exists() and self.pid_file.read_text().endswith("\n"))
        self.child = int(self.pid_file.read_text())
        until(lambda: comm(self.child) == f"{name}_vrrp")

    def signal(self, number: int) -> None:
        os.kill(self.child, number)
        os.kill(self.parent.pid, number)

    def look(self, times: int) -> bool | None:
        for _ in range(times):
            self.now += INTERVAL
            time.sleep(0.01)
            (seen,) = self.watch.look(now=self.now, late=False)
        return seen.good

    def end(self) -> None:
        self.signal(signal.SIGKILL)
        self.parent.wait()


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip()


def until(well: t.Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not well():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def family(tmp_path: Path) -> t.Iterator[Family]:
    made = Family(tmp_path)
    yield made
    if made.parent.poll() is None:
        made.end()


def test_a_frozen_keepalived_is_ended_with_its_parent_and_one_line_says_so(family: Family) -> None:
    assert family.look(30) is True
    family.signal(signal.SIGSTOP)
    family.look(20)

    assert family.parent.wait(timeout=5) == -signal.SIGKILL
    until(lambda: family.look(1) is None)
    (line,) = family.said
    assert line.startswith(f'cure="keepalived" pid={family.child} signal=KILL detail="pid {family.child} has not moved')
    assert family.watch.cures == 1
    assert family.look(30) is None


def test_a_child_that_is_frozen_alone_takes_its_parent_with_it(family: Family) -> None:
    family.look(3)
    os.kill(family.child, signal.SIGSTOP)
    family.look(20)

    assert family.parent.wait(timeout=5) == -signal.SIGKILL


def test_a_number_that_is_another_programs_by_now_is_left_alone(tmp_path: Path) -> None:
    other = Family(tmp_path, name="somebody")
    try:
        other.signal(signal.SIGSTOP)
        assert other.look(30) is None
        assert (other.said, other.parent.poll()) == ([], None)
    finally:
        other.end()


@pytest.mark.parametrize("text", ["", "no number", "999999999"])
def test_a_file_that_names_nobody_says_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "vrrp.pid").write_text(text)
    watch = KeepalivedWatch(
        seconds=SECONDS, cure_pause=PAUSE, log=lambda _priority, _line: None, pid_file=str(tmp_path / "vrrp.pid")
    )

    assert [seen.good for seen in watch.look(now=1.0, late=False)] == [None]
