# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each gateway of a pair is asked: addresses to look for on each network, and the words that differ by plan."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.spokewright.fleet.plugins.plugin_utils.gateway_program import Program, Said, ask_gateways

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Gateway, Nic, Plan

_MODULES = ("icmp_echo", "management", "gateway_look", "arp_question", "pair_look")


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network with a virtual address. ``first``: losing it alone moves the pair."""

    name: str
    vip: str
    vrrp_id: int
    first: bool


def networks(plan: Plan) -> tuple[Network, ...]:
    """Inside first, then the transports in their order."""
    inside = Network(name="inside", vip=str(plan.inside.vip), vrrp_id=plan.inside.vrrp_id, first=True)
    transports = (
        Network(name=one.name, vip=str(one.vip), vrrp_id=one.vrrp_id, first=number == 0)
        for number, one in enumerate(plan.transports)
    )
    return (inside, *transports)


def nic(gateway: Gateway, network: str) -> Nic:
    """A gateway's interface on a network."""
    return {"inside": gateway.inside, **gateway.transports}[network]


def ask_pair(*, fleet: Fleet) -> dict[str, Said | str]:
    """Take a thorough look at both gateways at once."""
    plan = fleet.plan
    return ask_gateways(
        plan=plan,
        programs={
            gateway.name: Program(
                modules=_MODULES,
                arguments={
                    "instances": [instance.name for instance in fleet.instances],
                    "questions": questions(plan=plan, gateway=gateway),
                    "words": words(plan=plan, gateway=gateway),
                },
            )
            for gateway in plan.gateways
        },
    )


def questions(*, plan: Plan, gateway: Gateway) -> list[dict[str, str]]:
    """Whom this gateway asks for what: every virtual address, on its own network."""
    return [
        {
            "interface": nic(gateway, one.name).interface,
            "sender": str(nic(gateway, one.name).address),
            "address": one.vip,
        }
        for one in networks(plan)
    ]


def words(*, plan: Plan, gateway: Gateway) -> dict[str, str]:
    """The words in which this gateway's files differ from the other's by plan, each with a word common to both."""
    own = _facts(gateway)
    (peer,) = (_facts(one) for one in plan.gateways if one.name != gateway.name)
    found: dict[str, str] = {}
    for fact, value in own.items():
        if value != peer.get(fact):
            found[value] = f"<own {fact}>"
    for fact, value in peer.items():
        if value != own.get(fact):
            found.setdefault(value, f"<peer's {fact}>")
    return found


def _facts(gateway: Gateway) -> dict[str, str]:
    nics = {"oob": gateway.oob, "inside": gateway.inside, **gateway.transports}
    found = {"name": gateway.name}
    for network, one in nics.items():
        found[f"{network} address"] = str(one.address)
        found[f"{network} interface"] = one.interface
    return found


def planned_members(plan: Plan) -> dict[str, list[str]]:
    """The sync group's members as the plan wants them: VRRP id to the addresses announced."""
    found = {str(one.vrrp_id): [f"{one.vip}/32"] for one in networks(plan)}
    return {**found, str(plan.oob.vrrp_id): [f"169.254.{plan.oob.vrrp_id}.1/32"]}


def common_members(one: t.Mapping[str, t.Sequence[str]], other: t.Mapping[str, t.Sequence[str]]) -> list[str]:
    """The members on which two gateways hear each other."""
    return sorted(number for number in one if number in other and list(one[number]) == list(other[number]))
