# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of a rollout as a whole: the verdict, who was offline for how long, who is in which wave. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import tame

if TYPE_CHECKING:
    from collections.abc import Mapping

# In the order in which they are counted, with what each means.
STATES: Final = {
    "done": "runs the new generation; the gateway and a packet through the tunnel have shown it",
    "failed": "was changed and did not come up with the new generation in time; it goes back by itself",
    "aborted": "it could not be changed, or the rollout was given up; it runs what it ran before",
    "parked": "its out-of-band link is down, or it is held; it was not changed and is taken up by a later run",
    "waiting": "its turn has not come; it runs what it ran before",
}
# What nobody has to look into.
IN_ORDER: Final = ("done", "waiting")
TITLES: Final = {"keys": "Rotation of keys", "configuration": "Rollout of a configuration"}
EXIT_CODES: Final = {
    0: "all went as planned",
    2: "sites failed",
    3: "halted by a gate, or waits for somebody",
    4: "locked: another rollout is at work, or is not finished",
}
# A site that no wave names is still in the report.
NO_WAVE: Final = "in no wave"

Kind = Literal["good", "mixed", "bad"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`words` is the outcome, `counts` how far it came."""

    kind: Kind
    words: str
    counts: str


@dataclass(frozen=True, kw_only=True)
class Wave:
    """One wave with its sites' entries and the number of sites in each state."""

    facts: Mapping[str, Any]
    sites: Mapping[str, Mapping[str, Any]]
    counts: Mapping[str, int]

    @property
    def name(self) -> str:
        """The wave's name."""
        return str(self.facts["name"])


def completed(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data with what follows from it: the verdict, and the seconds that sites were offline."""
    seen = {site: float(one["seconds"]) for site, one in data["sites"].items() if one["seconds"] is not None}
    worst = max(seen, key=lambda site: seen[site], default="")
    said = verdict(data)
    return {
        **data,
        "verdict": f"{said.words} {said.counts}".rstrip(),
        "offline": {
            "sites": len(seen),
            "median": round(statistics.median(seen.values()), 2) if seen else None,
            "worst": round(seen[worst], 2) if seen else None,
            "worst_site": worst,
        },
    }


def verdict(data: Mapping[str, Any]) -> Verdict:
    """How it ended, in words."""
    total = data["summary"]
    whole = total["done"] == total["total"]
    come = (
        f"{'all' if whole else total['done']} {'' if whole else 'of '}{_sites(total['total'])} run the new generation"
    )
    others = ", ".join(f"{total[state]} {state}" for state in STATES if state != "done" and total[state])
    if data["outcome"] == "finished":
        kind: Kind = "bad" if total["failed"] else "good" if whole else "mixed"
        return Verdict(kind=kind, words=f"Finished: {come}.", counts=f"{others}." if others else "")
    kind = "bad" if data["outcome"] == "halted" or total["failed"] else "mixed"
    counts = f"{come[0].upper()}{come[1:]}{f', {others}' if others else ''}."
    return Verdict(kind=kind, words=_outcome(data), counts=counts)


def waves_of(data: Mapping[str, Any]) -> list[Wave]:
    """The waves in their order."""
    left = dict(data["sites"])
    found = [_wave(one, {site: left.pop(site) for site in one["sites"] if site in left}) for one in data["waves"]]
    return [*found, _wave({"name": NO_WAVE, "state": ""}, left)] if left else found


def tamed(value: Any) -> Any:
    """The same with every text on one line and without anything that a terminal, a browser or XML obeys."""
    if isinstance(value, str):
        return value if value.isprintable() else tame(value)
    if isinstance(value, dict):
        return {tamed(key): tamed(one) for key, one in value.items()}
    return [tamed(one) for one in value] if isinstance(value, list) else value


def _wave(facts: Mapping[str, Any], sites: Mapping[str, Mapping[str, Any]]) -> Wave:
    counts = dict.fromkeys(STATES, 0)
    for one in sites.values():
        counts[one["state"]] += 1
    empty = {"group": "", "began": "", "ended": "", "soak_seconds": 0, "approval": False, "approved_by": ""}
    return Wave(facts={**empty, **facts}, sites=sites, counts=counts)


def _outcome(data: Mapping[str, Any]) -> str:
    if data["outcome"] == "halted" and data["halts"]:
        last = data["halts"][-1]
        return f"Halted by the gate of wave {last['wave']}: {str(last['why']).rstrip('.')}."
    if data["outcome"] == "paused":
        return _paused(data)
    return {
        "halted": "Halted by a gate.",
        "aborted": "Aborted: no further site is changed.",
        "open": "Not finished.",
    }.get(data["outcome"], f"{data['outcome']}.".capitalize())


def _paused(data: Mapping[str, Any]) -> str:
    by = f" by {data['paused_by']}" if data.get("paused_by") else ""
    at = next((one["name"] for one in data["waves"] if one["state"] not in {"done", "passed over"}), "")
    return f"Paused{by}{f' at wave {at}' if at else ''}."


def _sites(number: int) -> str:
    return f"{number} site{'' if number == 1 else 's'}"
