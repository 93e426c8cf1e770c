# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the health daemon is told: which networks, tunnel instances and routing daemons it judges, and what each weighs.

Runs on gateways: standard library only. The file is read once, at the start; all that is wrong with it is said at once.
"""

from __future__ import annotations

import ipaddress
import json
import typing as t
from dataclasses import dataclass, field

FAULT = -254
"""keepalived takes this score, or less, for a failed gateway, whoever else is left."""


class HealthConfigError(Exception):
    """The configuration cannot be used. The text has one line for each fault."""


@dataclass(frozen=True)
class Address:
    """A virtual address and the interface it is held on."""

    address: str
    interface: str


@dataclass(frozen=True)
class Network:
    """One network of the gateway. ``tracked``: without it a gateway is of no use, and keepalived watches it too."""

    name: str
    interface: str
    source: str
    peer: str
    probes: tuple[str, ...]
    penalty: int
    tracked: bool


@dataclass(frozen=True)
class Instance:
    """One tunnel instance: where it answers, its tun device, the file that names its port, and what it writes."""

    name: str
    device: str
    socket: str
    configuration: str
    status: str


@dataclass(frozen=True)
class Config:
    """The whole file. Seconds are seconds, penalties are positive.

    ``peers`` pairs the other gateway's addresses with VRRP ids. ``lease_seconds`` is 0 without a lease fence.
    """

    interval: float
    directory: str
    score_file: str
    floor: int
    vips: tuple[Address, ...]
    peers: tuple[tuple[str, int], ...]
    lease_seconds: float
    networks: tuple[Network, ...]
    instances: tuple[Instance, ...]
    instance_penalty: int
    instance_patience: float
    cure_pause: float
    routing: tuple[tuple[str, ...], ...]
    routing_penalty: int
    storm_share: float
    storm_sessions: int
    storm_seconds: float
    storm_drops: float


def parse(*, text: str) -> Config:
    """Read the configuration.

    Raises:
        HealthConfigError: it is no JSON object, or fields are missing, unknown, of the wrong type or out of range.
    """
    try:
        data = json.loads(text)
    except ValueError as exc:
        raise HealthConfigError("it is not JSON: %s" % exc) from exc
    reader = _Reader()
    config = _config(reader=reader, data=data)
    if reader.errors:
        raise HealthConfigError("\n".join(reader.errors))
    return config


def _config(*, reader: _Reader, data: t.Any) -> Config:
    top = reader.table(data, where="", known=tuple(Config.__dataclass_fields__))
    config = Config(
        interval=reader.number(top, "interval", 0.1, 30.0),
        directory=reader.path(top, "directory"),
        score_file=reader.path(top, "score_file"),
        floor=int(reader.number(top, "floor", FAULT + 1, -1)),
        vips=tuple(
            Address(address=reader.address(row, "address"), interface=reader.text(row, "interface"))
            for row in reader.rows(top, "vips", known=("address", "interface"))
        ),
        peers=tuple(
            (reader.address(row, "address"), int(reader.number(row, "vrrp_id", 1, 255)))
            for row in reader.rows(top, "peers", known=("address", "vrrp_id"))
        ),
        lease_seconds=reader.number(top, "lease_seconds", 0, 60),
        networks=tuple(
            Network(
                name=reader.text(row, "name"),
                interface=reader.text(row, "interface"),
                source=reader.address(row, "source"),
                peer=reader.address(row, "peer"),
                probes=reader.addresses(row, "probes"),
                penalty=int(reader.number(row, "penalty", 0, 99)),
                tracked=reader.flag(row, "tracked"),
            )
            for row in reader.rows(top, "networks", known=tuple(Network.__dataclass_fields__))
        ),
        instances=tuple(
            Instance(
                name=reader.text(row, "name"),
                device=reader.text(row, "device"),
                socket=reader.path(row, "socket"),
                configuration=reader.path(row, "configuration"),
                status=reader.path(row, "status"),
            )
            for row in reader.rows(top, "instances", known=tuple(Instance.__dataclass_fields__))
        ),
        instance_penalty=int(reader.number(top, "instance_penalty", 0, 99)),
        instance_patience=reader.number(top, "instance_patience", 1, 3600),
        cure_pause=reader.number(top, "cure_pause", 1, 86400),
        routing=tuple(
            reader.paths(row, "routing[%d]" % index) for index, row in enumerate(reader.list(top, "routing"))
        ),
        routing_penalty=int(reader.number(top, "routing_penalty", 0, 99)),
        storm_share=reader.number(top, "storm_share", 0.01, 1),
        storm_sessions=int(reader.number(top, "storm_sessions", 1, 100000)),
        storm_seconds=reader.number(top, "storm_seconds", 10, 3600),
        storm_drops=reader.number(top, "storm_drops", 1, 1000000),
    )
    reader.once("networks", "name", [network.name for network in config.networks])
    reader.once("instances", "name", [instance.name for instance in config.instances])
    return config


Row = t.Mapping[str, t.Any]


@dataclass
class _Reader:
    """Takes fields out of plain data and notes what is wrong with each, so that one look tells all."""

    errors: list[str] = field(default_factory=list)

    def wrong(self, where: str, value: t.Any, want: str) -> None:
        self.errors.append("%s: %s is not %s" % (where or "the file", json.dumps(value), want))

    def table(self, value: t.Any, *, where: str, known: t.Sequence[str]) -> Row:
        """An object with no other fields than these; its own place is remembered for errors within it."""
        if not isinstance(value, dict):
            self.wrong(where, value, "an object")
            # Each missing field of it would only repeat this.
            return _Missing({"": where})
        self.errors += [
            "%s: nobody knows this field; there are %s" % (_join(where, name), ", ".join(known))
            for name in sorted(set(value) - set(known))
        ]
        return {**value, "": where}

    def rows(self, row: Row, name: str, *, known: t.Sequence[str]) -> list[Row]:
        where = _join(row[""], name)
        found = enumerate(self.list(row, name))
        return [self.table(one, where="%s[%d]" % (where, index), known=known) for index, one in found]

    def list(self, row: Row, name: str) -> list[t.Any]:
        value = self._get(row, name, [])
        if isinstance(value, list):
            return value
        self.wrong(_join(row[""], name), value, "a list")
        return []

    def number(self, row: Row, name: str, low: float, high: float) -> float:
        value = self._get(row, name, low)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            self.wrong(_join(row[""], name), value, "a number from %s to %s" % (low, high))
            return low
        return value

    def flag(self, row: Row, name: str) -> bool:
        value = self._get(row, name, instead=False)
        if not isinstance(value, bool):
            self.wrong(_join(row[""], name), value, "true or false")
        return bool(value)

    def text(self, row: Row, name: str) -> str:
        value = self._get(row, name, "-")
        if not isinstance(value, str) or not value or len(value) > 64 or not value.isprintable() or '"' in value:
            self.wrong(_join(row[""], name), value, "a name")
        return str(value)

    def path(self, row: Row, name: str) -> str:
        return self._path(self._get(row, name, "/"), _join(row[""], name))

    def paths(self, value: t.Any, where: str) -> tuple[str, ...]:
        if not isinstance(value, list) or not value:
            self.wrong(where, value, "a list of paths")
            return ()
        return tuple(self._path(one, where) for one in value)

    def address(self, row: Row, name: str) -> str:
        return self._address(self._get(row, name, "0.0.0.0"), _join(row[""], name))  # noqa: S104 - never bound to

    def addresses(self, row: Row, name: str) -> tuple[str, ...]:
        return tuple(self._address(value, _join(row[""], name)) for value in self.list(row, name))

    def once(self, where: str, name: str, values: t.Sequence[str]) -> None:
        repeated = sorted({value for value in values if values.count(value) > 1})
        self.errors += ["%s: the %s %s is there more than once" % (where, name, json.dumps(one)) for one in repeated]

    def _get(self, row: Row, name: str, instead: t.Any) -> t.Any:
        if name in row:
            return row[name]
        if not isinstance(row, _Missing):
            self.errors.append("%s: it is missing" % _join(row[""], name))
        return instead

    def _path(self, value: t.Any, where: str) -> str:
        if not isinstance(value, str) or not value.startswith("/"):
            self.wrong(where, value, "an absolute path")
        return str(value)

    def _address(self, value: t.Any, where: str) -> str:
        try:
            return str(ipaddress.IPv4Address(value if isinstance(value, str) else ""))
        except ValueError:
            self.wrong(where, value, "an IPv4 address")
            return ""


class _Missing(dict[str, t.Any]):
    """What is no object at all."""


def _join(where: str, name: str) -> str:
    return "%s.%s" % (where, name) if where else name
