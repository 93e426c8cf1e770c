# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Storms that bench/storm has measured, and the same ones simulated.

The simulator is told the configuration, how the scene came about (how long the gateways were away, when the addresses
had moved, when a daemon listened again) and what was spent of the processors: for a handshake, for each site besides,
and by others all the time. When the sites are back it has to say by itself.
"""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm import simulate
from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_model import (
    DEFAULT_TIMERS,
    Costs,
    Scene,
    Setup,
    StormError,
    receive_buffer,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import table
from ansible_collections.spokewright.fleet.plugins.plugin_utils.timers import site_timers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_model import Outcome

HEAD: Final = ("CONFIGURATION", "SITES", "SCENE", "MEDIAN", "MODEL", "LAST", "MODEL", "RATIO", "")
OFF: Final = 0.25
# Probes are 100 ms apart: less than two of them was not measured.
RESOLUTION: Final = 0.2
LEAST: Final = 6
# What differs by chance between two runs of the lab differs as well between two of the model: the middle one counts.
SEEDS: Final = (1, 2, 3, 4, 5)
# Sites that answer are probed once a second, so no last packet is older.
PROBES: Final = 1.0
# A verify script costs what Costs has; without one, measured (docs/storm-explained.md).
NO_SCRIPT: Final = 2.84
# What a site's return keeps busy besides the gateway, as bench/storm tells programs apart.
OF_A_SITE: Final = ("openvpn of the sites", "systemd", "systemd-journal", "ksoftirqd")
# Files of before these were kept: a timer of 1 ms starts all clients; the health daemon ends a frozen instance after
# 0.9 s, and 1.6 s later it is up (docs/decisions/0024-a-frozen-instance.md).
SPREAD, REPLACED = 0.1, 2.5
JUNK: Final = 10_000.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One scene that one side went through."""

    side: str
    title: str
    sites: int
    setup: Setup
    scene: Scene
    # When each site was back, sorted; infinite for one that was not, by the end of the looking.
    times: tuple[float, ...]
    waited: float
    # The model's clock starts this much later.
    shift: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A measured scene beside the simulated one."""

    measured: Measured
    outcome: Outcome
    median: float
    last: float
    # When the sites of the middle run were back, sorted.
    times: tuple[float, ...]

    @property
    def ratio(self) -> float | None:
        """Model to measured, of the last site; None where the looking ended before the last site was back."""
        last = self.measured.times[-1]
        return None if math.isinf(last) or last == 0 else self.last / last

    @property
    def tells(self) -> bool:
        """Whether a quarter of it is more than the measurement's own grain: shorter ones can hardly be off."""
        return self.measured.times[-1] * OFF > RESOLUTION

    @property
    def off(self) -> bool:
        """Whether the model is further off than it may be."""
        last = self.measured.times[-1]
        if math.isinf(last):
            return self.last < self.measured.waited * (1 - OFF)
        return abs(self.last - last) > max(OFF * last, RESOLUTION)


def read_measured(folder: Path) -> tuple[list[Measured], list[Path]]:
    """Everything that bench/storm has kept in this directory and below, and the files that say too little.

    Too little is an outage without how long the gateways were away: their boot comes on top of what the scene waits.

    Raises:
        StormError: no such directory, or a file of its kind that cannot be understood.
    """
    if not folder.is_dir():
        raise StormError(
            f"{folder}: no such directory. Name one with files of bench/storm: .cache/bench-storm has them."
        )
    documents, short = [], []
    for path in sorted(folder.rglob("*.json")):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as exc:
            raise StormError(
                f"{path}: not JSON: {exc}. Take the run of bench/storm that wrote it out, or anew."
            ) from exc
        # The probes before a run are kept beside it.
        if isinstance(document, dict) and {"configuration", "scene", "result"} <= document.keys():
            documents.append((path, document))
    costs: dict[Any, dict[str, float]] = {}
    for kind in ("all-start", "clients-restarted"):
        for one in (document for _path, document in documents if document["scene"].get("kind") == kind):
            costs[_which(one)] = costs.get(_which(one), {}) | _costs(one)
    found = []
    for path, document in documents:
        if document["scene"].get("kind") == "outage" and "away" not in document["result"].get("made", {}):
            short.append(path)
            continue
        try:
            found.append(_measured(document, costs=costs.get(_which(document))))
        except (KeyError, TypeError, ValueError) as exc:
            raise StormError(
                f"{path}: {exc!r} in what bench/storm keeps. Take the file out, or measure this scene anew."
            ) from exc
    order = {"ours": 0, "stock": 1, "story": 2}
    return sorted(found, key=lambda one: (one.sites, order.get(one.side, 3), one.side)), short


