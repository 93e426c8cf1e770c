# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a gateway pair, and what that forbids."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.spokewright.fleet.plugins.plugin_utils.evidence import Evidence, assemble, vip_addresses
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_parity import parity_problems
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_problem import (
    CONTENT,
    HOLDER,
    NOTICE,
    OWNER,
    PATH,
    PLAN,
    STANDBY,
    Problem,
    Weight,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_questions import (
    common_members,
    networks,
    nic,
    planned_members,
)

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.gateway_program import Said
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_questions import Network

# The health daemon writes its file at least every 5 s.
FRESH_SECONDS: t.Final = 12.0
FAULT: t.Final = -254
# Checks of what runs on the gateway itself; all others are of paths.
MENDABLE: t.Final = ("instance ", "carrier ", "routing")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One look at a pair, judged. ``owner`` is empty unless exactly one gateway holds every virtual address."""

    owner: str
    standby: str
    built: bool
    problems: tuple[Problem, ...]
    evidence: Evidence
    answers: t.Mapping[str, Said | str]


def judge_pair(*, fleet: Fleet, answers: t.Mapping[str, Said | str]) -> Pair:
    """Judge a look at both gateways."""
    evidence = assemble(fleet=fleet, answers=answers)
    owner, standby = _roles(fleet=fleet, evidence=evidence)
    said = {name: answer for name, answer in answers.items() if not isinstance(answer, str)}
    # Before the first run nobody speaks VRRP: that nobody holds an address is as it should be then.
    built = any(answer["agent"] for answer in said.values())
    found = holder_problems(fleet=fleet, evidence=evidence)
    for name, answer in said.items():
        found += _own_problems(name=name, answer=answer, owner=owner, said=said)
        found += _arp_problems(fleet=fleet, name=name, owner=owner, said=said)
    found += _member_problems(fleet=fleet, said=said, owner=owner)
    if len(said) > 1:
        found += parity_problems(said)
    return Pair(
        owner=owner, standby=standby, built=built, problems=tuple(found), evidence=evidence, answers=dict(answers)
    )


def holder_problems(*, fleet: Fleet, evidence: Evidence) -> list[Problem]:
    """What every look at the pair tells: who cannot be asked, who holds what, which instance is silent."""
    found = [Problem(HOLDER, f"{one.name} cannot be asked: {one.error}") for one in evidence.gateways if one.error]
    vips = vip_addresses(fleet)
    owner, _standby = _roles(fleet=fleet, evidence=evidence)
    for gateway in evidence.gateways:
        weight: Weight = OWNER if gateway.name == owner else STANDBY
        found += [
            Problem(weight, f"{gateway.name}: {one.name}: {one.error}", gateway.name)
            for one in gateway.instances
            if one.error
        ]
        if gateway.storm:
            remedy = "If the sites do not come back by themselves, stop groups of them: `tools/fleet hold GROUP`"
            found.append(Problem(NOTICE, f"{gateway.name} is {gateway.storm}. {remedy}", gateway.name))
    for vip in vips:
        holders = [one.name for one in evidence.gateways if vip in one.vips]
        if not holders:
            found.append(Problem(HOLDER, f"nobody holds the VIP {vip}"))
        elif len(holders) > 1:
            found.append(Problem(HOLDER, f"{' and '.join(holders)} both hold the VIP {vip}"))
    holding = [one for one in evidence.gateways if one.vips]
    if len(holding) > 1 and any(len(one.vips) < len(vips) for one in holding):
        found.append(Problem(HOLDER, f"the VIPs are split between {' and '.join(sorted(one.name for one in holding))}"))
    return found


def _roles(*, fleet: Fleet, evidence: Evidence) -> tuple[str, str]:
    vips = vip_addresses(fleet)
    holding = [one for one in evidence.gateways if one.vips]
    if len(holding) != 1 or len(holding[0].vips) != len(vips):
        return "", ""
    others = [one.name for one in evidence.gateways if one is not holding[0]]
    return holding[0].name, others[0] if len(others) == 1 else ""


def _own_problems(*, name: str, answer: Said, owner: str, said: t.Mapping[str, Said]) -> list[Problem]:
    """What a gateway says of itself."""
    weight: Weight = OWNER if name == owner else STANDBY
    if not answer["agent"]:
        return [Problem(HOLDER if name == owner else STANDBY, f"{name}: keepalived does not run", name)]
    found = []
    score, health = answer["score"], answer["health"]
    if score is None:
        found.append(Problem(weight, f"{name}: there is no score in /run/spokewright/score", name))
    elif score < 0:
        other = min((one["score"] or 0 for each, one in said.items() if each != name), default=0)
        text = f"{name}: score {score}{_bad_checks(health)}"
        found.append(Problem(_score_weight(name, answer, owner=owner, other=other), text, name))
    if health is None:
        text = f"{name}: its health daemon has not written /run/spokewright/health.json"
        found.append(Problem(weight, text, name))
    elif answer["time"] - float(health.get("time", 0)) > FRESH_SECONDS:
        age = answer["time"] - float(health.get("time", 0))
        found.append(Problem(weight, f"{name}: its health daemon has said nothing for {age:.0f} s", name))
    elif not score:
        found += [Problem(NOTICE, f"{name}: {one}", name) for one in bad_checks(health)]
    if _holding_off(answer):
        text = f"{name}: is told to give the addresses away (/run/spokewright/hold)"
        found.append(Problem(PATH, text, name))
    return found


def _score_weight(name: str, answer: Said, *, owner: str, other: int) -> Weight:
    """A score below zero at a standby: what a run may mend, what it cannot, and what is no worse than the owner's."""
    if name == owner:
        return OWNER
    score = int(answer["score"])
    if score > FAULT and score >= other:
        # Both alike: what is bad lies outside of both, and moving makes it neither better nor worse.
        return NOTICE
    bad = [str(one["name"]) for one in (answer["health"] or {}).get("checks", []) if not one.get("well", True)]
    return STANDBY if bad and all(one.startswith(MENDABLE) for one in bad) else PATH


def bad_checks(health: t.Mapping[str, t.Any] | None) -> list[str]:
    """The checks of the health daemon that are not well."""
    checks = (health or {}).get("checks", [])
    return [f"{one['name']}: {one.get('detail') or 'bad'}" for one in checks if not one.get("well", True)]


def _bad_checks(health: t.Mapping[str, t.Any] | None) -> str:
    bad = bad_checks(health)
    return f" ({'; '.join(bad)})" if bad else ""


def _holding_off(answer: Said) -> bool:
    try:
        return float(answer["hold"] or 0) > float(answer["time"])
    except ValueError:
        return False


def _arp_problems(*, fleet: Fleet, name: str, owner: str, said: t.Mapping[str, Said]) -> list[Problem]:
    """What a gateway hears on the networks themselves, whatever the other says of itself."""
    if not owner:
        return []
    gateways = {gateway.name: gateway for gateway in fleet.plan.gateways}
    found = []
    for network in networks(fleet.plan):
        where = f"{network.vip} on {network.name}"
        heard = said[name]["arp"].get(network.vip)
        if heard is None:
            weight = _path_weight(network, name=name, owner=owner)
            found.append(Problem(weight, f"{name}: cannot ask for {where}", name))
            continue
        expected = set()
        if name != owner and owner in said:
            expected = {said[owner]["hardware"].get(nic(gateways[owner], network.name).interface, "")}
        strangers = sorted(set(heard) - expected)
        if strangers:
            found.append(
                Problem(HOLDER, f"{name} hears {where} answered by {_who(strangers, said)}, beside the owner {owner}")
            )
        elif expected - set(heard):
            weight = _path_weight(network, name=name, owner=owner)
            found.append(Problem(weight, f"{name} hears no answer for {where}, which {owner} holds", name))
    return found


def _path_weight(network: Network, *, name: str, owner: str) -> Weight:
    if not network.first:
        return NOTICE
    return OWNER if name == owner else PATH


def _who(hardware: t.Sequence[str], said: t.Mapping[str, Said]) -> str:
    known = {address: name for name, answer in said.items() for address in answer["hardware"].values()}
    return ", ".join(f"{one} ({known.get(one, 'neither gateway')})" for one in hardware)


def _member_problems(*, fleet: Fleet, said: t.Mapping[str, Said], owner: str) -> list[Problem]:
    """Whether the two hear each other, now and with the plan on one of them."""
    running = {name: answer["members"] for name, answer in said.items() if answer["agent"] and answer["members"]}
    found = []
    if len(running) > 1:
        one, other = running.values()
        common = common_members(one, other)
        if not common:
            text = f"{' and '.join(running)} announce different addresses on every network: neither hears the other"
            found.append(Problem(HOLDER, text))
        elif one != other:
            differ = sorted({*one, *other} - set(common), key=int)
            text = f"{' and '.join(running)} announce different addresses under VRRP id {', '.join(differ)}"
            found.append(Problem(CONTENT, text))
    if owner in running and not common_members(running[owner], planned_members(fleet.plan)):
        text = (
            f"{fleet.plan.file}: VRRP ids or addresses of every network differ from what {owner} runs with. A standby "
            f"with the new ones would not hear {owner}, and both would hold addresses. Change them in two runs, the "
            "out-of-band network's apart from the others"
        )
        found.append(Problem(PLAN, text))
    return found
