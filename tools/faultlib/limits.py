# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The product with its gateways' limits multiplied: whether those it has are the right ones.

Only the daemons' configurations are changed, on both gateways, and afterwards they are what they were. What the kernel
grants of a larger buffer is its own limit (net.core.rmem_max).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from . import scene, stock
from .storm import Side

if TYPE_CHECKING:
    from .fleet_view import FleetView

KEPT: Final = "/etc/openvpn/server/.bench-kept"
# What `tools/fleet capacity` derives and a daemon has in its configuration, by what it decides in a storm.
KINDS: Final[dict[str, tuple[str, ...]]] = {
    "limits": ("max-clients", "connect-freq", "connect-freq-initial", "rcvbuf", "sndbuf", "hand-window"),
    "keepalive": ("keepalive",),
}
# How many numbers of an option are multiplied: a limiter's second one is its period.
NUMBERS: Final = {"keepalive": 2}


@dataclass(frozen=True, kw_only=True)
class Variation:
    """Which values, and by what."""

    kind: str
    factor: float

    @property
    def name(self) -> str:
        """As a side of the bench is called, and its files."""
        return f"{self.kind}-x{self.factor:g}"


def config(*, text: str, variation: Variation) -> str:
    """A daemon's configuration with its values multiplied; never less than one."""
    lines = []
    for line in text.splitlines():
        words = line.split()
        if words and words[0] in KINDS[variation.kind]:
            count = NUMBERS.get(words[0], 1)
            numbers = [str(max(1, round(int(word) * variation.factor))) for word in words[1 : 1 + count]]
            lines.append(" ".join([words[0], *numbers, *words[1 + count :]]))
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


class Varied(Side):
    """The product with other limits."""

    def __init__(self, *, view: FleetView, wait: float, variation: Variation) -> None:
        super().__init__(view=view, wait=wait)
        self.name = variation.name
        self._variation = variation
        self._instances = sorted(set(view.instances.values()))

    def put(self) -> None:
        """Change the configurations and have the daemons follow, first those that carry nobody."""
        for host in self._hosts():
            scene.must(host, f"mkdir -p {KEPT}")
            for name in self._instances:
                path = f"/etc/openvpn/server/{name}.conf"
                scene.must(host, f"cp -p {path} {KEPT}/")
                text = scene.must(host, f"cat {path}")
                stock.write(host, path, config(text=text, variation=self._variation))
            self._restart(host)

    def take_away(self) -> None:
        """Give the configurations back."""
        scene.mend_all()
        for host in self._hosts():
            scene.must(host, f"[ ! -d {KEPT} ] || {{ cp -p {KEPT}/*.conf /etc/openvpn/server/ && rm -rf {KEPT}; }}")
            self._restart(host)

    def _hosts(self) -> tuple[str, str]:
        owner = scene.wait_owner(self.view, seconds=30)
        return scene.other(owner), owner

    def _restart(self, host: str) -> None:
        scene.must(host, f"systemctl restart {' '.join(self.daemons())}", seconds=120)