def compare(measured: Measured) -> Comparison:
    """Simulate what was measured, a few times, and take the middle."""
    outcomes = [
        simulate(setup=measured.setup, scene=measured.scene, seed=seed, horizon=measured.waited + 600) for seed in SEEDS
    ]
    runs = [_times(measured, outcome) for outcome in outcomes]
    lasts = [times[-1] for times in runs]
    middle = sorted(range(len(lasts)), key=lasts.__getitem__)[len(lasts) // 2]
    return Comparison(
        measured=measured,
        outcome=outcomes[middle],
        median=statistics.median(statistics.median(times) for times in runs),
        last=lasts[middle],
        times=tuple(time for time in runs[middle] if time < math.inf),
    )


def calibration_table(these: Sequence[Comparison]) -> str:
    """One line for each measured scene."""
    rows = []
    for one in these:
        ratio = "-" if one.ratio is None else f"{one.ratio:.2f}"
        measured = one.measured
        rows.append(
            [
                measured.side,
                str(measured.sites),
                measured.title,
                _seconds(statistics.median(measured.times), measured.waited),
                _seconds(one.median, math.inf),
                _seconds(measured.times[-1], measured.waited),
                _seconds(one.last, math.inf),
                ratio,
                "OFF" if one.off else "" if one.tells else f"within {RESOLUTION:g} s",
            ]
        )
    return table(head=HEAD, rows=rows)


def verdict(these: Sequence[Comparison]) -> str:
    """How many are within a quarter, in words."""
    telling = [one for one in these if one.tells]
    off = sum(one.off for one in telling)
    few = f" At least {LEAST} are wanted." if len(telling) < LEAST else ""
    short = f" {len(these) - len(telling)} were too short to tell." if len(telling) < len(these) else ""
    return f"{len(telling) - off} of {len(telling)} measured storms: last site within {OFF:.0%}.{short}{few}"


def calibrated(these: Sequence[Comparison]) -> bool:
    """Whether the model may be believed."""
    return sum(one.tells for one in these) >= LEAST and not any(one.off for one in these)


def data(one: Comparison) -> dict[str, Any]:
    """A comparison as plain data."""
    measured = one.measured
    return {
        "configuration": measured.side,
        "sites": measured.sites,
        "scene": measured.title,
        "measured": {"median": _finite(statistics.median(measured.times)), "last": _finite(measured.times[-1])},
        "model": {"median": _finite(one.median), "last": _finite(one.last)},
        "ratio": one.ratio,
        "off": one.off,
    }


def _which(document: dict[str, Any]) -> tuple[Any, Any]:
    return document["configuration"].get("name"), document["configuration"].get("sites")


def _costs(document: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of a handshake on both sides where clients begin anew, and of a client's start where they start.

    In the lab a site's journal and service manager live on the processors of the gateways, so they are a part of it;
    of a start so is what began and ended with it.
    """
    result = document["result"]
    sites, programs, known = max(1, len(result["back"])), result.get("programs", {}), Costs()
    spent = sum(programs.get(name, 0.0) for name in OF_A_SITE) if programs else result["cpu_clients"]
    found = {"handshake": 1000 * result["cpu_daemons"] / sites}
    if document["scene"]["kind"] == "all-start":
        short = max(0.0, 2 * programs.get("all", 0.0) - sum(programs.values()))
        return found | {"start": max(known.restart, 1000 * (spent + short) / sites - known.client)}
    return found | {"client": max(known.client, 1000 * spent / sites - known.restart)}


def _measured(document: dict[str, Any], *, costs: dict[str, float] | None) -> Measured:
    known, scene, result = document["configuration"], document["scene"], document["result"]
    back: dict[str, float] = result["back"]
    made: dict[str, float] = result.get("made", {})
    if not back:
        raise ValueError("no site")
    own = known["timers"] == "site"
    kind = scene["kind"]
    # The product's health daemon does not wait until a frozen instance thaws.
    replaced = made.get("replaced", REPLACED if own else 0.0) if kind == "frozen" else 0.0
    sites = known["sites"] if kind == "frozen" and not replaced else len(back)
    limit, initial, buffer = known["connect_freq"], known["connect_freq_initial"], known["rcvbuf"]
    setup = Setup(
        name=known["name"],
        sites=sites,
        daemons=1 if replaced else known["daemons"],
        cores=known.get("cores", 2),
        clients_share_cores=True,
        keepalive=(int(known["keepalive"][0]), int(known["keepalive"][1])),
        timers=[site_timers(site_id=site) for site in sorted(back)] if own and len(back) == sites else [DEFAULT_TIMERS],
        connect_freq=limit and (int(limit[0]), int(limit[1])),
        connect_freq_initial=(int(initial[0]), int(initial[1])),
        receive_buffer=receive_buffer(option=buffer and int(buffer), limit=known.get("rmem_max")),
        max_clients=known.get("max_clients", 1024),
        hand_window=known.get("hand_window", 60),
        costs=Costs() if known.get("verify", known["name"] != "story") else Costs(handshake=NO_SCRIPT),
        ping_age=(0.0, PROBES),
    )
    if costs is not None:
        setup = replace(setup, costs=replace(setup.costs, **costs))
    setup = replace(setup, background=made.get("background", 0.0))
    usual = Scene(kind=kind)
    told = Scene(
        kind="daemons-restarted" if replaced else kind,
        # Counted from when the gateway could serve, so its daemons are there.
        seconds=made.get("away", scene["seconds"]),
        address_moves=made.get("address_moves", usual.address_moves),
        daemon_start=replaced or (0.0 if kind == "outage" else made.get("daemon_start", usual.daemon_start)),
        # What a start costs the whole machine is why they are spread.
        spread=0.0 if "programs" in result else made.get("spread", SPREAD),
        junk_per_second=JUNK if scene["flood"] else 0.0,
    )
    return Measured(
        side=known["name"],
        title=result["scene"],
        sites=known["sites"],
        setup=setup,
        scene=told,
        times=tuple(sorted(back.values())),
        waited=result["waited"],
        shift=made.get("first_start", 0.0),
    )


def _times(measured: Measured, outcome: Outcome) -> list[float]:
    """As the lab counts them: a site that stayed silent with its frozen daemon is back when the daemon is."""
    times = [one + measured.shift for one in outcome.back]
    if measured.scene.kind == "frozen":
        times += [measured.scene.seconds] * (len(measured.times) - outcome.affected)
    return sorted(times) + [math.inf] * (len(measured.times) - len(times))


def _finite(value: float) -> float | None:
    return None if math.isinf(value) else value


def _seconds(value: float, waited: float) -> str:
    if math.isinf(value):
        return "never" if math.isinf(waited) else f"> {waited:.0f} s"
    return f"{value:.1f} s"
