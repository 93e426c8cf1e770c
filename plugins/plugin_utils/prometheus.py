# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a look at the fleet in Prometheus' text format, version 0.0.4."""

from __future__ import annotations

import datetime as dt
import typing as t
from collections import Counter

from ansible_collections.spokewright.fleet.plugins.module_utils.verdict import VERDICTS

if t.TYPE_CHECKING:
    Report = t.Mapping[str, t.Any]
    # The labels of a sample, and its value.
    Samples = t.Sequence[tuple[t.Mapping[str, str], float]]

PREFIX: t.Final = "spokewright_"


def exposition(report: Report) -> str:
    """Every metric with its HELP and TYPE; one that has no sample at this look is left out."""
    fleet = {"fleet": report["fleet"]}
    families = [*_fleet(report), *_gateways(report), *_sites(report)]
    return "".join(_family(name=name, text=text, samples=samples, common=fleet) for name, text, samples in families)


def _fleet(report: Report) -> list[tuple[str, str, Samples]]:
    return [
        ("look_timestamp_seconds", "When the fleet was looked at, Unix time.", [({}, _unix(report["time"]))]),
        (
            "fleet_well",
            "1 if every site is up and the gateway pair is as planned.",
            [({}, float(report["summary"]["well"]))],
        ),
        ("pair_problems", "How many things are wrong with the gateway pair.", [({}, len(report["problems"]))]),
    ]


def _gateways(report: Report) -> list[tuple[str, str, Samples]]:
    gateways = report["gateways"]
    instances = [
        ({"gateway": one["name"], "instance": each["name"]}, each) for one in gateways for each in one["instances"]
    ]
    return [
        (
            "gateway_reachable",
            "1 if the gateway could be asked.",
            [({"gateway": one["name"]}, float(one["reachable"])) for one in gateways],
        ),
        (
            "vip_held",
            "1 if the gateway holds the virtual address.",
            [
                ({"gateway": one["name"], "vip": vip}, float(vip in one["vips"]))
                for one in gateways
                if one["reachable"]
                for vip in report["vips"]
            ],
        ),
        (
            "instance_up",
            "1 if the tunnel instance answers.",
            [(labels, float(not each["error"])) for labels, each in instances],
        ),
        (
            "instance_sessions",
            "Sessions of the tunnel instance.",
            [(labels, each["sessions"]) for labels, each in instances if not each["error"]],
        ),
        (
            "instance_handshakes",
            "Handshakes of the tunnel instance that run.",
            [(labels, each["handshakes"]) for labels, each in instances if not each["error"]],
        ),
    ]


def _sites(report: Report) -> list[tuple[str, str, Samples]]:
    rows = report["sites"]
    found = Counter((one["group"], one["verdict"]) for one in rows)
    groups = dict.fromkeys(one["group"] for one in rows)

    def each(value: t.Callable[[t.Mapping[str, t.Any]], float | None]) -> Samples:
        valued = [({"site": one["id"], "group": one["group"]}, value(one)) for one in rows]
        return [(labels, number) for labels, number in valued if number is not None]

    return [
        (
            "sites",
            "Sites by group and verdict.",
            [({"group": group, "verdict": verdict}, found[group, verdict]) for group in groups for verdict in VERDICTS],
        ),
        ("site_up", "1 if the site's tunnel is up as planned.", each(lambda one: float(one["verdict"] == "up"))),
        (
            "site_session_start_timestamp_seconds",
            "When the site's session began, Unix time.",
            each(lambda one: _unix(one["since"]) if one["since"] else None),
        ),
        (
            "site_last_seen_timestamp_seconds",
            "When the site was last seen with a session, Unix time.",
            each(lambda one: _unix(one["last_seen"]) if one["last_seen"] else None),
        ),
        (
            "site_key_epoch",
            "Epoch of the key that the gateway saw the site with.",
            each(lambda one: float(one["epoch"]) if one["epoch"] else None),
        ),
        (
            "site_key_age_seconds",
            "Age of the key that the gateway saw the site with.",
            each(lambda one: max(0.0, _unix(report["time"]) - _unix(one["key_issued"])) if one["key_issued"] else None),
        ),
        (
            "site_held_until_timestamp_seconds",
            "When the hold of the site is over, Unix time; only while it is held.",
            each(lambda one: _unix(one["held_until"]) if one["held_until"] else None),
        ),
        (
            "site_oob_up",
            "1 if the site answered over its out-of-band link; only where it was asked.",
            each(lambda one: None if one["oob"] == "not asked" else float(one["oob"] == "up")),
        ),
    ]


def _family(*, name: str, text: str, samples: Samples, common: t.Mapping[str, str]) -> str:
    if not samples:
        return ""
    full = PREFIX + name
    lines = [f"# HELP {full} {text}", f"# TYPE {full} gauge"]
    lines += [f"{full}{{{_labels({**common, **labels})}}} {_number(value)}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: t.Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _unix(iso: str) -> float:
    return dt.datetime.fromisoformat(iso).timestamp()
