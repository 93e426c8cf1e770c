# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the pair is whole: the state a fault may be tried in, and has to lead back to."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from . import scene

if TYPE_CHECKING:
    from .fleet_view import FleetView

LOOK = (
    "for unit in keepalived {units}; do echo unit $unit $(systemctl is-active $unit); done;"
    "for unit in $(systemctl --failed --plain --no-legend | cut -d' ' -f1); do echo failed $unit; done;"
    "echo score $(cat /run/spokewright/score)"
)


def problems(view: FleetView) -> list[str]:
    """What is not as it should be, in words; empty when all is well."""
    found: list[str] = []
    try:
        scene.owner(view)
    except scene.SceneError as exc:
        found.append(str(exc))
    units = " ".join(f"openvpn-server@{name}" for name in sorted(set(view.instances.values())))
    for host in scene.GATEWAYS:
        if not scene.running(host):
            found.append(f"{host} has no power")
            continue
        for line in scene.on(host, LOOK.format(units=units)).output.splitlines():
            words = line.split()
            if words[:1] == ["unit"] and words[2:] != ["active"]:
                found.append(f"{host}: {words[1]} is {' '.join(words[2:])}")
            elif words[:1] == ["failed"]:
                found.append(f"{host}: {words[1]} has failed")
            elif words[:1] == ["score"] and words[1:] != ["0"]:
                found.append(f"{host}: its score is {' '.join(words[1:]) or 'not there'}{_why(host)}")
    return found


def _why(host: str) -> str:
    """What the health daemon says of the bad ones."""
    said = scene.on(host, f"cat {scene.HEALTH}")
    try:
        checks = json.loads(said.output)["checks"]
        bad = [f"{one['name']} {one['detail']}" for one in checks if not one["well"]]
    except (ValueError, KeyError, TypeError):
        return ""
    return f" ({'; '.join(bad)})"


def wait_whole(view: FleetView, *, seconds: float = 60) -> None:
    """Wait until the pair is whole."""
    deadline = time.monotonic() + seconds
    while found := problems(view):
        if time.monotonic() > deadline:
            raise scene.SceneError(f"the pair is not whole after {seconds:.0f} s: {'; '.join(found)}")
        time.sleep(0.5)
