# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which process holds a UDP port of this host.

Runs on gateways: standard library only.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Holder:
    """A process with a UDP socket. ``pid`` is 0 when no process of this host has it, as with a port of the kernel's."""

    pid: int
    program: str


def udp_holders(*, ports: t.Collection[int], proc: Path = PROC) -> dict[int, Holder]:
    """Port -> who holds it, for those of ``ports`` that are taken at any address, of IPv4 or IPv6."""
    sockets = _sockets(ports=ports, proc=proc)
    found = dict.fromkeys(sockets.values(), Holder(pid=0, program="the kernel"))
    if not sockets:
        return {}
    for descriptor in proc.glob("[0-9]*/fd/*"):
        try:
            port = sockets.get(str(descriptor.readlink()))
        except OSError:
            # The process or its descriptor is gone.
            continue
        if port is not None:
            pid = int(descriptor.parts[-3])
            found[port] = Holder(pid=pid, program=_program(pid=pid, proc=proc))
    return found


def _sockets(*, ports: t.Collection[int], proc: Path) -> dict[str, int]:
    """What a descriptor of such a socket links to -> the socket's port."""
    found = {}
    for table in (proc / "net/udp", proc / "net/udp6"):
        # There is no udp6 on a host without IPv6.
        lines = table.read_text(encoding="ascii").splitlines()[1:] if table.is_file() else []
        for fields in (line.split() for line in lines):
            port = int(fields[1].rpartition(":")[2], 16)
            if port in ports:
                found["socket:[%s]" % fields[9]] = port
    return found


def _program(*, pid: int, proc: Path) -> str:
    try:
        return (proc / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "a process that has just ended"
