# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a storm costs: half-open sessions, dropped packets, processor time, memory; read from outside the hosts.

Everything is read through /proc of this machine, so a gateway that is busy or frozen does not slow the reading down;
only the sessions are asked for, at the daemons' management sockets.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ansible_collections.spokewright.fleet.plugins.module_utils.management import UNDEF, Management, ManagementError
from lablib import processes
from lablib import state as states

from .scene import GATEWAYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SAMPLE_SECONDS = 1.0
# A daemon that does not answer within this is left out of the sample: it is the storm that is looked at, not it.
ANSWER_SECONDS = 0.5
# The kernel's threads are children of this one.
KTHREADD = 2
# What a gateway runs because of us, by the program's name.
OURS = (
    *("openvpn", "keepalived", "python3", "journalctl"),
    *("bgpd", "ospfd", "zebra", "mgmtd", "staticd", "bfdd", "watchfrr"),
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Both gateways at one moment: sessions, half-open ones among them, and counters since boot."""

    when: float
    clients: int
    half_open: int
    drops: int
    packets: int
    busy: float


@dataclass(kw_only=True)
class Account:
    """Reads the gateways once a second while it is entered; daemons' processor time survives their end."""

    gateways: tuple[str, ...]
    network: str
    samples: list[Sample] = field(default_factory=list)
    _daemons: dict[tuple[int, int], float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self.samples.append(self._sample())
            self._stop.wait(max(0.0, began + SAMPLE_SECONDS - time.monotonic()))

    def _sample(self) -> Sample:
        clients = half_open = drops = packets = 0
        for host in self.gateways:
            init = init_of(host)
            if init is None:
                continue
            for one in daemons(init):
                with contextlib.suppress(OSError, ValueError):
                    self._daemons[one, started(one)] = cpu(one)
            for path in sorted(Path(f"/proc/{init}/root/run/openvpn-server").glob("*.sock")):
                names = sessions(path)
                clients += len(names)
                half_open += names.count(UNDEF)
            drops += udp_drops(init)
            packets += received(init, self.network)
        return Sample(
            when=time.monotonic(), clients=clients, half_open=half_open, drops=drops, packets=packets, busy=busy()
        )

    def daemons_cpu(self) -> float:
        """Seconds of processor time of every daemon that was seen, since each began."""
        return sum(self._daemons.values())


def init_of(host: str) -> int | None:
    """The pid of a lab host's first process, or None without power."""
    init = states.require().hosts[host].init
    return init.pid if init is not None and processes.alive(init) else None


def inits(hosts: Iterable[str]) -> list[int]:
    """The pids of the first processes of those lab hosts that have power."""
    known = states.require().hosts
    found = [known[host].init for host in hosts]
    return [init.pid for init in found if init is not None and processes.alive(init)]


def daemons(init: int, *, program: str = "openvpn") -> Iterator[int]:
    """The host's services that run this program."""
    for pid, name in services(init):
        if name == program:
            yield pid


def services(init: int) -> Iterator[tuple[int, str]]:
    """Pid and program of every child of a host's first process."""
    with contextlib.suppress(OSError):
        for word in Path(f"/proc/{init}/task/{init}/children").read_text(encoding="ascii").split():
            with contextlib.suppress(OSError):
                yield int(word), Path(f"/proc/{word}/comm").read_text(encoding="utf-8").strip()


def cpu(pid: int) -> float:
    """Seconds of processor time of a process that has one thread."""
    return cpu_of(Path(f"/proc/{pid}"))


def cpu_of(task: Path) -> float:
    """Seconds of processor time of one thread."""
    return int((task / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9


def started(pid: int) -> int:
    """When a process began, in the kernel's ticks: pids are used again."""
    return int(_stat(pid)[19])


def parent(pid: int) -> int:
    """Who started it."""
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def clients_cpu(sites: Iterable[str]) -> float:
    """Seconds of processor time of all sites' clients since each began."""
    total = 0.0
    for init in inits(sites):
        for pid in daemons(init):
            with contextlib.suppress(OSError):
                total += cpu(pid)
    return total


@dataclass(frozen=True, kw_only=True)
class Census:
    """Every process of the machine: its program, and its seconds of processor time, of all its threads."""

    found: dict[tuple[int, int], tuple[str, float]]

    def spent(self, before: Census) -> dict[str, float]:
        """Seconds by program since then, the most first. Who ended meanwhile is not in it."""
        total: dict[str, float] = {}
        for key, (program, seconds) in self.found.items():
            total[program] = total.get(program, 0.0) + seconds - before.found.get(key, ("", 0.0))[1]
        return dict(sorted(total.items(), key=lambda one: -one[1]))


def census() -> Census:
    """Read it now: the lab's programs and the kernel's threads by name, openvpn told apart by where it runs.

    This process and its children are `the bench`; whatever else this machine runs is `others`.
    """
    own = {os.getpid(), *(pid for pid, _name in tree(os.getpid()))}
    gateways = {one for host in GATEWAYS if (init := init_of(host)) is not None for one in daemons(init)}
    here = Path("/proc/self/ns/pid").stat().st_ino
    found = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            pid = int(path.name)
            with contextlib.suppress(OSError, ValueError):
                program = (path / "comm").read_text(encoding="utf-8", errors="replace").strip().partition("/")[0]
                if program == "openvpn":
                    program = "openvpn of the gateways" if pid in gateways else "openvpn of the sites"
                elif pid in own:
                    program = "the bench"
                elif parent(pid) != KTHREADD and (path / "ns" / "pid").stat().st_ino == here:
                    program = "others"
                seconds = sum(cpu_of(task) for task in (path / "task").iterdir())
                found[pid, started(pid)] = (program, seconds)
    return Census(found=found)


def sessions(path: Path) -> list[str]:
    """The common names of a daemon's sessions; none when it does not answer at once."""
    try:
        with Management(str(path), timeout=ANSWER_SECONDS) as management:
            return [client.common_name for client in management.status().clients]
    except (ManagementError, OSError):
        return []


def udp_drops(init: int) -> int:
    """Packets that found a socket's buffer full, in that host's network, since each socket was opened."""
    try:
        lines = Path(f"/proc/{init}/net/udp").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return 0
    return sum(int(line.split()[-1]) for line in lines)


def received(init: int, interface: str) -> int:
    """Packets that came in by that interface since the host's boot."""
    try:
        lines = Path(f"/proc/{init}/net/dev").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[2]) for line in lines if line.strip().startswith(f"{interface}:")), 0)


def busy() -> float:
    """Seconds of processor time the whole machine has used."""
    words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    ticks = [int(word) for word in words]
    return (sum(ticks) - ticks[3] - ticks[4]) / 100


def memory(host: str) -> dict[str, float]:
    """MB of memory of what runs on a gateway because of us, by program: shared pages are shared out."""
    init = init_of(host)
    found: dict[str, float] = {}
    for pid, name in tree(init) if init is not None else ():
        if name in OURS:
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
                kb = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
                found[name] = found.get(name, 0.0) + kb / 1024
    return found


def tree(pid: int) -> Iterator[tuple[int, str]]:
    """Every process below that one."""
    for child, name in services(pid):
        yield child, name
        yield from tree(child)
