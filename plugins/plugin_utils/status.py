# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of the whole fleet in one report: evidence held against the plan."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import time
import typing as t
from collections import Counter, defaultdict

from ansible_collections.spokewright.fleet.plugins.module_utils.verdict import (
    UP,
    VERDICTS,
    Expected,
    Handshake,
    Session,
    SiteVerdict,
    judge,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import WriteError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.evidence import Evidence, collect, vip_addresses
from ansible_collections.spokewright.fleet.plugins.plugin_utils.holds import HoldNote, holds_file, read_holds
from ansible_collections.spokewright.fleet.plugins.plugin_utils.own_word import OwnWord, ask_sites
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair import holder_problems
from ansible_collections.spokewright.fleet.plugins.plugin_utils.sightings import (
    Sighting,
    read_sightings,
    sightings_file,
    update_sightings,
    write_sightings,
)

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet, Site


ISO: t.Final = "%Y-%m-%dT%H:%M:%SZ"
OOB_UP, OOB_DOWN, OOB_NOT_ASKED = OOB_STATES = ("up", "down", "not asked")

Index = t.Mapping[str, t.Mapping[int, t.Mapping[str, t.Any]]]


def expected_of(site: Site, epochs: t.Mapping[int, t.Mapping[str, t.Any]]) -> Expected:
    """What the plan and the key store's index say of a site, in the verdict's words."""
    return Expected(
        site=site.id,
        tunnel_address=str(site.tunnel_address),
        instance=site.instance,
        keys={str(entry.get("kid")): epoch for epoch, entry in epochs.items()},
        confirmed=max((epoch for epoch, entry in epochs.items() if entry["state"] == "confirmed"), default=0),
        transports=len(site.transports),
    )


def judge_fleet(
    *,
    fleet: Fleet,
    evidence: Evidence,
    sightings: t.Mapping[str, Sighting],
    keys: Index | None = None,
    own: t.Mapping[str, OwnWord] | None = None,
    noted: t.Mapping[str, HoldNote] | None = None,
) -> dict[str, SiteVerdict]:
    """One verdict for each site of the plan, in the plan's order. Without the key store's index no key is judged.

    `sightings` is the memory with this look in it; without any, nothing is judged by what was before. `own` is what the
    sites that were asked say of themselves. `noted` are the holds that this controller knows of: they only explain.
    """
    said = own or {}
    by_site: dict[str, list[Session]] = defaultdict(list)
    for session in evidence.sessions:
        by_site[session.site].append(session)
    found = {
        site.id: judge(
            expected=expected_of(site, (keys or {}).get(site.id, {})),
            sessions=by_site[site.id],
            handshakes=evidence.handshakes,
            seen_before=site.id in sightings,
            last_real_host=sightings[site.id].real_host if site.id in sightings else "",
            starts=sightings[site.id].starts if site.id in sightings else (),
            now=evidence.now,
            own_epoch=said[site.id].epoch if site.id in said else 0,
            held=hold.said if site.id in said and (hold := said[site.id].hold) else "",
        )
        for site in fleet.sites
    }
    for site, one in (noted or {}).items():
        if site in found and found[site].session is None and not (site in said and said[site].up):
            why = f"{found[site].why}; it was held {one.said}, and does not answer out of band"
            found[site] = dataclasses.replace(found[site], why=why)
    return found


def pair_problems(*, fleet: Fleet, evidence: Evidence) -> list[str]:
    """What is wrong with the pair as such, one sentence each; an empty list when all is well."""
    problems = [problem.text for problem in holder_problems(fleet=fleet, evidence=evidence)]
    known = {site.id for site in fleet.sites}
    strangers = sorted({session.site for session in evidence.sessions if session.owner} - known)
    problems += [f"{name} has a session but is not in the registry" for name in strangers]
    # Nobody looks in vain for it, but no playbook would run either.
    return [*problems, *(str(one) for one in fleet.capacity_faults)]


def sites_of(*, fleet: Fleet, groups: t.Sequence[str]) -> list[Site]:
    """The sites of these groups; all of them when no group is named.

    Raises:
        FleetError: a group the plan does not have, or one without a site.
    """
    known = ", ".join(fleet.plan.groups)
    strange = [group for group in dict.fromkeys(groups) if group not in fleet.plan.groups]
    if strange:
        raise FleetError(f"group {', '.join(strange)}: not in the plan {fleet.plan.file}, which has {known}.")
    empty = [group for group in dict.fromkeys(groups) if all(site.group != group for site in fleet.sites)]
    if empty:
        raise FleetError(f"group {', '.join(empty)}: no site of the registry {fleet.plan.registry} is in it.")
    return [site for site in fleet.sites if not groups or site.group in groups]


def report(
    *,
    fleet: Fleet,
    evidence: Evidence,
    verdicts: t.Mapping[str, SiteVerdict],
    sightings: t.Mapping[str, Sighting],
    keys: Index | None = None,
    own: t.Mapping[str, OwnWord] | None = None,
    oob: bool = False,
    groups: t.Sequence[str] = (),
    now: float | None = None,
) -> dict[str, t.Any]:
    """The report as plain data, on the sites of `groups` (none named: all) and the pair.

    `summary.well` is true only when every site is up, every site that was asked answers out of band, and the pair is
    as planned; a held site is neither up nor down, and not well. `own` is what sites say, `oob` whether all were asked.
    """
    sites = sites_of(fleet=fleet, groups=groups)
    counts = Counter(verdicts[site.id].verdict for site in sites)
    rows = [
        _site_row(
            site=site,
            verdict=verdicts[site.id],
            sighting=sightings.get(site.id),
            epochs=(keys or {}).get(site.id, {}),
            own=(own or {}).get(site.id),
            oob=oob,
        )
        for site in sites
    ]
    links = Counter(row["oob"] for row in rows)
    problems = pair_problems(fleet=fleet, evidence=evidence)
    return {
        "fleet": fleet.plan.name,
        "time": _iso(time.time() if now is None else now),
        "groups": list(dict.fromkeys(groups)),
        "summary": {
            "total": len(sites),
            **{verdict.replace(" ", "_"): counts[verdict] for verdict in VERDICTS},
            **{f"oob_{state.replace(' ', '_')}": links[state] for state in OOB_STATES},
            "well": counts[UP] == len(sites) and not problems and (not oob or links[OOB_UP] == len(sites)),
        },
        "problems": problems,
        "vips": list(vip_addresses(fleet)),
        "gateways": [
            {
                "name": one.name,
                "reachable": not one.error,
                "error": one.error,
                "vips": list(one.vips),
                "instances": [dataclasses.asdict(instance) for instance in one.instances],
            }
            for one in evidence.gateways
        ],
        "handshakes": _handshake_rows(evidence.handshakes),
        "sites": rows,
    }


def _handshake_rows(handshakes: t.Sequence[Handshake]) -> list[dict[str, t.Any]]:
    return [dataclasses.asdict(one) for one in handshakes]


def _site_row(
    *,
    site: Site,
    verdict: SiteVerdict,
    sighting: Sighting | None,
    epochs: t.Mapping[int, t.Mapping[str, t.Any]],
    own: OwnWord | None,
    oob: bool,
) -> dict[str, t.Any]:
    hold = own.hold if own else None
    # Who was asked only because it may be held has no column of its own.
    own = own if oob else None
    session = verdict.session
    used = next((one for one in epochs.values() if session and session.kid and one.get("kid") == session.kid), None)
    return {
        "id": site.id,
        "group": site.group,
        "verdict": verdict.verdict,
        "why": verdict.why,
        "tunnel_address": str(site.tunnel_address),
        "instance": site.instance,
        "gateway": session.gateway if session else None,
        "real_address": session.real_address if session else None,
        "seen_address": session.tunnel_address if session else None,
        "seen_instance": session.instance if session else None,
        "epoch": (session.epoch or None) if session else None,
        "kid": (session.kid or None) if session else None,
        "key_issued": _issued(used) if used else None,
        "since": _iso(session.connected_since) if session else None,
        "bytes_received": session.bytes_received if session else None,
        "bytes_sent": session.bytes_sent if session else None,
        "last_seen": _iso(sighting.when) if sighting else None,
        "held_until": hold.until if hold else None,
        "held_by": hold.by if hold else None,
        "held_reason": hold.reason if hold else None,
        "oob": _oob(own),
        "oob_reason": (own.reason or None) if own else None,
        "oob_why": (own.message or None) if own else None,
        "own_generation": (own.generation or None) if own else None,
        "own_epoch": (own.epoch or None) if own else None,
    }


def _issued(entry: t.Mapping[str, t.Any]) -> str:
    return str(entry.get("times", {}).get("issued") or "") or _iso(int(entry["issued"]))


def _oob(own: OwnWord | None) -> str:
    if own is None or not own.asked:
        return OOB_NOT_ASKED
    return OOB_UP if own.up else OOB_DOWN


def _iso(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC).strftime(ISO)


def known_keys(fleet: Fleet) -> Index:
    """What the key store's index knows. A status must be had without it: whoever looks may not be let in."""
    try:
        from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import open_store  # noqa: PLC0415

        return open_store(fleet.plan).index()
    except (ImportError, OSError, FleetError):
        return {}


def look_at_fleet(*, fleet: Fleet, groups: t.Sequence[str] = (), oob: bool = False) -> dict[str, t.Any]:
    """Take one look at the real fleet, remember who was seen, and return the report.

    With `oob` each site of the report is asked as well; without it those alone that this controller knows as held.

    Raises:
        FleetError: a group that there is not.
    """
    sites = [site.id for site in sites_of(fleet=fleet, groups=groups)]
    evidence = collect(fleet=fleet)
    now = time.time()
    noted = read_holds(holds_file(fleet), now=now)
    asked = sites if oob else [site for site in sites if site in noted]
    own = ask_sites(fleet=fleet, sites=asked) if asked else {}
    path = sightings_file(fleet)
    sightings = update_sightings(fleet=fleet, evidence=evidence, sightings=read_sightings(path), now=int(now))
    # A status must be had even where the memory cannot be written (read-only checkout, full disk).
    with contextlib.suppress(OSError, WriteError):
        write_sightings(path, sightings)
    keys = known_keys(fleet)
    verdicts = judge_fleet(fleet=fleet, evidence=evidence, sightings=sightings, keys=keys, own=own, noted=noted)
    return report(
        fleet=fleet,
        evidence=evidence,
        verdicts=verdicts,
        sightings=sightings,
        keys=keys,
        own=own,
        oob=oob,
        groups=groups,
        now=now,
    )
