# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether keepalived lives, and its end when it is frozen: systemd starts it anew, as a standby.

Runs on gateways: standard library only, needs root. Nothing here waits.

A frozen keepalived would take the addresses back when it thaws, for it still thinks that it has them. It renews its
lease every second, so its process wakes up at least as often, whatever it is: owner, standby or at fault.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.module_utils.health_process import Process
from ansible_collections.spokewright.fleet.plugins.module_utils.health_report import WARNING
from ansible_collections.spokewright.fleet.plugins.module_utils.health_watch import Seen, Source

PID_FILE = "/run/vrrp.pid"
"""Of the process that speaks VRRP. Its parent only starts it anew when it ends."""
COMMAND = "keepalived"


@dataclass(frozen=True)
class Pulse:
    """A process, how often it has woken up, and when it was last seen to have done so."""

    pid: int | None = None
    wakes: int | None = None
    moved: float = 0.0


def feel(*, before: Pulse, pid: int | None, wakes: int | None, now: float, late: bool) -> Pulse:
    """Take in one look. ``late``: this machine did not let us run in time, so it may not have let others either."""
    still = (pid, wakes) == (before.pid, before.wakes)
    return Pulse(pid=pid, wakes=wakes, moved=before.moved if still and not late else now)


def frozen(*, pulse: Pulse, now: float, seconds: float) -> bool:
    """Whether the process is there and has not woken up for that long."""
    return pulse.wakes is not None and now - pulse.moved >= seconds


class KeepalivedWatch:
    """keepalived's process, which is ended when it stands still."""

    name = "keepalived"
    checks = ("keepalived",)

    def __init__(
        self, *, seconds: float, cure_pause: float, log: t.Callable[[int, str], None], pid_file: str = PID_FILE
    ) -> None:
        self._seconds, self._cure_pause, self._log, self._pid_file = seconds, cure_pause, log, Path(pid_file)
        self._process: Process | None = None
        self._pulse = Pulse()
        self._cured: float | None = None
        self.cures = 0

    def sources(self) -> list[Source]:
        """See Watch."""
        return []

    def look(self, *, now: float, late: bool) -> list[Seen]:
        """See Watch. Says nothing while there is no keepalived: that is systemd's to mend, or somebody's will."""
        self._find_process()
        process = self._process
        wakes = process.wakes() if process else None
        self._pulse = feel(before=self._pulse, pid=process.pid if process else None, wakes=wakes, now=now, late=late)
        if process is None or wakes is None:
            return [Seen(name=self.name, good=None)]
        if not frozen(pulse=self._pulse, now=now, seconds=self._seconds):
            return [Seen(name=self.name, good=True)]
        detail = "pid %d has not moved for %.1f s" % (process.pid, now - self._pulse.moved)
        if self._cured is None or now - self._cured >= self._cure_pause:
            self._log(WARNING, 'cure="keepalived" pid=%d signal=KILL detail="%s"' % (process.pid, detail))
            _kill_parent(process.pid)
            process.kill()
            self._cured = now
            self.cures += 1
        return [Seen(name=self.name, good=False, detail=detail)]

    def _find_process(self) -> None:
        if self._process and not self._process.alive():
            self._process.close()
            self._process = None
        if self._process is None:
            with contextlib.suppress(OSError, ValueError):
                pid = int(self._pid_file.read_text(encoding="ascii"))
                # The number in a file that was left may be anybody's by now.
                if _command(pid).startswith(COMMAND):
                    self._process = Process(pid)


def _command(pid: int) -> str:
    return Path("/proc/%d/comm" % pid).read_text(encoding="utf-8", errors="replace").strip()


def _kill_parent(pid: int) -> None:
    """The unit then removes the addresses and starts both anew; a parent that is frozen itself would start no child."""
    with contextlib.suppress(OSError):
        text = Path("/proc/%d/status" % pid).read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^PPid:\s*(\d+)$", text, re.MULTILINE)
        if found and _command(int(found[1])).startswith(COMMAND):
            os.kill(int(found[1]), signal.SIGKILL)
