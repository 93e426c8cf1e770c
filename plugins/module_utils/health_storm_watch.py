# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the health daemon counts to see a storm: sessions, packets that full buffers dropped, lines of the limiters.

Runs on gateways: standard library only, needs root. Nothing here waits, and no daemon is asked: each writes its status
into a file every ten seconds by itself, the kernel counts drops, and one journalctl, at the lowest priority, tells of
lines.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import typing as t
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.module_utils import health_storm as rules
from ansible_collections.spokewright.fleet.plugins.module_utils.health_process import port_in
from ansible_collections.spokewright.fleet.plugins.module_utils.management import ManagementError, parse_status

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.module_utils import health_config

EVERY = 2.0
# A daemon writes every 10 or 11 s.
STALE = 12.0
RESTART = 60.0
LIMITERS = re.compile(rb"would exceed new connection frequency limit|rate limit exceeded, dropping initial")
_PATTERN = "frequency limit|rate limit exceeded"


class StormWatch:
    """Counts every two seconds, and keeps what follows from it."""

    def __init__(self, *, config: health_config.Config) -> None:
        self._instances = config.instances
        self._rules = rules.Rules(
            share=config.storm_share,
            sessions=config.storm_sessions,
            seconds=config.storm_seconds,
            drops=config.storm_drops,
        )
        self._state = rules.State()
        self._due = 0.0
        self._last: float | None = None
        # What was written once stands for less time than a storm needs: it takes two to tell of one.
        stale = min(STALE, config.storm_seconds)
        self._statuses = {one.name: _Status(Path(one.status), stale=stale) for one in config.instances}
        self._drops: dict[int, int] = {}
        self._lines = _Lines(units=["openvpn-server@%s.service" % one.name for one in config.instances])

    @property
    def storm(self) -> rules.Storm:
        """What is known."""
        return self._state.storm

    def sources(self) -> list[tuple[int, t.Callable[[], None]]]:
        """Descriptors to wait for, and what to do when something has arrived."""
        return [(self._lines.fileno(), self._lines.receive)]

    def look(self, *, now: float, wall: float) -> None:
        """Count, when it is time to."""
        if now < self._due or not self._instances:
            return
        span = EVERY if self._last is None else max(now - self._last, EVERY)
        self._due, self._last = now + EVERY, now
        counted = rules.Count(drops=self._new_drops(), limited=self._lines.take(now=now), span=span)
        for status in self._statuses.values():
            counted += status.count(wall=wall)
        self._state = rules.step(before=self._state, counted=counted, rules=self._rules, now=now, wall=wall)

    def _new_drops(self) -> int:
        ports = {port_in(configuration=one.configuration) for one in self._instances}
        found = drops(text=_text(Path("/proc/net/udp")), ports=ports)
        # A daemon that was started anew begins at nothing; one that was not there before has its own past.
        new = sum(max(0, number - self._drops[port]) for port, number in found.items() if port in self._drops)
        self._drops = found
        return new


class _Status:
    """The status file of one instance, read when it is another one than before."""

    def __init__(self, path: Path, *, stale: float) -> None:
        self._path, self._stale = path, stale
        self._written = 0
        self._time = 0
        self._count = rules.Count()

    def count(self, *, wall: float) -> rules.Count:
        """The sessions; none when the daemon has written nothing for long, or nothing whole as one just started."""
        try:
            written = self._path.stat().st_mtime_ns
            if written != self._written:
                status = parse_status(lines=self._path.read_text(encoding="utf-8", errors="replace").splitlines())
                self._count = rules.count(clients=status.clients, now=status.time)
                self._written, self._time = written, status.time
        except (OSError, ManagementError, ValueError, IndexError):
            self._written, self._count = 0, rules.Count()
        return self._count if abs(wall - self._time) < self._stale else rules.Count()


class _Lines:
    """Lines of the limiters, from one journalctl that follows."""

    def __init__(self, *, units: t.Sequence[str]) -> None:
        self._units = units
        self._process: subprocess.Popen[bytes] | None = None
        self._restart = 0.0
        self._count = 0
        self._rest = b""

    def fileno(self) -> int:
        """The pipe to wait for, or -1."""
        return self._process.stdout.fileno() if self._process and self._process.stdout else -1

    def receive(self) -> None:
        """Take in what has arrived."""
        if not self._process or not self._process.stdout:
            return
        try:
            data = os.read(self._process.stdout.fileno(), 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._leave()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        # A line without an end is no reason to grow.
        self._rest = self._rest[-1024:]
        self._count += sum(LIMITERS.search(line) is not None for line in lines)

    def take(self, *, now: float) -> int:
        """How many since the last time; and see that somebody tells of more."""
        if self._process is None and now >= self._restart and self._units:
            self._restart = now + RESTART
            self._start()
        count, self._count = self._count, 0
        return count

    def _start(self) -> None:
        # Not run_command: this is a daemon of its own on the gateway, there is no module around it.
        with contextlib.suppress(OSError):
            # pylint: disable-next=ansible-bad-function
            self._process = subprocess.Popen(
                [
                    # As many steps as there are from the highest priority to the lowest.
                    *("nice", "-n", "39", "journalctl", "--follow", "--lines=0", "--output=cat", "--quiet"),
                    *("--grep=%s" % _PATTERN, *("--unit=%s" % unit for unit in self._units)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            if self._process.stdout:
                os.set_blocking(self._process.stdout.fileno(), False)

    def _leave(self) -> None:
        if self._process:
            if self._process.stdout:
                self._process.stdout.close()
            self._process.kill()
            # Ended already, or about to: nothing is waited for, and the next look takes it away.
            self._process.poll()
        self._process, self._rest = None, b""


def drops(*, text: str, ports: t.Container[int]) -> dict[int, int]:
    """Packets that the kernel dropped at full receive buffers, by port, from ``/proc/net/udp``."""
    found: dict[int, int] = {}
    for line in text.splitlines()[1:]:
        words = line.split()
        try:
            port, number = int(words[1].rpartition(":")[2], 16), int(words[-1])
        except (IndexError, ValueError):
            continue
        if port in ports:
            found[port] = found.get(port, 0) + number
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
