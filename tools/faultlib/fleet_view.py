# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of the fleet has to be known to measure it: addresses, out of the plan and the lab's own topology."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lablib import topology

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet


@dataclass(frozen=True, kw_only=True)
class FleetView:
    """Virtual addresses by network, an answering address for each site and its instance, the gateways' MACs."""

    vips: dict[str, str]
    lans: dict[str, str]
    instances: dict[str, str]
    macs: dict[str, dict[str, str]]
    core_address: str

    @property
    def inside_vip(self) -> str:
        """The core's next hop."""
        return self.vips["inside"]

    @property
    def outside_vip(self) -> str:
        """Where the tunnels go: the transport of first choice."""
        return next(vip for network, vip in self.vips.items() if network != "inside")

    def askers(self, *, sites: Sequence[str]) -> list[dict[str, str]]:
        """Who asks for which address: a neighbour on that network."""
        found = []
        for network, vip in self.vips.items():
            host = topology.core() if network == "inside" else topology.site(int(sites[0].removeprefix("site-")))
            nic = host.nic(network)
            found.append({"host": host.name, "interface": nic.network.interface, "sender": nic.address, "wanted": vip})
        return found

    def gateway_of(self, mac: str) -> str:
        """Whose MAC it is."""
        for gateway, macs in self.macs.items():
            if mac in macs.values():
                return gateway
        return mac


def view(*, fleet: Fleet) -> FleetView:
    """Out of the loaded plan, registry and lock of the lab."""
    gateways = [topology.gateway(1), topology.gateway(2)]
    vips = {"inside": str(fleet.plan.inside.vip)}
    vips.update({one.name: str(one.vip) for one in fleet.plan.transports})
    return FleetView(
        vips=vips,
        lans={site.id: site.lans[0].rpartition(".")[0] + ".1" for site in fleet.sites},
        instances={site.id: site.instance for site in fleet.sites},
        macs={host.name: {nic.network.name: nic.mac for nic in host.nics} for host in gateways},
        core_address=topology.core().nic("inside").address,
    )
