# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health daemon's configuration, from the variables of role ha_agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RUN_DIRECTORY: Final = "/run/spokewright"
ADVERTS: Final = 3
SHORTEST: Final = 0.1
# FRR's daemons: zebra, and whichever speaks to the core.
ROUTING: Final = (("zebra",), ("bgpd", "ospfd"))


class HealthPlanError(FleetError):
    """The variables make no configuration."""


def interval(*, advert_seconds: float) -> float:
    """Seconds from one look to the next."""
    return round(max(SHORTEST, ADVERTS * advert_seconds), 3)


def config(
    *,
    gateway: Mapping[str, Any],
    peer: Mapping[str, Any],
    adverts: Sequence[Mapping[str, Any]],
    lease_seconds: float,
    inside: Mapping[str, Any],
    transports: Sequence[Mapping[str, Any]],
    instances: Sequence[str],
    probes: Mapping[str, Any],
    advert_seconds: float,
    priority: int,
    score_file: str,
    penalties: Mapping[str, int],
    instance_patience: float,
    cure_pause: float,
    routing: bool,
    storm: Mapping[str, float],
) -> dict[str, Any]:
    """What `health_config.parse` reads. ``penalties`` has path, further_transport, instance and routing.

    ``storm`` has share, sessions, seconds and drops, see `health_storm`.
    ``peer`` is the other gateway, ``adverts`` where its adverts come from, ``lease_seconds`` 0 without a lease fence.
    """
    _refuse_strangers(probes=probes, transports=transports)
    by_transport = probes.get("transports") or {}
    networks = [
        _network(
            "inside",
            nic=gateway["inside"],
            peer=peer["inside"],
            probes=probes.get("inside") or [],
            weight=penalties["path"],
        ),
        *(
            _network(
                str(transport["name"]),
                nic=gateway["transports"][transport["name"]],
                peer=peer["transports"][transport["name"]],
                probes=by_transport.get(transport["name"]) or [],
                weight=penalties["further_transport" if position else "path"],
                tracked=position == 0,
            )
            for position, transport in enumerate(transports)
        ),
    ]
    vips = [inside["vip"], *(transport["vip"] for transport in transports)]
    return {
        "interval": interval(advert_seconds=float(advert_seconds)),
        "directory": RUN_DIRECTORY,
        "score_file": score_file,
        # A gateway that is bad in every way is still better than none: never down to keepalived's FAULT.
        "floor": 1 - int(priority),
        "vips": [
            {"address": vip, "interface": network["interface"]} for vip, network in zip(vips, networks, strict=True)
        ],
        "peers": [{"address": str(one["address"]), "vrrp_id": int(one["vrrp_id"])} for one in adverts],
        "lease_seconds": lease_seconds,
        "networks": networks,
        "instances": [
            {
                "name": name,
                "device": name,
                "socket": f"/run/openvpn-server/{name}.sock",
                "configuration": f"/etc/openvpn/server/{name}.conf",
                "status": f"/run/openvpn-server/status-{name}.log",
            }
            for name in instances
        ],
        "instance_penalty": int(penalties["instance"]),
        "instance_patience": float(instance_patience),
        "cure_pause": float(cure_pause),
        "routing": [[f"/run/frr/{name}.vty" for name in names] for names in ROUTING] if routing else [],
        "routing_penalty": int(penalties["routing"]),
        "storm_share": float(storm["share"]),
        "storm_sessions": int(storm["sessions"]),
        "storm_seconds": float(storm["seconds"]),
        "storm_drops": float(storm["drops"]),
    }


def _network(
    name: str,
    *,
    nic: Mapping[str, Any],
    peer: Mapping[str, Any],
    probes: Sequence[str],
    weight: int,
    tracked: bool = True,
) -> dict[str, Any]:
    return {
        "name": name,
        "interface": str(nic["interface"]),
        "source": str(nic["address"]),
        "peer": str(peer["address"]),
        "probes": [str(address) for address in probes],
        "penalty": int(weight),
        "tracked": tracked,
    }


def _refuse_strangers(*, probes: Mapping[str, Any], transports: Sequence[Mapping[str, Any]]) -> None:
    names = [str(transport["name"]) for transport in transports]
    wrong = sorted(set(probes) - {"inside", "transports"})
    wrong += [f"transports.{name}" for name in sorted(set(probes.get("transports") or {}) - set(names))]
    if wrong:
        raise HealthPlanError(
            f"ha_agent_probes has {', '.join(wrong)}, which no path is called. "
            f"There are inside and transports.{', transports.'.join(names)}."
        )
