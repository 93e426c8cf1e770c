# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports as plain text tables for a person at a terminal."""

from __future__ import annotations

import datetime as dt
import typing as t

from ansible_collections.spokewright.fleet.plugins.module_utils.spans import span

AFTER_HELD: t.Final = ("confirmed", "pending", "service", "openvpn")
LEDGER_FIELDS: t.Final = ("seq", "time", "who", "event", "site", "epoch", "reason")


def table(*, head: t.Sequence[str], rows: t.Sequence[t.Sequence[str]]) -> str:
    """Left-aligned columns, two spaces apart."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    return "\n".join(line.rstrip() for line in lines)


def status_table(status: t.Mapping[str, t.Any]) -> str:
    """The report of a look at the fleet."""
    gateways = [
        [
            one["name"],
            ("owner of " + ", ".join(one["vips"])) if one["vips"] else ("standby" if one["reachable"] else "no answer"),
            " ".join(
                f"{instance['name']}:{'no answer' if instance['error'] else instance['sessions']}"
                for instance in one["instances"]
            )
            or "-",
        ]
        for one in status["gateways"]
    ]
    asked = any(one["oob"] != "not asked" for one in status["sites"])
    head = ["SITE", "GROUP", "VERDICT", "ADDRESS", "INSTANCE", "GATEWAY", "FROM", "SINCE"]
    sites = [
        [
            one["id"],
            one["group"],
            one["verdict"],
            one["tunnel_address"],
            one["instance"],
            one["gateway"] or "-",
            one["real_address"] or "-",
            one["since"] or _held_until(one) or _last_seen(one, now=status["time"]),
            *(_own_word(one) if asked else []),
        ]
        for one in status["sites"]
    ]
    parts = [
        table(head=["GATEWAY", "ROLE", "SESSIONS"], rows=gateways),
        table(head=head + (["SEEN WITH", "OOB", "RUNS"] if asked else []), rows=sites),
        status_sum(status),
        *(f"problem: {problem}" for problem in status["problems"]),
        *(f"{one['id']}: {one['verdict']}: {one['why']}" for one in status["sites"] if one["verdict"] != "up"),
        *(f"{one['id']}: {oob_line(one)}" for one in status["sites"] if one["oob_reason"]),
    ]
    return "\n\n".join(parts[:3]) + "".join(f"\n{line}" for line in parts[3:])


def status_sum(status: t.Mapping[str, t.Any]) -> str:
    """How many sites are up, and what the others are."""
    summary = status["summary"]
    but = [
        f"{summary[key]} {key.replace('_', ' ')}"
        for key in summary
        if summary[key] and key not in {"total", "up", "well"} and not key.startswith("oob_")
    ]
    if summary["oob_down"]:
        but.append(f"{summary['oob_down']} out-of-band links down")
    return f"{summary['up']}/{summary['total']} sites up{_but(but)}"


def oob_line(site: t.Mapping[str, t.Any]) -> str:
    """What became of the question to a site."""
    why = _plain(site["oob_why"].removeprefix(f"{site['id']}: "))
    return f"out-of-band link {site['oob']}: {site['oob_reason']}: {why}"


def _held_until(site: t.Mapping[str, t.Any]) -> str:
    return f"held until {site['held_until']}" if site.get("held_until") else ""


def _last_seen(site: t.Mapping[str, t.Any], *, now: str) -> str:
    if not site["last_seen"]:
        return "-"
    age = dt.datetime.fromisoformat(now) - dt.datetime.fromisoformat(site["last_seen"])
    return f"last seen {span(age.total_seconds())} ago"


def _own_word(site: t.Mapping[str, t.Any]) -> list[str]:
    """What the gateway saw the site with, its link, and what the site itself says it runs."""
    own = [f"{what} {site[f'own_{what}']}" for what in ("generation", "epoch") if site[f"own_{what}"]]
    return [f"epoch {site['epoch']}" if site["epoch"] else "-", site["oob"], ", ".join(own) or "-"]


def plan_table(plan: t.Mapping[str, t.Any]) -> str:
    """The plan: instances, sites with the reason for their place, and the changes against the lock."""
    instances = [
        [one["name"], str(one["port"]), str(one["sites"]), " ".join(one["blocks"]) or "-"] for one in plan["instances"]
    ]
    sites = [
        [
            one["id"],
            one["group"],
            one["tunnel_address"],
            one["instance"],
            str(one["port"]),
            " ".join(one["transports"]),
            " ".join(one["lans"]) or "-",
            one["why"],
        ]
        for one in plan["sites"]
    ]
    changes = [
        f"{one['kind'].replace('-', ' ')}: {one['subject']}: {_arrow(one)} ({one['why']})" for one in plan["changes"]
    ]
    return "\n\n".join(
        [
            table(head=["INSTANCE", "PORT", "SITES", "BLOCKS"], rows=instances),
            table(head=["SITE", "GROUP", "ADDRESS", "INSTANCE", "PORT", "TRANSPORTS", "LANS", "WHY"], rows=sites),
            *([_tombstones(plan["tombstones"])] if plan["tombstones"] else []),
            "\n".join(["Would change in the lock file:", *changes])
            if changes
            else "The lock file is up to date: nothing would change.",
        ]
    )


def _tombstones(stones: t.Sequence[t.Mapping[str, str]]) -> str:
    rows = [[stone["id"], stone["address"], stone["removed"]] for stone in stones]
    return table(head=["REMOVED SITE", "ADDRESS KEPT", "SINCE"], rows=rows)


def _arrow(change: t.Mapping[str, t.Any]) -> str:
    before, after = change["before"], change["after"]
    if change["kind"] == "site-released":
        return f"{before} -> free"
    return f"{before} -> {after}" if before and after else after or f"{before} -> tombstone"


def _but(texts: t.Sequence[str]) -> str:
    return f", {', '.join(texts)}" if texts else ""


def keys_table(report: t.Mapping[str, t.Any]) -> str:
    """The keys of a fleet, by name and fingerprint."""
    rows = [
        [
            one["site"],
            one["group"] or "-",
            str(one["epoch"] or "-"),
            one["kid"] or "-",
            # Enough to tell two keys apart on a screen; `key show` and --format json have the whole.
            one["psk_fingerprint"][:19] or "-",
            one["state"],
            one["issued"] or "-",
            one["since"] or "-",
            "-" if one["age_days"] is None else f"{one['age_days']} d",
        ]
        for one in report["keys"]
    ]
    days = report["crl_days_left"]
    crl = "no revocation list yet" if days is None else f"the revocation list lives for {days} more days"
    without = len(report["without_key"])
    said = f"{len(rows)} keys" if not without else f"{len(rows) - without} keys, {without} sites have none yet"
    head = ["SITE", "GROUP", "EPOCH", "KEY ID", "FINGERPRINT", "STATE", "ISSUED", "SINCE", "AGE"]
    return f"{table(head=head, rows=rows)}\n\n{said}; {crl}{_due(report)}{_rollovers(report)}{_gone(report)}"


def _due(report: t.Mapping[str, t.Any]) -> str:
    """Keys that have become old."""
    parts = [f"{len(report[name])} {name}" for name in ("due", "overdue") if report[name]]
    return f"\n{', '.join(parts)}: run playbooks/rotate_keys.yml" if parts else ""


def _rollovers(report: t.Mapping[str, t.Any]) -> str:
    """A change of the server key or of the CA that is not over."""
    said = {
        "next": "{what}: {serving:.19} serves, {other:.19} is to follow",
        "former": "{what}: {serving:.19} serves, {other:.19} is still let in",
    }
    return "".join(
        f"\n{tame(said[one['phase']].format_map(one))} ({tame(one['reason'])}): go on with {one['playbook']}"
        for one in report["rollovers"]
    )


def _gone(report: t.Mapping[str, t.Any]) -> str:
    """Keys that a look at the registry's sites alone would hide."""
    gone = report["not_in_registry"]
    if not gone:
        return ""
    named = f"{', '.join(gone[:5])}{f' and {len(gone) - 5} more' if len(gone) > 5 else ''}"
    hidden = set(gone) - {one["site"] for one in report["keys"]}
    return f"\nnot in the registry, with keys: {named}{'; --all shows them' if hidden else ''}"


