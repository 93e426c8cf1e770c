# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at a gateway, taken on the gateway: addresses, tunnel instances, their sessions, echoes through them.

Runs on gateways: standard library only. The answer is plain data (JSON), so that it travels as one line.
"""

from __future__ import annotations

import json
import subprocess
import time
import typing as t
from dataclasses import asdict
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.module_utils.icmp_echo import answering
from ansible_collections.spokewright.fleet.plugins.module_utils.management import Management, ManagementError

SOCKET_DIRECTORY = "/run/openvpn-server"
HEALTH = "/run/spokewright/health.json"
FRESH = 12.0


def look(*, instances: t.Sequence[str], echo: t.Sequence[str] = (), echo_seconds: float = 1.5) -> dict[str, t.Any]:
    """Look once.

    Args:
        instances: the tunnel instances that should run here.
        echo: tunnel addresses to send an echo request to.
        echo_seconds: how long to wait for the answers.

    Returns:
        ``{"time": float, "addresses": [str], "instances": [{"name", "pid", "version", "clients": [...]} or {"name",
        "error"}], "keys": {SITE: [KEY ID, EPOCH, UNIX TIME]}, "echoes": [str], "storm": {...} or None}``
    """
    return {
        "time": time.time(),
        "addresses": _addresses(),
        "instances": [_instance(name) for name in instances],
        "keys": presented(),
        "echoes": answering(addresses=echo, seconds=echo_seconds) if echo else [],
        "storm": storm(now=time.time()),
    }


def storm(*, now: float, path: Path = Path(HEALTH)) -> dict[str, t.Any] | None:
    """The storm that the health daemon sees now, if it does."""
    try:
        health = json.loads(path.read_text(encoding="utf-8"))
        found: dict[str, t.Any] = health["storm"]
        return found if found["since"] is not None and now - float(health["time"]) < FRESH else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def presented(directory: Path = Path(SOCKET_DIRECTORY)) -> dict[str, tuple[str, int, float]]:
    """Which key each site last came with, as the verify script wrote it down, and when."""
    found: dict[str, tuple[str, int, float]] = {}
    for path in directory.glob("*.kid"):
        try:
            kid, epoch = path.read_text(encoding="ascii").split()
            found[path.stem] = kid, int(epoch), path.stat().st_mtime
        except (OSError, ValueError):
            # It is being written at this moment: the next look has it.
            continue
    return found


def _addresses() -> list[str]:
    # Not run_command: this is a program of its own on the gateway, there is no module around it.
    # pylint: disable-next=ansible-bad-function
    done = subprocess.run(["ip", "-4", "-o", "address", "show"], stdout=subprocess.PIPE, text=True, check=True)
    words = [line.split() for line in done.stdout.splitlines()]
    # An address on the loopback device is on no network: a gateway that has just lost its virtual addresses keeps them
    # there for a moment, to tell its sites.
    return sorted({line[3].partition("/")[0] for line in words if len(line) > 3 and line[1] != "lo"})


def _instance(name: str) -> dict[str, t.Any]:
    try:
        with Management("%s/%s.sock" % (SOCKET_DIRECTORY, name)) as daemon:
            pid = daemon.pid()
            status = daemon.status()
    except (ManagementError, ValueError) as exc:
        return {"name": name, "error": str(exc)}
    return {
        "name": name,
        "pid": pid,
        "version": status.version,
        "clients": [asdict(client) for client in status.clients],
    }
