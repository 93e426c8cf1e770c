# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The members of the gateways' sync group, and what a changed keepalived configuration asks for."""

from __future__ import annotations

import ipaddress
import re
import typing as t

ChangeKind = t.Literal["none", "reload", "restart"]

# What a running keepalived takes over by SIGHUP with no role change; virtual routes as well. Everything else (members,
# addresses, interfaces, process and security settings) gets a restart: adding a member by reload on a master dropped
# the VIPs for 0.36 s.
_RELOADABLE = re.compile(
    r"^(priority|advert_int|vrrp_garp_\w+|garp_\w+|vrrp_higher_prio_send_advert|vrrp_rlimit_rttime|max_auto_priority)\b"
)


_DEVICE = re.compile(r"^[a-z][a-z0-9_-]{0,14}$")


class VrrpError(Exception):
    """The given gateways and networks make no sync group."""


def members(
    *,
    gateway: t.Mapping[str, t.Any],
    peers: t.Sequence[t.Mapping[str, t.Any]],
    inside: t.Mapping[str, t.Any],
    transports: t.Sequence[t.Mapping[str, t.Any]],
    oob: t.Mapping[str, t.Any],
) -> list[dict[str, t.Any]]:
    """One entry per VRRP instance: inside, each transport in order of preference, heartbeat last."""
    found = [_member(name="IN", role="inside", nic=("inside",), gateway=gateway, peers=peers, net=inside)]
    for position, transport in enumerate(transports):
        name = str(transport["name"])
        found.append(
            _member(
                name="OUT" if position == 0 else f"OUT_{re.sub(r'[^A-Za-z0-9]', '_', name).upper()}",
                role=name,
                nic=("transports", name),
                gateway=gateway,
                peers=peers,
                net=transport,
                # A WAN of second choice that loses its cable must not take the pair with it.
                own_carrier=position == 0,
            )
        )
    found.append(_member(name="HB", role="oob", nic=("oob",), gateway=gateway, peers=peers, net=oob, own_carrier=False))
    _refuse_repeats(found, "vrrp_id", "two members with one VRRP id would hear each other's adverts")
    _refuse_repeats(found, "name", "give the transports names that differ in more than punctuation")
    return found


def _member(
    *,
    name: str,
    role: str,
    nic: tuple[str, ...],
    gateway: t.Mapping[str, t.Any],
    peers: t.Sequence[t.Mapping[str, t.Any]],
    net: t.Mapping[str, t.Any],
    own_carrier: bool = True,
) -> dict[str, t.Any]:
    own = _nic(gateway, nic)
    return {
        "name": name,
        "role": role,
        "interface": str(own["interface"]),
        "source": str(own["address"]),
        "peers": [str(_nic(peer, nic)["address"]) for peer in peers],
        "vrrp_id": int(net["vrrp_id"]),
        "vip": str(net.get("vip") or ""),
        # keepalived wants an address in every VRRPv3 member; the heartbeat's stays on the loopback device.
        "token": f"169.254.{int(net['vrrp_id'])}.1",
        "own_carrier": own_carrier,
    }


def _nic(gateway: t.Mapping[str, t.Any], path: tuple[str, ...]) -> t.Mapping[str, t.Any]:
    value: t.Any = gateway
    for key in path:
        try:
            value = value[key]
        except (KeyError, TypeError) as exc:
            raise VrrpError(
                f"gateway {gateway.get('name', '?')}: no interface for {'.'.join(path)}. "
                f"Every gateway needs one on inside, oob and each transport (gateways: in the plan)."
            ) from exc
    return t.cast("t.Mapping[str, t.Any]", value)


def _refuse_repeats(found: t.Sequence[t.Mapping[str, t.Any]], key: str, why: str) -> None:
    seen: dict[t.Any, str] = {}
    for member in found:
        first = seen.setdefault(member[key], str(member["role"]))
        if first != member["role"]:
            raise VrrpError(f"{key} {member[key]} is used by {first} and by {member['role']}: {why}.")


def held_as(*, member: t.Mapping[str, t.Any]) -> str:
    """A virtual address and where it is held, as ``ADDRESS@INTERFACE``."""
    return f"{member['vip']}@{member['interface']}"


def peers(*, members: t.Sequence[t.Mapping[str, t.Any]]) -> list[dict[str, t.Any]]:
    """Where adverts of the other gateway come from, and for which VRRP id."""
    return [{"address": peer, "vrrp_id": member["vrrp_id"]} for member in members for peer in member["peers"]]


def virtual_routes(*, routes: t.Sequence[t.Mapping[str, t.Any]]) -> list[str]:
    """Routes that only the owner has, as keepalived wants them; one without a device is a mark for a routing daemon.

    ``no_track``: a daemon that dies takes its tun device's carrier with it, and that must not fail the whole gateway.

    Raises:
        VrrpError: a prefix or a device is none, or two routes are for one prefix.
    """
    found: dict[str, str] = {}
    wrong = []
    for route in routes:
        prefix, device = str(route.get("prefix", "")), str(route.get("device", ""))
        try:
            network = str(ipaddress.IPv4Network(prefix))
        except ValueError as exc:
            wrong.append(f"{exc}: write prefixes as ADDRESS/LENGTH, without host bits")
            continue
        if device and not _DEVICE.match(device):
            wrong.append(f"{prefix}: {device!r} is no name of a device")
        if network in found:
            wrong.append(f"{prefix} stands there twice")
        found[network] = f"{network} dev {device} no_track" if device else f"unreachable {network} no_track"
    if wrong:
        raise VrrpError(f"virtual routes: {'; '.join(wrong)}.")
    return list(found.values())


def config_vips(*, text: str) -> list[str]:
    """The virtual addresses a keepalived configuration of ours moves; the heartbeat's token is none."""
    found, inside = [], False
    for line in _statements(text):
        if line in ("virtual_ipaddress {", "}"):
            inside = line != "}"
        elif inside and not line.startswith("169.254."):
            found.append(line.split()[0].partition("/")[0])
    return found


def vip_differences(*, own: t.Collection[str], peer: t.Collection[str]) -> list[str]:
    """In words, what one gateway would hold and the other would not."""
    only_own = [f"{vip} only here" for vip in own if vip not in peer]
    return only_own + [f"{vip} only on the other gateway" for vip in peer if vip not in own]


def change_kind(*, before: str, after: str) -> ChangeKind:
    """Say what a running keepalived needs when its configuration goes from one text to the other."""
    old, new = _statements(before), _statements(after)
    if old == new:
        return "none"
    if _structure(old) == _structure(new):
        return "reload"
    return "restart"


def _statements(text: str) -> list[str]:
    lines = (re.split(r"[#!]", line, maxsplit=1)[0].strip() for line in text.splitlines())
    return [" ".join(line.split()) for line in lines if line]


def _structure(statements: t.Sequence[str]) -> list[str]:
    kept, routes = [], False
    for line in statements:
        if line == "virtual_routes {":
            routes = True
        elif routes:
            routes = line != "}"
        elif not _RELOADABLE.match(line):
            kept.append(line)
    return kept
