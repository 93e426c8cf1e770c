# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A look at the pair as data for programs and as tables for people."""

from __future__ import annotations

import typing as t

from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair import Pair, bad_checks, judge_pair
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_parity import (
    certificate_days,
    clock_difference,
    compare,
    days_left,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_questions import ask_pair
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import table

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.evidence import GatewayEvidence
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.gateway_program import Said


def look_at_pair(*, fleet: Fleet) -> Pair:
    """Ask both gateways and judge what they say."""
    return judge_pair(fleet=fleet, answers=ask_pair(fleet=fleet))


def pair_report(*, fleet: Fleet, pair: Pair) -> dict[str, t.Any]:
    """The look as plain data; ``well`` is true only when nothing at all is wrong."""
    said = {name: answer for name, answer in pair.answers.items() if not isinstance(answer, str)}
    return {
        "fleet": fleet.plan.name,
        "well": not pair.problems,
        "owner": pair.owner,
        "standby": pair.standby,
        "problems": [{"weight": one.weight, "about": one.about, "text": one.text} for one in pair.problems],
        "gateways": [_gateway(one, pair=pair, answer=said.get(one.name)) for one in pair.evidence.gateways],
        "parity": [
            {"what": one.what, "same": one.same, "values": one.values} for one in (compare(said) if said else [])
        ],
        "clock_difference": round(clock_difference(said), 1) if len(said) > 1 else None,
    }


def _gateway(evidence: GatewayEvidence, *, pair: Pair, answer: Said | None) -> dict[str, t.Any]:
    role = {pair.owner: "owner", pair.standby: "standby"}.get(evidence.name, "unclear") if answer else "no answer"
    found: dict[str, t.Any] = {
        "name": evidence.name,
        "reachable": not evidence.error,
        "role": role,
        "vips": list(evidence.vips),
        "instances": [
            {"name": one.name, "sessions": one.sessions, "error": one.error, "pid": one.pid}
            for one in evidence.instances
        ],
    }
    if answer is None:
        return found
    return {
        **found,
        "keepalived": answer["agent"],
        "score": answer["score"],
        "health": None if answer["health"] is None else bad_checks(answer["health"]),
        "crl_days_left": days_left(crl=answer["crl"]),
        "certificate_days_left": certificate_days(certificates=answer["keys"]["certificates"]),
    }


def pair_table(report: t.Mapping[str, t.Any]) -> str:
    """The report for a person at a terminal."""
    names = [one["name"] for one in report["gateways"]]
    gateways = [
        [
            one["name"],
            one["role"] + (f" of {', '.join(one['vips'])}" if one["vips"] else ""),
            _number(one.get("score")),
            _health(one),
            " ".join(f"{each['name']}:{'no answer' if each['error'] else 'ok'}" for each in one["instances"]) or "-",
            _days(one.get("crl_days_left")),
            _days(one.get("certificate_days_left")),
        ]
        for one in report["gateways"]
    ]
    head = ["GATEWAY", "ROLE", "SCORE", "HEALTH", "INSTANCES", "CRL", "CERTIFICATE"]
    parts = [table(head=head, rows=gateways)]
    if report["parity"]:
        rows = [
            [one["what"], "same" if one["same"] else "DIFFERS", *(one["values"].get(name, "-") for name in names)]
            for one in report["parity"]
        ]
        apart = report["clock_difference"]
        if apart is not None:
            rows.append(["clock", f"{apart:.1f} s apart", *("" for _name in names)])
        parts.append(table(head=["PARITY", "", *names], rows=rows))
    said = "\n".join(f"problem: {one['text']}" for one in report["problems"])
    parts.append(said or f"{report['owner']} holds every address, {report['standby']} is ready to take over.")
    return "\n\n".join(parts)


def _number(score: int | None) -> str:
    return "-" if score is None else str(score)


def _health(one: t.Mapping[str, t.Any]) -> str:
    if one.get("health") is None:
        return "-"
    return "well" if not one["health"] else f"{len(one['health'])} bad"


def _days(days: int | None) -> str:
    return "-" if days is None else f"{days} days"
