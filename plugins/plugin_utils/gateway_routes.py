# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a fleet's instances and sites to the routes, sysctls and packet filter entries of a gateway."""

from __future__ import annotations

import ipaddress
import typing as t
from collections import Counter

from ansible_collections.spokewright.fleet.plugins.module_utils.kernel_routes import Route

UNREACHABLE_METRIC = 4000


class GatewayRoutesError(Exception):
    """The given instances, sites or networks contradict each other."""


def routes(
    *,
    instances: t.Sequence[t.Mapping[str, t.Any]],
    sites: t.Sequence[t.Mapping[str, t.Any]],
    aggregates: t.Sequence[str],
    core_networks: t.Sequence[str],
    core_next_hop: str,
    inside_network: str,
) -> tuple[Route, ...]:
    """All routes of one gateway, sorted by destination.

    Raises:
        GatewayRoutesError: for a site on an unknown instance, or one destination wanted twice.
    """
    devices = {str(instance["name"]): str(instance["device"]) for instance in instances}
    wanted = [
        Route(destination=_network(block, f"block of instance {instance['name']}"), device=str(instance["device"]))
        for instance in instances
        for block in instance["blocks"]
    ]
    for site in sites:
        device = devices.get(str(site["instance"]))
        if device is None:
            raise GatewayRoutesError(
                f"site {site['id']}: instance {site['instance']!r} is not one of "
                f"{', '.join(sorted(devices)) or 'none'}. "
                f"Load the inventory again; instances and sites must come from one plan."
            )
        wanted += [Route(destination=_network(lan, f"lan of site {site['id']}"), device=device) for lan in site["lans"]]
    wanted += [
        Route(destination=_network(item, "aggregate"), kind="unreachable", metric=UNREACHABLE_METRIC)
        for item in aggregates
        if item
    ]
    for item in core_networks:
        if _network(item, "core network") == inside_network:
            continue
        if not core_next_hop:
            raise GatewayRoutesError(
                f"core network {item} is not the inside network {inside_network}: it needs a next hop. "
                f"Set gateway_routing_core_next_hop (inside.core_next_hop in the plan)."
            )
        wanted.append(Route(destination=_network(item, "core network"), gateway=core_next_hop))
    twice = [key for key, count in Counter(route.key for route in wanted).items() if count > 1]
    if twice:
        raise GatewayRoutesError(
            f"{len(twice)} destinations are wanted twice, first {min(twice)[0]}. "
            f"Two sites, or a site and a block, claim it; one of them is wrong in the registry."
        )
    return tuple(sorted(wanted, key=lambda route: (ipaddress.IPv4Network(route.destination), route.metric)))


def _network(text: str, what: str) -> str:
    try:
        return str(ipaddress.IPv4Network(text))
    except ValueError as exc:
        raise GatewayRoutesError(f"{what}: {text!r} is no IPv4 prefix ({exc}). Write it as ADDRESS/LENGTH.") from exc


def sysctls(*, interfaces: t.Sequence[str], socket_buffer: int) -> dict[str, int]:
    """The kernel settings of a gateway, in the order they are written."""
    wanted = {
        "net.ipv4.ip_forward": 1,
        "net.ipv4.ip_nonlocal_bind": 1,
        "net.ipv4.conf.all.rp_filter": 2,
        "net.ipv4.conf.default.rp_filter": 2,
        "net.ipv4.conf.all.arp_ignore": 1,
        "net.ipv4.conf.all.arp_announce": 2,
        "net.ipv4.conf.all.promote_secondaries": 1,
        "net.ipv4.conf.all.send_redirects": 0,
        "net.ipv4.conf.default.send_redirects": 0,
    }
    # The kernel sends redirects when "all" OR the interface says so: every interface must say no.
    wanted |= {f"net.ipv4.conf.{name}.send_redirects": 0 for name in interfaces}
    return wanted | {"net.core.rmem_max": socket_buffer, "net.core.wmem_max": socket_buffer}