def ledger_table(entries: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    """The ledger's lines, oldest first."""
    rows = [
        [
            # A damaged line is shown as far as it goes; `ledger verify` names it.
            *(tame(str(one.get(field) or "-")) for field in LEDGER_FIELDS),
        ]
        for one in entries
    ]
    return table(head=[field.upper() for field in LEDGER_FIELDS], rows=rows)


def tame(text: str) -> str:
    """On one line, and with nothing in it that a terminal obeys: a reason is whatever somebody typed."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in " ".join(text.split()))


def delivery_table(report: t.Mapping[str, t.Any]) -> str:
    """What a verb did: a status shows every site, anything else only the sites that are not well."""
    everybody = report["verb"] == "status"
    shown = {name: one for name, one in report["sites"].items() if everybody or not one["ok"]}
    if not shown:
        return str(report["said"])
    if everybody:
        head = ["SITE", "HOLDS", "CURRENT", "EPOCH", "CONFIRMED", "PENDING", "SERVICE", "OPENVPN", "SAYS"]
        rows = [
            [name, *_held(one), *(_cell(one.get(field)) for field in AFTER_HELD), _why(one)]
            for name, one in shown.items()
        ]
    else:
        head = ["SITE", "REASON", "MESSAGE"]
        rows = [[name, one["reason"] or "-", _says(one)] for name, one in shown.items()]
    return f"{table(head=head, rows=rows)}\n\n{report['said']}"


def _held(one: t.Mapping[str, t.Any]) -> list[str]:
    """Generations, one that is not whole with a mark; the current one; the epoch of its key."""
    held = one.get("generations", ())
    numbers = " ".join(f"{each['generation']}{'' if each['intact'] else '!'}" for each in held)
    epochs = [each.get("facts", {}).get("epoch") for each in held if each["generation"] == one.get("current")]
    return [_cell(numbers), _cell(one.get("current")), _cell(epochs[0] if epochs else "")]


def _cell(value: object) -> str:
    return str(value) if value else "-"


def _why(one: t.Mapping[str, t.Any]) -> str:
    return _says(one) if one["ok"] else f"{one['reason']}: {_says(one)}"


def _says(one: t.Mapping[str, t.Any]) -> str:
    """A site's message on one line and without control characters: what it says came over the wire."""
    return _plain(one["message"]) or "-"


def _plain(message: object) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(str(message).split()))
