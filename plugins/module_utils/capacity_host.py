# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a capacity trial must know of a gateway: what it is, what its instances run with, and whether it is in trouble.

Runs on gateways: standard library only.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
import typing as t
from pathlib import Path

SERVER = Path("/etc/openvpn/server")
HEALTH = Path("/run/spokewright/health.json")
# The health daemon writes its file at least every 5 s; what an ended one has left says nothing of now.
FRESH = 12.0
LEAST_MEMORY_KB = 300 * 1024
# More than any kernel grants: what comes back is its limit.
WANTED_BUFFER = 1 << 30

Options = list[list[str]]


def options(*, text: str) -> Options:
    """The lines of an OpenVPN configuration as words, without comments."""
    return [words for words in (line.split("#")[0].split() for line in text.splitlines()) if words]


def in_force(*, instances: t.Sequence[str], directory: Path = SERVER) -> dict[str, dict[str, str]]:
    """What the configuration of each instance says of its limits; an instance that has none is left out."""
    wanted = ("max-clients", "connect-freq", "connect-freq-initial", "rcvbuf", "keepalive", "hand-window")
    found = {}
    for name in instances:
        path = directory / ("%s.conf" % name)
        if path.is_file():
            lines = options(text=path.read_text(encoding="utf-8", errors="replace"))
            found[name] = {words[0]: " ".join(words[1:]) for words in lines if words[0] in wanted}
    return found


def trouble(*, busiest: float, health: Path = HEALTH) -> list[str]:
    """Why this gateway should be left alone now. ``busiest`` is the load for each core that is accepted."""
    found = []
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0]
    if load > busiest * cores:
        found.append("its load is %.1f on %d cores, more than %.2g for each" % (load, cores, busiest))
    free = _memory_kb("MemAvailable")
    if free is not None and free < LEAST_MEMORY_KB:
        found.append("only %d MB of memory are free, a trial may take %d" % (free // 1024, LEAST_MEMORY_KB // 1024))
    try:
        report = json.loads(health.read_text(encoding="utf-8"))
        stale = time.time() - float(report["time"]) >= FRESH
    except (OSError, ValueError, KeyError, TypeError):
        return found
    if stale:
        return found
    if (report.get("storm") or {}).get("since"):
        found.append("its health daemon sees a storm")
    if report.get("hold_until"):
        found.append("it is giving its addresses away")
    bad = [str(one.get("name")) for one in report.get("checks", []) if one.get("well") is False]
    return found + ["its health daemon says %s is not well" % name for name in bad]


def facts() -> dict[str, t.Any]:
    """What this gateway is made of."""
    return {
        "cpu": _cpu(text=_text(Path("/proc/cpuinfo"))) or os.uname().machine,
        "cores": os.cpu_count() or 1,
        "kernel": os.uname().release,
        "buffer_limit": buffer_limit(),
    }


def buffer_limit() -> int:
    """The largest receive buffer the kernel grants: net.core.rmem_max, which only the first network namespace shows.

    The kernel doubles what is asked for and says the double (socket(7), SO_RCVBUF).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WANTED_BUFFER)
        return one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def _cpu(*, text: str) -> str:
    found = re.search(r"^(?:model name|Model|Hardware|cpu model)\s*:\s*(.+)$", text, re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def _memory_kb(name: str) -> int | None:
    found = re.search(r"^%s:\s*(\d+) kB" % name, _text(Path("/proc/meminfo")), re.MULTILINE)
    return int(found[1]) if found else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
