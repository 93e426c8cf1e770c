# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the roles gateway_routing and ha_agent: templates print, these decide."""

from __future__ import annotations

import typing as t
from dataclasses import asdict, replace

from ansible.errors import AnsibleFilterError

from ansible_collections.spokewright.fleet.plugins.module_utils.kernel_routes import (
    KernelRoutesError,
    Route,
    Wanted,
    boot_devices,
    boot_routes,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils import gateway_routes, health_plan, program, vrrp
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError


def _routes(instances: list[dict[str, t.Any]], **given: t.Any) -> list[dict[str, t.Any]]:
    try:
        # pylint: disable-next=missing-kwoa  # they come with **given, and a missing one is Python's own error
        return [asdict(route) for route in gateway_routes.routes(instances=instances, **given)]
    except gateway_routes.GatewayRoutesError as exc:
        raise AnsibleFilterError(str(exc)) from exc


def _wanted(routes: list[dict[str, t.Any]], devices: list[str], addresses: list[str]) -> Wanted:
    return Wanted(devices=tuple(devices), addresses=tuple(addresses), routes=tuple(Route(**route) for route in routes))


def _boot_devices(devices: list[str], mtu: int) -> str:
    return "".join(f"{line}\n" for line in boot_devices(replace(_wanted([], devices, []), mtu=mtu)))


def _boot_routes(routes: list[dict[str, t.Any]], addresses: list[str]) -> str:
    try:
        return "".join(f"{line}\n" for line in boot_routes(_wanted(routes, [], addresses)))
    except KernelRoutesError as exc:
        raise AnsibleFilterError(str(exc)) from exc


def _loopback_addresses(batch: str) -> list[str]:
    return gateway_routes.loopback_addresses(batch=batch)


def _sysctls(interfaces: list[str], socket_buffer: int) -> dict[str, int]:
    return gateway_routes.sysctls(interfaces=interfaces, socket_buffer=int(socket_buffer))


def _sysctl_differences(wanted: dict[str, int], found: str) -> dict[str, list[str]]:
    return gateway_routes.sysctl_differences(wanted=wanted, found=found)


def _pairs(addresses: dict[str, list[str]]) -> list[str]:
    return gateway_routes.pairs(addresses=addresses)


def _endpoints(transports: dict[str, str], vips: dict[str, str]) -> list[str]:
    return gateway_routes.pairs(addresses={transports[name]: [vip] for name, vip in vips.items()})


def _interfaces(names: list[str], known: dict[str, t.Any]) -> list[str]:
    return gateway_routes.interfaces(names=names, known=known)


def _accept_rules(rules: list[dict[str, t.Any]], known: dict[str, t.Any]) -> list[str]:
    try:
        return gateway_routes.accept_rules(rules=rules, known=known)
    except gateway_routes.GatewayRoutesError as exc:
        raise AnsibleFilterError(str(exc)) from exc


def _transport_interfaces(transports: dict[str, dict[str, str]]) -> dict[str, str]:
    return {name: nic["interface"] for name, nic in transports.items()}


def _peer_addresses(gateway: dict[str, t.Any], peers: list[dict[str, t.Any]]) -> dict[str, list[str]]:
    return gateway_routes.peer_addresses(gateway=gateway, peers=peers)


def _vrrp_members(gateway: dict[str, t.Any], **given: t.Any) -> list[dict[str, t.Any]]:
    try:
        return vrrp.members(gateway=gateway, **given)
    except vrrp.VrrpError as exc:
        raise AnsibleFilterError(str(exc)) from exc


def _vrrp_held_as(member: dict[str, t.Any]) -> str:
    return vrrp.held_as(member=member)


def _vrrp_peers(members: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    return vrrp.peers(members=members)


def _vrrp_routes(routes: list[dict[str, t.Any]]) -> list[str]:
    try:
        return vrrp.virtual_routes(routes=routes)
    except vrrp.VrrpError as exc:
        raise AnsibleFilterError(str(exc)) from exc


def _vrrp_config_vips(text: str) -> list[str]:
    return vrrp.config_vips(text=text)


def _vrrp_vip_differences(own: list[str], peer: list[str]) -> list[str]:
    return vrrp.vip_differences(own=own, peer=peer)


def _vrrp_change(after: str, before: str) -> str:
    return vrrp.change_kind(before=before, after=after)


def _health_config(gateway: dict[str, t.Any], **given: t.Any) -> dict[str, t.Any]:
    try:
        return health_plan.config(gateway=gateway, **given)
    except FleetError as exc:
        raise AnsibleFilterError(str(exc)) from exc


def _program_files(entry: str) -> dict[str, str]:
    try:
        return program.files(entry=entry)
    except FleetError as exc:
        raise AnsibleFilterError(str(exc)) from exc


class FilterModule:
    """Filters for gateways."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Names as used in roles."""
        return {
            "gateway_routes": _routes,
            "gateway_boot_devices": _boot_devices,
            "gateway_boot_routes": _boot_routes,
            "gateway_loopback_addresses": _loopback_addresses,
            "gateway_sysctls": _sysctls,
            "gateway_sysctl_differences": _sysctl_differences,
            "gateway_pairs": _pairs,
            "gateway_endpoints": _endpoints,
            "gateway_interfaces": _interfaces,
            "gateway_accept_rules": _accept_rules,
            "gateway_transport_interfaces": _transport_interfaces,
            "gateway_peer_addresses": _peer_addresses,
            "gateway_health_config": _health_config,
            "gateway_program_files": _program_files,
            "vrrp_members": _vrrp_members,
            "vrrp_held_as": _vrrp_held_as,
            "vrrp_peers": _vrrp_peers,
            "vrrp_routes": _vrrp_routes,
            "vrrp_config_vips": _vrrp_config_vips,
            "vrrp_vip_differences": _vrrp_vip_differences,
            "vrrp_change": _vrrp_change,
        }
