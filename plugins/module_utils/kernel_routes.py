# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a gateway's kernel should hold, what it holds, and the fewest `ip` commands between the two.

Ours are the routes with our protocol number and the tun devices with our alias; nothing else is ever read as ours, so
a route of an operator, of keepalived or of a routing daemon is never removed.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import Any

PROTOCOL = 201
ALIAS = "spokewright"


class KernelRoutesError(Exception):
    """The kernel's state cannot be read or made as wanted; the text says what to do."""


@dataclass(frozen=True, order=True)
class Route:
    """One IPv4 route of the main table."""

    destination: str
    kind: str = "unicast"
    device: str = ""
    gateway: str = ""
    metric: int = 0

    @property
    def key(self) -> tuple[str, int]:
        """What the kernel takes as identity when a route is replaced."""
        return (self.destination, self.metric)

    def words(self) -> str:
        """The route as `ip route` takes it."""
        parts = [self.destination] if self.kind == "unicast" else [self.kind, self.destination]
        if self.gateway:
            parts += ["via", self.gateway]
        if self.device:
            parts += ["dev", self.device]
        if self.device and not self.gateway:
            parts += ["scope", "link"]
        if self.metric:
            parts += ["metric", str(self.metric)]
        return " ".join([*parts, "proto", str(PROTOCOL)])


@dataclass(frozen=True)
class Device:
    """One tun device as the kernel shows it."""

    name: str
    kind: str
    persistent: bool
    up: bool
    alias: str
    mtu: int = 0


@dataclass(frozen=True)
class State:
    """The part of the kernel's state that concerns us."""

    devices: tuple[Device, ...]
    addresses: tuple[str, ...]
    routes: tuple[Route, ...]


@dataclass(frozen=True)
class Wanted:
    """The state a gateway should have; an MTU of 0 leaves the devices' as it is."""

    devices: tuple[str, ...]
    addresses: tuple[str, ...]
    routes: tuple[Route, ...]
    mtu: int = 0


@dataclass(frozen=True)
class Change:
    """The commands that lead from one state to the other, in the order to run them."""

    commands: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]


def network(text: str) -> str:
    """Write a destination the one way the kernel and we agree on."""
    return str(ipaddress.IPv4Network(text))


def parse_links(text: str) -> tuple[Device, ...]:
    """Read `ip -details -json link show`; only what is or claims to be ours matters to the caller."""
    devices = []
    for row in _rows(text, "link"):
        info = row.get("linkinfo", {})
        data = info.get("info_data", {})
        devices.append(
            Device(
                name=str(row.get("ifname", "")),
                kind=str(data.get("type", info.get("info_kind", "other"))),
                persistent=bool(data.get("persist", False)),
                up="UP" in row.get("flags", []),
                alias=str(row.get("ifalias", "")),
                mtu=int(row.get("mtu", 0)),
            )
        )
    return tuple(sorted(devices, key=lambda device: device.name))


def parse_addresses(text: str) -> tuple[str, ...]:
    """Read `ip -json -4 address show dev lo`, without 127.0.0.0/8."""
    found = [
        f"{entry['local']}/{entry['prefixlen']}"
        for row in _rows(text, "address")
        for entry in row.get("addr_info", [])
        if entry.get("family", "inet") == "inet"
    ]
    return tuple(sorted(item for item in found if not item.startswith("127.")))


def parse_routes(text: str) -> tuple[Route, ...]:
    """Read `ip -N -json -4 route show proto 201`."""
    routes = []
    for row in _rows(text, "route"):
        destination = str(row["dst"])
        if destination == "default":
            destination = "0.0.0.0/0"
        routes.append(
            Route(
                destination=network(destination),
                kind=_kind(str(row.get("type", "unicast"))),
                device="" if _kind(str(row.get("type", "unicast"))) != "unicast" else str(row.get("dev", "")),
                gateway=str(row.get("gateway", "")),
                metric=int(row.get("metric", 0)),
            )
        )
    return tuple(sorted(routes))


def _kind(text: str) -> str:
    # `ip -N` prints the type's number instead of its name.
    return {"1": "unicast", "6": "blackhole", "7": "unreachable", "8": "prohibit"}.get(text, text)


