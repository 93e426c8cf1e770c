# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose CPU a benchmark has used: its own, the machine's, or that of itself and the hosts it started alone."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

# Hosts that this program starts belong to its group; the lab moves them only in other hierarchies.
GROUP = Path("/sys/fs/cgroup/cpuacct/spokewright-bench")
# systemd, journald, networkd, sshd: no host is up with fewer.
HOST_PROCESSES = 3


def join_group() -> None:
    """Have the CPU of this program and of all it starts counted apart, where the kernel can."""
    with contextlib.suppress(OSError):
        GROUP.mkdir(exist_ok=True)
        (GROUP / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


def group_holds(*, hosts: int) -> bool:
    """Whether so many hosts belong to the group."""
    try:
        return len((GROUP / "cgroup.procs").read_text(encoding="ascii").split()) > hosts * HOST_PROCESSES
    except OSError:
        return False


def group_cpu() -> float:
    """Seconds of CPU the group has used."""
    return int((GROUP / "cpuacct.usage").read_text(encoding="ascii")) / 1e9


def machine_cpu() -> float:
    """Seconds of CPU the whole machine has used: controller and hosts share it."""
    words = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    idle = int(words[3]) + int(words[4])
    return (sum(map(int, words[:8])) - idle) / os.sysconf("SC_CLK_TCK")


def own_cpu() -> float:
    """Seconds of CPU of this process and its children."""
    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)
