# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of the whole fleet in one report: evidence held against the plan."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import time
import typing as t
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass

from ansible_collections.spokewright.fleet.plugins.module_utils.verdict import (
    UP,
    VERDICTS,
    Expected,
    Handshake,
    Session,
    SiteVerdict,
    judge,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import write_atomic
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.evidence import Evidence, collect
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair import holder_problems

if t.TYPE_CHECKING:
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet, Site


@dataclass(frozen=True)
class Sighting:
    """When a site was last seen up (Unix seconds) and from which address on its transport."""

    when: int
    real_host: str


def sightings_file(fleet: Fleet) -> Path:
    """Where the controller remembers the last sightings: beside the plan, no secret in it, safe to lose."""
    return fleet.plan_file.parent / "state" / f"{fleet.plan.name}.sightings.json"


def read_sightings(path: Path) -> dict[str, Sighting]:
    """Read the memory; a missing or unreadable one only means that nothing is remembered."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {site: Sighting(**entry) for site, entry in data.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_sightings(path: Path, sightings: t.Mapping[str, Sighting]) -> None:
    """Write the memory atomically.

    Raises:
        OSError: the directory cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({site: asdict(one) for site, one in sorted(sightings.items())}, indent=1) + "\n"
    write_atomic(path, text.encode(), mode=0o644)


Index = t.Mapping[str, t.Mapping[int, t.Mapping[str, t.Any]]]


def expected_of(site: Site, epochs: t.Mapping[int, t.Mapping[str, t.Any]]) -> Expected:
    """What the plan and the key store's index say of a site, in the verdict's words."""
    return Expected(
        site=site.id,
        tunnel_address=str(site.tunnel_address),
        instance=site.instance,
        keys={str(entry.get("kid")): epoch for epoch, entry in epochs.items()},
        confirmed=max((epoch for epoch, entry in epochs.items() if entry["state"] == "confirmed"), default=0),
    )


def judge_fleet(
    *, fleet: Fleet, evidence: Evidence, sightings: t.Mapping[str, Sighting], keys: Index | None = None
) -> dict[str, SiteVerdict]:
    """One verdict for each site of the plan, in the plan's order. Without the key store's index no key is judged."""
    by_site: dict[str, list[Session]] = defaultdict(list)
    for session in evidence.sessions:
        by_site[session.site].append(session)
    return {
        site.id: judge(
            expected=expected_of(site, (keys or {}).get(site.id, {})),
            sessions=by_site[site.id],
            handshakes=evidence.handshakes,
            seen_before=site.id in sightings,
            last_real_host=sightings[site.id].real_host if site.id in sightings else "",
        )
        for site in fleet.sites
    }


def update_sightings(
    *, sightings: t.Mapping[str, Sighting], verdicts: t.Mapping[str, SiteVerdict], now: int
) -> dict[str, Sighting]:
    """The memory after this look."""
    fresh = {
        site: Sighting(when=now, real_host=verdict.session.real_address.rpartition(":")[0])
        for site, verdict in verdicts.items()
        if verdict.session is not None
    }
    return {**sightings, **fresh}


def pair_problems(*, fleet: Fleet, evidence: Evidence) -> list[str]:
    """What is wrong with the pair as such, one sentence each; an empty list when all is well."""
    problems = [problem.text for problem in holder_problems(fleet=fleet, evidence=evidence)]
    known = {site.id for site in fleet.sites}
    strangers = sorted({session.site for session in evidence.sessions if session.owner} - known)
    problems += [f"{name} has a session but is not in the registry" for name in strangers]
    return problems


def report(
    *, fleet: Fleet, evidence: Evidence, verdicts: t.Mapping[str, SiteVerdict], sightings: t.Mapping[str, Sighting]
) -> dict[str, t.Any]:
    """The report as plain data; ``summary.well`` is true only when every site is up and the pair is as planned."""
    counts = Counter(verdict.verdict for verdict in verdicts.values())
    problems = pair_problems(fleet=fleet, evidence=evidence)
    total = len(fleet.sites)
    return {
        "fleet": fleet.plan.name,
        "summary": {
            "total": total,
            **{verdict.replace(" ", "_"): counts[verdict] for verdict in VERDICTS},
            "well": counts[UP] == total and not problems,
        },
        "problems": problems,
        "gateways": [
            {
                "name": one.name,
                "reachable": not one.error,
                "error": one.error,
                "vips": list(one.vips),
                "instances": [asdict(instance) for instance in one.instances],
            }
            for one in evidence.gateways
        ],
        "handshakes": _handshake_rows(evidence.handshakes),
        "sites": [
            _site_row(site=site, verdict=verdicts[site.id], sighting=sightings.get(site.id)) for site in fleet.sites
        ],
    }


def _handshake_rows(handshakes: t.Sequence[Handshake]) -> list[dict[str, t.Any]]:
    return [asdict(one) for one in handshakes]


def _site_row(*, site: Site, verdict: SiteVerdict, sighting: Sighting | None) -> dict[str, t.Any]:
    session = verdict.session
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
        "since": _iso(session.connected_since) if session else None,
        "bytes_received": session.bytes_received if session else None,
        "bytes_sent": session.bytes_sent if session else None,
        "last_seen": _iso(sighting.when) if sighting else None,
    }


def _iso(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def known_keys(fleet: Fleet) -> Index:
    """What the key store's index knows. A status must be had without it: whoever looks may not be let in."""
    try:
        from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import open_store  # noqa: PLC0415

        return open_store(fleet.plan).index()
    except (ImportError, OSError, FleetError):
        return {}


def look_at_fleet(*, fleet: Fleet) -> dict[str, t.Any]:
    """Take one look at the real fleet, remember who was seen, and return the report."""
    evidence = collect(fleet=fleet)
    path = sightings_file(fleet)
    before = read_sightings(path)
    verdicts = judge_fleet(fleet=fleet, evidence=evidence, sightings=before, keys=known_keys(fleet))
    after = update_sightings(sightings=before, verdicts=verdicts, now=int(time.time()))
    # A status must be had even where the memory cannot be written (read-only checkout, full disk).
    with contextlib.suppress(OSError):
        write_sightings(path, after)
    return report(fleet=fleet, evidence=evidence, verdicts=verdicts, sightings=after)