def _rows(text: str, what: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads(text or "[]")
    except json.JSONDecodeError as exc:
        raise KernelRoutesError(
            f"ip {what} show: the answer is no JSON ({exc}): {text[:80]!r}. iproute2 4.14 or newer is needed."
        ) from exc
    # Some releases print an empty object for "nothing matches".
    return [row for row in rows if row]


def device_commands(name: str, mtu: int) -> tuple[str, ...]:
    """Make one persistent tun device."""
    return (
        f"tuntap add dev {name} mode tun",
        f"link set dev {name} alias {ALIAS}",
        *((f"link set dev {name} mtu {mtu}",) if mtu else ()),
        f"link set dev {name} up",
    )


def boot_devices(wanted: Wanted) -> tuple[str, ...]:
    """Lines for `ip -force -batch` at boot: the devices."""
    return tuple(line for name in wanted.devices for line in device_commands(name, wanted.mtu))


def boot_routes(wanted: Wanted) -> tuple[str, ...]:
    """Lines for `ip -force -batch` at boot: addresses and routes."""
    return (
        *(f"address replace {address} dev lo" for address in wanted.addresses),
        *(f"route replace {route.words()}" for route in wanted.routes),
    )


def difference(*, wanted: Wanted, found: State, stale_addresses: tuple[str, ...] = ()) -> Change:
    """Compute the fewest commands; a route that is right is not mentioned, so it cannot flap."""
    commands = [*_devices(wanted=wanted, found=found)]
    commands += [f"address replace {item} dev lo" for item in wanted.addresses if item not in found.addresses]
    # A device that is created or set up anew has lost its routes: they are added because they are not found.
    present = set(found.routes)
    commands += [f"route replace {route.words()}" for route in wanted.routes if route not in present]
    # A replaced route keeps its key, so deleting it by its old words would hit nothing or, worse, the new one.
    kept = {route.key for route in wanted.routes}
    commands += [f"route del {route.words()}" for route in found.routes if route.key not in kept]
    commands += [
        f"address del {item} dev lo"
        for item in stale_addresses
        if item in found.addresses and item not in wanted.addresses
    ]
    commands += [
        f"link del dev {device.name}"
        for device in found.devices
        if device.alias == ALIAS and device.name not in wanted.devices
    ]
    return Change(
        commands=tuple(commands),
        before=_show(
            devices={device.name: device.mtu for device in found.devices if device.alias == ALIAS},
            addresses=found.addresses,
            routes=found.routes,
            wanted=wanted,
        ),
        after=_show(
            devices=dict.fromkeys(wanted.devices, wanted.mtu),
            addresses=wanted.addresses,
            routes=wanted.routes,
            wanted=wanted,
        ),
    )


def _devices(*, wanted: Wanted, found: State) -> list[str]:
    by_name = {device.name: device for device in found.devices}
    commands: list[str] = []
    for name in wanted.devices:
        device = by_name.get(name)
        if device is None:
            commands += device_commands(name, wanted.mtu)
            continue
        if device.kind != "tun":
            raise KernelRoutesError(
                f"interface {name} exists and is a {device.kind}, not a tun device. "
                f"Rename it or choose other instance names; a tunnel instance's device carries the instance's name."
            )
        if not device.persistent:
            raise KernelRoutesError(
                f"tun device {name} exists but is not persistent: a running program made it and takes it away when it "
                f"ends. Stop that program (systemctl stop openvpn-server@{name}), then run again."
            )
        if device.alias != ALIAS:
            commands.append(f"link set dev {name} alias {ALIAS}")
        if wanted.mtu and device.mtu != wanted.mtu:
            commands.append(f"link set dev {name} mtu {wanted.mtu}")
        if not device.up:
            commands.append(f"link set dev {name} up")
    return commands


def _show(
    *, devices: dict[str, int], addresses: tuple[str, ...], routes: tuple[Route, ...], wanted: Wanted
) -> tuple[str, ...]:
    ours = [address for address in addresses if address in wanted.addresses]
    return (
        *(f"device {name} mtu {mtu}" if wanted.mtu else f"device {name}" for name, mtu in devices.items()),
        *(f"address {address} dev lo" for address in ours),
        *(f"route {route.words()}" for route in sorted(routes)),
    )
