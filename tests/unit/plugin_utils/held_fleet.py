# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small fleet whose sites run the real agent, reached without SSH, and gateways that see whose client runs."""

from __future__ import annotations

import contextlib
import fcntl
import time
from typing import TYPE_CHECKING, Any

from ansible_collections.spokewright.fleet.plugins.plugin_utils import brake, delivery
from ansible_collections.spokewright.fleet.plugins.plugin_utils.evidence import Evidence, assemble
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_types import UnreachableError
from unit.plugin_utils.fleet_files import write_fleet
from unit.plugin_utils.pair_evidence import VIPS, answer, client
from unit.roles.site_agent_support import ONE, settle
from unit.roles.site_hold_support import Held

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import SiteResult


class HeldFleet:
    """``off``: sites that cannot be reached. ``dead``: sites that no gateway ever sees up, whatever they do."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plan = write_fleet(folder)
        self.fleet = load_fleet(plan_file=self.plan)
        self.sites: dict[str, Held] = {}
        for site in self.fleet.sites:
            home = folder / site.id
            home.mkdir()
            self.sites[site.id] = Held(home, "dash")
            settle(self.sites[site.id], ONE)
        self.off: set[str] = set()
        self.dead: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.handshakes = 0
        self.owner = True
        monkeypatch.setattr(brake, "carry_out", self._carry_out)

    @property
    def running(self) -> list[str]:
        """The sites whose client runs."""
        return [name for name, site in self.sites.items() if site.runs]

    def told(self, verb: str) -> list[str]:
        """The sites that were told this, in that order."""
        return [site for word, site in self.asked if word == verb]

    @contextlib.contextmanager
    def locked(self, site: str) -> Iterator[None]:
        """Another run is at work there."""
        with (self.sites[site].base / "state/lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def look(self, *, fleet: Any, echo: Any = ()) -> Evidence:
        """What the gateways say now."""
        up = [site for site in fleet.sites if self.sites[site.id].runs and site.id not in self.dead]
        rows: dict[str, list[dict[str, Any]]] = {"tun0": [], "tun1": []}
        for site in up:
            since = int((self.sites[site.id].home / "active").stat().st_mtime)
            rows[site.instance].append(client(site.id, site.tunnel_address, connected_since=since))
        rows["tun0"] += [client("UNDEF", "", real_address=f"192.0.2.1:{port}") for port in range(self.handshakes)]
        echoes = tuple(site.tunnel_address for site in up if site.tunnel_address in echo)
        gw1 = answer(vips=VIPS if self.owner else [], tun0=rows["tun0"], tun1=rows["tun1"], echoes=echoes)
        standby = answer(vips=[], tun0=[], tun1=[])
        now = time.time()
        return assemble(fleet=fleet, answers={"gw1": {**gw1, "time": now}, "gw2": {**standby, "time": now}})

    def _carry_out(self, *, order: delivery.Order, timeouts: object) -> SiteResult:
        del timeouts
        site = order.target.name
        self.asked.append((order.verb, site))
        if site in self.off:
            raise UnreachableError(f"{site}: nothing answers at {order.target.address}:22 within 6 s.")
        return delivery._dispatch(order=order, ask=self.sites[site].run)
