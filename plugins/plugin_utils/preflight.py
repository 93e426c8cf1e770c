# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host can be a gateway, from what it says of itself: every fault at once, nothing touched."""

from __future__ import annotations

import typing as t

MINIMUM_FREE_KIB = 50 * 1024


def gateway_problems(
    *,
    gateway: t.Mapping[str, t.Any],
    instances: t.Sequence[t.Mapping[str, t.Any]],
    links: t.Sequence[t.Mapping[str, t.Any]],
    sockets: str,
    free_kib: int,
    cores: int,
    has_tun: bool,
    service_manager: str,
    transports: t.Sequence[t.Mapping[str, t.Any]] = (),
    paths: t.Sequence[t.Mapping[str, t.Any]] = (),
) -> list[str]:
    """Say everything that keeps a host from being this gateway.

    Args:
        gateway: the plan's word: ``name``, ``cores``, and ``{interface, address}`` for oob, inside, each transport.
        instances: the planned tunnel instances with ``name`` and ``port``.
        links: what ``ip -json -4 address show`` printed.
        sockets: what ``ss -Hulnp`` printed.
        free_kib: free space where the configuration lives, in KiB.
        cores: processors the host has.
        has_tun: /dev/net/tun is a character device.
        service_manager: the first process's name.
        transports: the planned transports with ``name`` and ``mtu``.
        paths: what the module path_mtu found, with ``name``, ``address``, ``mtu`` and ``carried``.
    """
    name = gateway["name"]
    problems = []
    if service_manager != "systemd":
        problems.append(f"{name}: process 1 is '{service_manager}', not systemd. A gateway needs systemd.")
    if not has_tun:
        problems.append(
            f"{name}: /dev/net/tun is not a device. Load the module (`modprobe tun`), or give the container the device."
        )
    if free_kib < MINIMUM_FREE_KIB:
        problems.append(
            f"{name}: only {free_kib} KiB free under /etc, {MINIMUM_FREE_KIB} are needed. Make room, then run again."
        )
    if cores < gateway["cores"]:
        problems.append(
            f"{name}: has {cores} cores, the plan says {gateway['cores']}. Correct `gateways.{name}.cores` in the plan."
        )
    nics = {"oob": gateway["oob"], "inside": gateway["inside"], **gateway["transports"]}
    problems += [problem for role, nic in nics.items() if (problem := _nic_problem(name, role, nic, links))]
    problems += [problem for one in transports if (problem := _mtu_problem(name, one, nics, links))]
    problems += [problem for one in paths if (problem := _path_problem(name, one))]
    return problems + [problem for one in instances if (problem := _port_problem(name, one, sockets))]


def _nic_problem(
    name: str, role: str, nic: t.Mapping[str, t.Any], links: t.Sequence[t.Mapping[str, t.Any]]
) -> str | None:
    for link in links:
        if link.get("ifname") == nic["interface"]:
            found = [one.get("local") for one in link.get("addr_info", [])]
            if nic["address"] in found:
                return _carrier_problem(name, role, nic, link)
            has = ", ".join(str(one) for one in found) or "no address"
            return (
                f"{name}: {role}: interface {nic['interface']} has {has}, the plan says {nic['address']}. "
                "Correct the plan or the host's network configuration."
            )
    there = ", ".join(str(link.get("ifname")) for link in links)
    return (
        f"{name}: {role}: there is no interface {nic['interface']} with an IPv4 address (there are: {there}). "
        "Correct the plan or the host's network configuration."
    )


def _carrier_problem(name: str, role: str, nic: t.Mapping[str, t.Any], link: t.Mapping[str, t.Any]) -> str | None:
    if "LOWER_UP" in link.get("flags", []):
        return None
    return (
        f"{name}: {role}: interface {nic['interface']} has no carrier. A gateway that lacks a network cannot stand in "
        "for the other one: mend the cable or the port, then run again."
    )


def _mtu_problem(
    name: str,
    transport: t.Mapping[str, t.Any],
    nics: t.Mapping[str, t.Mapping[str, t.Any]],
    links: t.Sequence[t.Mapping[str, t.Any]],
) -> str | None:
    role, planned = transport["name"], transport["mtu"]
    interface = nics[role]["interface"]
    for link in links:
        if link.get("ifname") == interface and int(link.get("mtu", planned)) < planned:
            return (
                f"{name}: {role}: interface {interface} takes packets of {link['mtu']} bytes, the plan says {planned}. "
                f"Raise the interface's MTU, or write `mtu: {link['mtu']}` at this transport in the plan: all tunnels "
                "are then made to fit."
            )
    return None


def _path_problem(name: str, path: t.Mapping[str, t.Any]) -> str | None:
    if not 0 < path["carried"] < path["mtu"]:
        return None
    carried = path["carried"]
    return (
        f"{name}: {path['name']}: {path['address']} gets packets of {carried} bytes in one piece, the plan says "
        f"{path['mtu']}. Have the provider mend it, or write `mtu: {carried}` at this transport in the plan: all "
        "tunnels are then made to fit."
    )


def paths_to_try(
    *, gateway: t.Mapping[str, t.Any], transports: t.Sequence[t.Mapping[str, t.Any]]
) -> list[dict[str, t.Any]]:
    """One entry for the module path_mtu for each probe of each transport."""
    return [
        {
            "name": transport["name"],
            "interface": gateway["transports"][transport["name"]]["interface"],
            "address": probe,
            "mtu": transport["mtu"],
        }
        for transport in transports
        for probe in transport["probes"]
        if transport["name"] in gateway["transports"]
    ]


def silent_paths(*, gateway: str, paths: t.Sequence[t.Mapping[str, t.Any]]) -> list[str]:
    """Say which probes do not answer: nothing to refuse a run for, which may be there to mend it."""
    return [
        f"{gateway}: {path['name']}: {path['address']} does not answer, so nothing is known of that path. Look whether "
        "the network works; a probe that never answers should not stand in the plan."
        for path in paths
        if path["carried"] == 0
    ]


def _port_problem(name: str, instance: t.Mapping[str, t.Any], sockets: str) -> str | None:
    for line in sockets.splitlines():
        words = line.split()
        # A daemon of ours shows as openvpn; any other owner of the port is in the way.
        if len(words) > 3 and words[3].endswith(f":{instance['port']}") and '"openvpn"' not in line:
            owner = words[-1] if "users:" in words[-1] else "another program"
            return (
                f"{name}: UDP port {instance['port']} of {instance['name']} is taken by {owner} at {words[3]}. "
                "Stop it, or move `tunnels.instances.base_port` in the plan."
            )
    return None
