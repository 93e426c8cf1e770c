# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of bench/failover: its rows, their targets, and the judgement of what was seen. Pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["planned", "dead", "cut", "daemon"]
# A single late answer of a busy machine is no loss.
NOTHING = 0.2


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fault. A target of None is no target; `network` and `how` are a cut's, `signal` a daemon's."""

    name: str
    title: str
    kind: Kind
    vip: float | None
    sites: float | None
    network: str = ""
    how: str = ""
    signal: str = ""


ROWS = (
    Row(name="planned", title="planned switchover", kind="planned", vip=0.2, sites=2.0),
    Row(name="dead", title="owner's host dead", kind="dead", vip=0.6, sites=9.0),
    Row(name="inside-cable", title="inside cable", kind="cut", vip=0.6, sites=2.0, network="inside", how="cable"),
    Row(
        name="outside-cable", title="outside cable", kind="cut", vip=0.6, sites=9.0, network="frame_relay", how="cable"
    ),
    Row(
        name="inside-silent",
        title="inside silently dead",
        kind="cut",
        vip=2.5,
        sites=11.0,
        network="inside",
        how="silent",
    ),
    Row(
        name="outside-silent",
        title="outside silently dead",
        kind="cut",
        vip=2.5,
        sites=11.0,
        network="frame_relay",
        how="silent",
    ),
    Row(name="openvpn-killed", title="one openvpn killed", kind="daemon", vip=None, sites=None, signal="KILL"),
    Row(name="openvpn-frozen", title="one openvpn frozen", kind="daemon", vip=2.0, sites=None, signal="STOP"),
)


@dataclass(frozen=True, kw_only=True)
class Lap:
    """One run of one row.

    `vip` is when the last address was with the other gateway, or, for a daemon, when it ran anew; `sites` is when each
    site worked again, `others` the longest hole of each site that the fault did not concern; `waited` says how long the
    end was waited for: what had not come by then is more than that.
    """

    owner: str
    vip: float
    sites: dict[str, float]
    others: dict[str, float]
    waited: float
    one_holder: bool
    load: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What all runs of a row come to."""

    row: Row
    vip: float
    worst: float
    median: float
    others: float
    waited: float
    missed: tuple[str, ...]


def judge(*, row: Row, laps: Sequence[Lap], slack: float = 1.0) -> Verdict:
    """The worst of all runs against the targets times `slack`; the median is over all sites of all runs."""
    row = _relaxed(row, slack=slack)
    every = [seconds for lap in laps for seconds in lap.sites.values()]
    others = max((seconds for lap in laps for seconds in lap.others.values()), default=0.0)
    vip = max(lap.vip for lap in laps)
    # A run in which no site was measured has shown nothing.
    worst = max(every) if all(lap.sites for lap in laps) else math.inf
    missed = []
    if row.vip is not None and not vip < row.vip:
        missed.append(f"{'daemon anew' if row.kind == 'daemon' else 'VIP'} {seconds_text(vip)} s, wanted < {row.vip:g}")
    if row.sites is not None and not worst < row.sites:
        missed.append(f"worst site {seconds_text(worst)} s, wanted < {row.sites:g}")
    if math.isinf(worst):
        missed.append("a site did not work again")
    if row.kind == "daemon" and others > NOTHING * slack:
        missed.append(f"a site of another daemon lost {seconds_text(others)} s, wanted nothing")
    if not all(lap.one_holder for lap in laps):
        missed.append("not every address had one and the same holder in the end")
    return Verdict(
        row=row,
        vip=vip,
        worst=worst,
        median=statistics.median(every) if every else math.inf,
        others=others,
        waited=max(lap.waited for lap in laps),
        missed=tuple(missed),
    )


def _relaxed(row: Row, *, slack: float) -> Row:
    vip, sites = (None if target is None else target * slack for target in (row.vip, row.sites))
    return replace(row, vip=vip, sites=sites)


def seconds_text(value: float, *, waited: float | None = None) -> str:
    """Seconds with two digits; what never came is more than what was waited for."""
    if math.isinf(value):
        return "never" if waited is None else f"> {waited:.0f}"
    return f"{value:.2f}"


def table(*, ours: Sequence[Verdict], stock: dict[str, Verdict]) -> list[str]:
    """The lines to print."""
    head = ("fault", "VIP", "wanted", "worst site", "wanted", "median", "stock VIP", "stock worst", "stock median")
    rows = [head]
    for one in ours:
        beside = stock.get(one.row.name)
        row = one.row
        rows.append(
            (
                row.title,
                seconds_text(one.vip, waited=one.waited) if row.vip is not None or row.kind != "daemon" else "-",
                "-" if row.vip is None else f"< {row.vip:g}",
                seconds_text(one.worst, waited=one.waited),
                "-" if row.sites is None else f"< {row.sites:g}",
                seconds_text(one.median, waited=one.waited),
                *(
                    ("-", "-", "-")
                    if beside is None
                    else (
                        seconds_text(beside.vip, waited=beside.waited),
                        seconds_text(beside.worst, waited=beside.waited),
                        seconds_text(beside.median, waited=beside.waited),
                    )
                ),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return [
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
