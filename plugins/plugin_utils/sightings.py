# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller remembers between two looks at the fleet. No secret is in it, and it is safe to lose."""

from __future__ import annotations

import ipaddress
import json
import typing as t
from collections import defaultdict
from dataclasses import dataclass

from ansible_collections.spokewright.fleet.plugins.module_utils.verdict import (
    RECENT_SECONDS,
    Session,
    Start,
    host_of,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import write_atomic

if t.TYPE_CHECKING:
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.evidence import Evidence
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Plan

# Two boxes that throw each other out begin a session every few seconds; as many tell enough.
MOST_STARTS: t.Final = 20


@dataclass(frozen=True)
class Sighting:
    """When a site was last seen with a session (Unix seconds), from where, and how its last sessions began."""

    when: int
    real_host: str
    starts: tuple[Start, ...] = ()


def sightings_file(fleet: Fleet) -> Path:
    """Where the memory is: beside the plan."""
    return fleet.plan_file.parent / "state" / f"{fleet.plan.name}.sightings.json"


def read_sightings(path: Path) -> dict[str, Sighting]:
    """Read the memory; a missing or unreadable one only means that nothing is remembered."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {
            site: Sighting(**{**entry, "starts": tuple(Start(**one) for one in entry.get("starts", ()))})
            for site, entry in data.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_sightings(path: Path, sightings: t.Mapping[str, Sighting]) -> None:
    """Write the memory atomically.

    Raises:
        OSError: the directory cannot be written.
        WriteError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A line for each site: quick to write for many of them, and a person can still read it.
    lines = [f"{json.dumps(site)}: {json.dumps(_entry(one))}" for site, one in sorted(sightings.items())]
    write_atomic(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode(), mode=0o644)


def _entry(sighting: Sighting) -> dict[str, t.Any]:
    return {**vars(sighting), "starts": [vars(start) for start in sighting.starts]}


def update_sightings(
    *, fleet: Fleet, evidence: Evidence, sightings: t.Mapping[str, Sighting], now: int
) -> dict[str, Sighting]:
    """The memory with what this look found: the sessions on the gateway that holds the VIPs."""
    known = {site.id for site in fleet.sites}
    live: dict[str, list[Session]] = defaultdict(list)
    for session in evidence.sessions:
        if session.owner and session.site in known:
            live[session.site].append(session)
    pids = {(one.name, each.name): each.pid for one in evidence.gateways for each in one.instances}
    clock = evidence.now
    after = dict(sightings)
    for site, sessions in live.items():
        sessions.sort(key=lambda one: one.connected_since)
        before = sightings[site].starts if site in sightings else ()
        begun = [_start(session=one, pid=pids[one.gateway, one.instance], plan=fleet.plan) for one in sessions]
        after[site] = Sighting(
            when=now,
            real_host=host_of(sessions[-1].real_address),
            starts=_recent([*before, *_new(begun, before=before)], clock=clock),
        )
    return after


def _start(*, session: Session, pid: int, plan: Plan) -> Start:
    return Start(
        since=session.connected_since,
        real_address=session.real_address,
        daemon=f"{session.gateway} {session.instance} {pid}",
        kid=session.kid,
        transport=_transport(host=host_of(session.real_address), plan=plan),
    )


def _new(begun: t.Sequence[Start], *, before: t.Sequence[Start]) -> list[Start]:
    known = {(one.since, one.real_address, one.daemon) for one in before}
    return [one for one in begun if (one.since, one.real_address, one.daemon) not in known]


def _recent(starts: t.Sequence[Start], *, clock: float) -> tuple[Start, ...]:
    """What can still count, and the one before it, which says whether the first of them began on the same daemon."""
    old = sum(one.since <= clock - RECENT_SECONDS for one in starts)
    return tuple(starts[max(0, old - 1) :][-MOST_STARTS:])


def _transport(*, host: str, plan: Plan) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return ""
    return next((one.name for one in plan.transports if address in one.network), "")
