# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `status` shows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from . import hosts, topology

if TYPE_CHECKING:
    from .state import State

BANNER_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class HostRow:
    """One host as it is now."""

    name: str
    kind: str
    power: str
    ssh: bool
    oob_address: str
    init_pid: int | None
    cuts: dict[str, str]

    @property
    def well(self) -> bool:
        """Running, reachable, no cable cut."""
        return self.power == "on" and self.ssh and not self.cuts


def rows(*, state: State) -> list[HostRow]:
    """Ask every host at once."""

    def one(host: topology.Host) -> HostRow:
        running = hosts.is_running(host=host, state=state)
        entry = state.hosts.get(host.name)
        return HostRow(
            name=host.name,
            kind=host.kind,
            power="on" if running else "off",
            ssh=running and hosts.banner(host.oob_address, seconds=BANNER_SECONDS),
            oob_address=host.oob_address,
            init_pid=entry.init.pid if running and entry and entry.init else None,
            cuts=dict(entry.cuts) if entry else {},
        )

    with ThreadPoolExecutor(max_workers=32) as pool:
        return list(pool.map(one, topology.hosts(sites=state.sites)))


def document(*, state: State, rows: list[HostRow]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "up": True,
        "release": state.release,
        "sites": state.sites,
        "well": all(row.well for row in rows),
        "hosts": [{**asdict(row), "well": row.well} for row in rows],
    }


def table(*, state: State, rows: list[HostRow]) -> str:
    """The same for people."""
    lines = [f"{'HOST':<10} {'POWER':<6} {'SSH':<4} {'OOB':<15} {'INIT':>8}  CUT"]
    for row in rows:
        cuts = " ".join(f"{name}({how})" for name, how in sorted(row.cuts.items())) or "-"
        ssh = "yes" if row.ssh else "no"
        lines.append(f"{row.name:<10} {row.power:<6} {ssh:<4} {row.oob_address:<15} {row.init_pid or '-':>8}  {cuts}")
    well = sum(row.well for row in rows)
    lines.append(f"{well} of {len(rows)} hosts are well ({state.release}, {state.sites} sites).")
    return "\n".join(lines)
