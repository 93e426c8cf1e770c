# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The answer to "how many sites can my gateways carry", as data for programs and as tables for people."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity import (
    Demand,
    Measured,
    Outlook,
    Values,
    limiter_seconds,
    look_ahead,
    worst,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_run import Trial
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet

    Report = dict[str, Any]

# Measured in the lab on a machine of 2 cores, see docs/capacity.md: for whoever asks before there is a gateway.
REFERENCE: Final = Measured(
    gateway="",
    date="2026-11-27",
    cpu="AMD EPYC, a virtual machine",
    cores=2,
    kernel="6.18",
    openvpn="2.6.14",
    key_type="p256",
    handshakes=50,
    handshake_ms=3.51,
    handshake_wall_ms=28.9,
    handshake_bytes=6109,
    hook_ms=0.8,
    hook_p99_ms=13.2,
    first_packet_ms=0.0234,
    mbit_per_core=908,
    buffer_limit=8388608,
    daemon_kb=11360,
    client_kb=159,
)
# Values as the instances' configurations say them, and what of ours each is.
_IN_FORCE: Final = {
    "max-clients": "max_clients",
    "connect-freq": "connect_freq",
    "connect-freq-initial": "connect_freq_initial",
    "rcvbuf": "socket_buffer",
    "hand-window": "hand_window",
}


def demand_of(*, fleet: Fleet, cores: int, sites: int | None, open_number: bool, link_mbit: float) -> Demand:
    """What is to be carried. With sites or cores of another fleet the number of instances is open again."""
    keepalive = fleet.plan.tunnels.keepalive
    return Demand(
        sites=len(fleet.sites) if sites is None else sites,
        cores=cores,
        instances=0 if open_number else len(fleet.instances),
        link_mbit=link_mbit,
        keepalive=(keepalive.interval, keepalive.timeout) if keepalive.decided else None,
    )


def capacity_report(
    *,
    fleet: Fleet,
    measured: Sequence[Measured],
    demand: Demand,
    trials: Sequence[Trial] = (),
    source: str,
) -> Report:
    """The whole answer as plain data."""
    outlook = look_ahead(measured=worst(list(measured)), demand=demand)
    return {
        "fleet": fleet.plan.name,
        "source": source,
        "measured": [asdict(one) for one in measured],
        "not_measured": {one.gateway: one.why_not for one in trials if one.measured is None},
        "demand": asdict(demand),
        "values": asdict(outlook.values),
        "why": outlook.why,
        "instances_needed": outlook.needed,
        "handshakes_per_second": round(outlook.per_second, 1),
        "flood_share": round(outlook.flood_share, 4),
        "memory_mb": round(outlook.memory_mb, 1),
        "recovery": {
            **{name: round(seconds, 2) for name, seconds in asdict(outlook.recovery).items()},
            "seconds": round(outlook.recovery.seconds, 2),
            "limit": outlook.recovery.limit,
        },
        "differences": [
            *differences(outlook=outlook, trials=trials),
            *_against_plan(fleet=fleet, measured=measured, outlook=outlook),
        ],
    }


def differences(*, outlook: Outlook, trials: Sequence[Trial]) -> list[str]:
    """Where an instance runs with another limit than the measured one, and what that costs."""
    found: list[str] = []
    for trial in trials:
        for name, limits in trial.in_force.items():
            found += [f"{trial.gateway}: {name}: {text}" for text in _differences(limits, outlook=outlook)]
    return found


def _differences(limits: Mapping[str, str], *, outlook: Outlook) -> list[str]:
    values = outlook.values
    wanted = {option: str(getattr(values, name)) for option, name in _IN_FORCE.items()}
    wanted["keepalive"] = f"{values.keepalive_interval} {values.keepalive_timeout}"
    found = []
    for option, value in wanted.items():
        # The two limiters name a period behind their number.
        there = limits.get(option, "0") if option == "keepalive" else limits.get(option, "0").split()[0]
        if there != value:
            found.append(f"{option} is {_off(there, option)}, measured {_off(value, option)}")
    each = math.ceil(outlook.demand.sites / values.instances)
    seconds = limiter_seconds(
        each=each,
        connect_freq=_number(limits.get("connect-freq", "")),
        initial=_number(limits.get("connect-freq-initial", "100 10")),
    )
    if seconds:
        found.append(f"its limits keep the last of {each} sites out for {seconds:g} s when all come at once")
    return found


def _number(words: str) -> int:
    first = words.split(maxsplit=1)[0] if words else "0"
    return int(first) if first.isdigit() else 0


def _off(value: str, option: str) -> str:
    return "off" if value == "0" and option == "connect-freq" else value


