# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a simulated storm came to, in words, as data and as a table."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.durations import duration
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_model import Outcome

HEAD: Final = ("CONFIGURATION", "FIRST", "MEDIAN", "99 %", "LAST", "BACK", "UNDEF", "DROPS", "CPU", "BUSIEST", "LIMIT")
# Shares from which a thing is named as what a recovery waited for.
BUSY: Final = 0.7
FEW_DROPS: Final = 0.02
# The clients' own timers end this much later than the fault allows when nothing else holds a recovery up.
NEARLY: Final = 1.1
HANDSHAKES: Final = 0.5


def limit(outcome: Outcome) -> str:
    """What the last site waited for; the first reason that holds."""
    last, drops, few = outcome.at(1.0), outcome.drops, FEW_DROPS * outcome.affected
    if not outcome.affected:
        return "nothing: no site noticed"
    if last is None and outcome.busiest < BUSY and not drops.connect_freq:
        return "not over yet"
    floor = max(outcome.floor, outcome.scene.daemon_start)
    if last is not None and last <= floor * NEARLY + HANDSHAKES:
        return "clients starting" if outcome.scene.kind == "all-start" else _waiting(outcome)
    reasons = (
        ("max-clients", drops.max_clients > few),
        ("CPU of a daemon", outcome.busiest > BUSY),
        ("connect-freq-initial", drops.connect_freq_initial > few),
        ("connect-freq", drops.connect_freq > few),
        ("link", drops.link > few),
        ("receive buffer", drops.receive_buffer > few),
    )
    named = [name for name, holds in reasons if holds]
    if "max-clients" in named and "CPU of a daemon" in named:
        return "CPU of a daemon, then max-clients"
    return named[0] if named else "retransmission of clients"


def _waiting(outcome: Outcome) -> str:
    return "restart of the daemons" if outcome.scene.kind == "daemons-told" else "detection (keepalive)"


def report(outcome: Outcome) -> dict[str, Any]:
    """All of it as plain data."""
    setup = outcome.setup
    return {
        "configuration": setup.name,
        "scene": outcome.scene.kind,
        "seconds": outcome.scene.seconds,
        "sites": setup.sites,
        "affected": outcome.affected,
        "back": len(outcome.back),
        "first": outcome.back[0] if outcome.back else None,
        "median": outcome.at(0.5),
        "p99": outcome.at(0.99),
        "last": outcome.at(1.0),
        "undef_peak": outcome.undef_peak,
        "drops": asdict(outcome.drops),
        "cpu_seconds": {"daemons": outcome.cpu_daemons, "clients": outcome.cpu_clients},
        "busiest_daemon": outcome.busiest,
        "packets": outcome.packets,
        "fell_again": outcome.fell_again,
        "simulated_seconds": outcome.ended,
        "gave_up": outcome.gave_up,
        "limit": limit(outcome),
    }


def storm_table(outcomes: Sequence[Outcome]) -> str:
    """One line for each run."""
    rows = []
    for outcome in outcomes:
        drops = sum(asdict(outcome.drops).values())
        first = outcome.back[0] if outcome.back else None
        times = [_seconds(one) for one in (first, outcome.at(0.5), outcome.at(0.99), outcome.at(1.0))]
        rows.append(
            [
                outcome.setup.name,
                *times,
                f"{len(outcome.back)}/{outcome.affected}",
                str(outcome.undef_peak),
                str(drops),
                f"{outcome.cpu_daemons:.1f} s",
                f"{100 * outcome.busiest:.0f} %",
                limit(outcome),
            ]
        )
    return "\n".join([table(head=HEAD, rows=rows), *_remarks(outcomes)])


def _remarks(outcomes: Sequence[Outcome]) -> list[str]:
    said = []
    for outcome in outcomes:
        if outcome.fell_again:
            said.append(
                f"{outcome.setup.name}: {outcome.fell_again} times a site that was back fell out again: its daemon had "
                f"no time for a ping within keepalive's {outcome.setup.keepalive[1]} s."
            )
        if len(outcome.back) < outcome.affected:
            why = "no end in sight, given up" if outcome.gave_up else "looked no further"
            said.append(f"{outcome.setup.name}: {why} {duration(outcome.ended)} after the beginning.")
    return said


def _seconds(value: float | None) -> str:
    return "never" if value is None else duration(value)
