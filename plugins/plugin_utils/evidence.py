# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence from the gateway pair: what each tunnel instance says, asked over the out-of-band network."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.spokewright.fleet.plugins.module_utils.management import UNDEF
from ansible_collections.spokewright.fleet.plugins.module_utils.verdict import Handshake, Session
from ansible_collections.spokewright.fleet.plugins.plugin_utils.durations import duration
from ansible_collections.spokewright.fleet.plugins.plugin_utils.gateway_program import Program, ask_gateways

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet

_MODULES = ("icmp_echo", "management", "gateway_look")


@dataclass(frozen=True)
class InstanceEvidence:
    """One tunnel instance of one gateway: it answered (``error`` is empty) or it did not."""

    name: str
    pid: int
    version: str
    sessions: int
    handshakes: int
    error: str


@dataclass(frozen=True)
class GatewayEvidence:
    """One gateway. ``error`` says why it could not be asked; then the rest is empty."""

    name: str
    error: str
    time: float
    vips: tuple[str, ...]
    instances: tuple[InstanceEvidence, ...]
    # What its health daemon says of a storm, in words; empty when there is none.
    storm: str = ""

    @property
    def well(self) -> bool:
        """It was reached and each of its tunnel instances answers."""
        return not self.error and all(not instance.error for instance in self.instances)


@dataclass(frozen=True)
class Evidence:
    """One look at the pair. ``echoes``: tunnel addresses that answered an echo request from the owner."""

    gateways: tuple[GatewayEvidence, ...]
    sessions: tuple[Session, ...]
    handshakes: tuple[Handshake, ...]
    echoes: frozenset[str]

    @property
    def now(self) -> float:
        """The pair's time at the look; 0 when no gateway answered."""
        return max((one.time for one in self.gateways), default=0.0)

    def clock(self, gateway: str) -> float:
        """The gateway's own time at the look, Unix seconds."""
        return next(one.time for one in self.gateways if one.name == gateway)


def vip_addresses(fleet: Fleet) -> tuple[str, ...]:
    """Every virtual address of the pair: the inside one first."""
    return (str(fleet.plan.inside.vip), *(str(transport.vip) for transport in fleet.plan.transports))


def collect(*, fleet: Fleet, echo: t.Sequence[str] = ()) -> Evidence:
    """Ask both gateways at once. A gateway that cannot be asked is part of the answer, never an exception."""
    arguments = {"instances": [instance.name for instance in fleet.instances], "echo": list(echo)}
    program = Program(modules=_MODULES, arguments=arguments)
    answers = ask_gateways(plan=fleet.plan, programs={gateway.name: program for gateway in fleet.plan.gateways})
    return assemble(fleet=fleet, answers=answers)


def assemble(*, fleet: Fleet, answers: t.Mapping[str, dict[str, t.Any] | str]) -> Evidence:
    """Turn each gateway's answer (or the reason why there is none) into evidence."""
    vips = vip_addresses(fleet)
    gateways: list[GatewayEvidence] = []
    sessions: list[Session] = []
    handshakes: list[Handshake] = []
    echoes: set[str] = set()
    for name, answer in answers.items():
        if isinstance(answer, str):
            gateways.append(GatewayEvidence(name=name, error=answer, time=0.0, vips=(), instances=()))
            continue
        held = tuple(vip for vip in vips if vip in answer["addresses"])
        owner = len(held) == len(vips)
        echoes |= set(answer["echoes"]) if owner else set()
        instances = []
        for one in answer["instances"]:
            clients = one.get("clients", [])
            open_, half = _split(
                name=name, owner=owner, instance=one["name"], clients=clients, keys=answer.get("keys", {})
            )
            sessions += open_
            handshakes += half
            instances.append(
                InstanceEvidence(
                    name=one["name"],
                    pid=one.get("pid", 0),
                    version=one.get("version", ""),
                    sessions=len(open_),
                    handshakes=len(half),
                    error=one.get("error", ""),
                )
            )
        gateways.append(
            GatewayEvidence(
                name=name,
                error="",
                time=answer["time"],
                vips=held,
                instances=tuple(instances),
                storm=_storm(answer.get("storm"), now=answer["time"]),
            )
        )
    return Evidence(tuple(gateways), tuple(sessions), tuple(handshakes), frozenset(echoes))


def _storm(said: t.Mapping[str, t.Any] | None, *, now: float) -> str:
    if not said:
        return ""
    signs = ", ".join(str(sign) for sign in said["signs"])
    return f"in a storm for {duration(max(1, now - float(said['since'])))}: {signs}"


def _split(
    *,
    name: str,
    owner: bool,
    instance: str,
    clients: t.Sequence[dict[str, t.Any]],
    keys: t.Mapping[str, tuple[str, int, float]],
) -> tuple[list[Session], list[Handshake]]:
    sessions = [
        Session(
            site=client["common_name"],
            gateway=name,
            owner=owner,
            instance=instance,
            tunnel_address=client["virtual_address"],
            real_address=client["real_address"],
            connected_since=client["connected_since"],
            bytes_received=client["bytes_received"],
            bytes_sent=client["bytes_sent"],
            **_key(keys.get(client["common_name"])),
        )
        for client in clients
        if client["common_name"] != UNDEF
    ]
    handshakes = [
        Handshake(gateway=name, owner=owner, instance=instance, real_address=client["real_address"])
        for client in clients
        if client["common_name"] == UNDEF
    ]
    return sessions, handshakes


def _key(presented: tuple[str, int, float] | None) -> dict[str, t.Any]:
    return {} if presented is None else dict(zip(("kid", "epoch", "presented"), presented, strict=True))