def _against_plan(*, fleet: Fleet, measured: Sequence[Measured], outlook: Outlook) -> list[str]:
    cores = {gateway.name: gateway.cores for gateway in fleet.plan.gateways}
    found = [
        f"{one.gateway}: the plan says {cores[one.gateway]} cores, it has {one.cores}"
        for one in measured
        if one.gateway in cores and cores[one.gateway] != one.cores
    ]
    found += [
        f"{one.gateway}: the kernel grants a receive buffer of {one.buffer_limit} bytes, "
        f"{outlook.values.socket_buffer} are wanted: net.core.rmem_max"
        for one in measured
        if one.buffer_limit < outlook.values.socket_buffer
    ]
    if outlook.demand.instances and outlook.needed > outlook.demand.instances:
        found.append(
            f"the plan has {outlook.demand.instances} instances, {outlook.needed} are needed: set "
            "tunnels.instances.count (sites then move to another instance, see docs/registry-and-plan.md)"
        )
    return found


def capacity_table(report: Mapping[str, Any]) -> str:
    """The report for a person at a terminal."""
    parts = [report["source"]]
    if report["measured"]:
        parts.append(_measured_table(report["measured"]))
    parts += [f"{name}: {why}" for name, why in report["not_measured"].items()]
    demand, recovery = report["demand"], report["recovery"]
    link = f", a link of {demand['link_mbit']:g} Mbit/s" if demand["link_mbit"] else ""
    parts.append(
        f"For {demand['sites']} sites on {demand['cores']} cores{link}, all on one gateway "
        f"({report['handshakes_per_second']:g} handshakes a second and core):"
    )
    parts.append(_values_table(Values(**report["values"]), why=report["why"]))
    parts.append(
        f"A full recovery takes {recovery['seconds']:.1f} s, most of it {recovery['limit']}: "
        f"{recovery['detection']:.1f} s until a site notices and begins anew, then {recovery['cpu']:.1f} s of CPU, "
        f"{recovery['link']:.1f} s of link, {recovery['limiter']:.1f} s of limits, at the same time.\n"
        f"Memory of the daemons with all sites connected: {report['memory_mb']:.0f} MB. A flood of first packets as "
        f"large as the limit lets in takes {report['flood_share']:.1%} of a core of each daemon."
    )
    if report["differences"]:
        parts.append("\n".join(f"differs: {one}" for one in report["differences"]))
    return "\n\n".join(parts)


def _measured_table(measured: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        ["date", *(str(one["date"]) for one in measured)],
        ["CPU", *(f"{one['cpu']}, {one['cores']} cores" for one in measured)],
        ["OpenVPN, kernel", *(f"{one['openvpn']}, {one['kernel']}" for one in measured)],
        ["keys", *(f"{one['key_type']}, {one['handshakes']} handshakes" for one in measured)],
        ["CPU of a handshake", *(f"{one['handshake_ms']:.2f} ms" for one in measured)],
        [
            "wait for the judging script",
            *(f"{one['hook_ms']:.2f} ms, 99 %: {one['hook_p99_ms']:.2f} ms" for one in measured),
        ],
        ["CPU of a first packet", *(f"{one['first_packet_ms']:.3f} ms" for one in measured)],
        ["packets of a handshake", *(f"{one['handshake_bytes']} bytes, both ways" for one in measured)],
        ["payload of one core", *(f"{one['mbit_per_core']} Mbit/s" for one in measured)],
        ["receive buffer granted", *(f"{one['buffer_limit']} bytes" for one in measured)],
        ["memory", *(f"{one['daemon_kb']} kB a daemon, {one['client_kb']} kB a site" for one in measured)],
    ]
    return table(head=["MEASURED", *(one["gateway"] or "elsewhere" for one in measured)], rows=rows)


def _values_table(values: Values, *, why: Mapping[str, str]) -> str:
    shown = {
        "instances": str(values.instances),
        "capacity": str(values.capacity),
        "max_clients": str(values.max_clients),
        "connect_freq": f"{values.connect_freq} 1",
        "connect_freq_initial": f"{values.connect_freq_initial} 10",
        "socket_buffer": str(values.socket_buffer),
        "hand_window": str(values.hand_window),
        "keepalive": f"{values.keepalive_interval} {values.keepalive_timeout}",
        "spread": f"{values.spread} s",
        "reconnects_per_second": str(values.reconnects_per_second),
    }
    names = {
        "socket_buffer": "rcvbuf, rmem_max",
        "spread": "spread of retries",
        "reconnects_per_second": "reconnects/s",
    }
    rows = [[names.get(name, name.replace("_", "-")), value, why[name]] for name, value in shown.items()]
    return table(head=["VALUE", "", "BECAUSE"], rows=rows)