def sysctl_differences(*, wanted: t.Mapping[str, int], found: str) -> dict[str, list[str]]:
    """Compare `sysctl` output (`key = value` lines) with what is wanted.

    Socket buffers are limits: more than wanted is as good. They belong to the machine, not to a container, so the
    caller gets them apart: `machine` holds what only the machine's owner may be able to set.
    """
    present: dict[str, str] = {}
    for line in found.splitlines():
        key, separator, value = line.partition("=")
        if separator:
            present[key.strip()] = value.strip()
    here: list[str] = []
    machine: list[str] = []
    for key, number in wanted.items():
        is_limit = key.startswith("net.core.")
        current = present.get(key)
        if (
            current is not None
            and current.isdigit()
            and (int(current) == number or (is_limit and int(current) > number))
        ):
            continue
        text = f"{key} = {number} (is {'not there' if current is None else current})"
        (machine if is_limit else here).append(text)
    return {"here": here, "machine": machine}


def loopback_addresses(*, batch: str) -> list[str]:
    """Addresses an earlier run gave to the loopback device, read from its boot file."""
    return [
        words[2]
        for words in (line.split() for line in batch.splitlines())
        if words[:2] == ["address", "replace"] and words[3:] == ["dev", "lo"]
    ]


def pairs(*, addresses: t.Mapping[str, t.Sequence[str]]) -> list[str]:
    """`interface . address` elements, from addresses by interface."""
    return [f'"{interface}" . {address}' for interface, found in sorted(addresses.items()) for address in found]


def interfaces(*, names: t.Sequence[str], known: t.Mapping[str, t.Any]) -> list[str]:
    """Interface names, quoted, from roles (`oob`, `inside`, a transport) or plain names."""
    roles = {"oob": known["oob"], "inside": known["inside"], **known["transports"]}
    return [f'"{roles.get(name, name)}"' for name in names]


def accept_rules(*, rules: t.Sequence[t.Mapping[str, t.Any]], known: t.Mapping[str, t.Any]) -> list[str]:
    """Input rules an operator asks for beyond our own.

    Raises:
        GatewayRoutesError: for a rule that says less than interfaces, protocol and ports, or something else.
    """
    found = []
    for position, rule in enumerate(rules, start=1):
        where = f"gateway_routing_accept, rule {position}"
        unknown = sorted(set(rule) - {"interfaces", "protocol", "ports", "sources"})
        if unknown or not rule.get("interfaces") or not rule.get("ports"):
            raise GatewayRoutesError(
                f"{where}: got {', '.join(sorted(rule)) or 'nothing'}; it takes interfaces, protocol, ports and, "
                f"if it is not for everybody, sources."
            )
        protocol = str(rule.get("protocol", "tcp"))
        if protocol not in {"tcp", "udp"}:
            raise GatewayRoutesError(f"{where}: protocol {protocol!r} is neither tcp nor udp.")
        ports = [str(port) for port in rule["ports"]]
        wrong = [port for port in ports if not (port.isdigit() and 0 < int(port) < 65536)]
        if wrong:
            raise GatewayRoutesError(f"{where}: {', '.join(wrong)}: a port is a number from 1 to 65535.")
        sources = [_network(str(source), where) for source in rule.get("sources", [])]
        text = f"iifname {{ {', '.join(interfaces(names=rule['interfaces'], known=known))} }}"
        if sources:
            text += f" ip saddr {{ {', '.join(sources)} }}"
        found.append(f"{text} {protocol} dport {{ {', '.join(ports)} }} accept")
    return found


def peer_addresses(*, gateway: t.Mapping[str, t.Any], peers: t.Sequence[t.Mapping[str, t.Any]]) -> dict[str, list[str]]:
    """Addresses of the other gateways by the interface of this one they are heard on."""
    found: dict[str, list[str]] = {}
    for own, others in (
        (gateway["oob"], [peer["oob"] for peer in peers]),
        (gateway["inside"], [peer["inside"] for peer in peers]),
        *(
            (nic, [peer["transports"][name] for peer in peers if name in peer["transports"]])
            for name, nic in gateway["transports"].items()
        ),
    ):
        found[str(own["interface"])] = [str(other["address"]) for other in others]
    return found
