# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answer one question about capacity: measure or remember, derive, record. For command line and playbook alike."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity import Measured, Values
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_file import (
    Capacity,
    capacity_file,
    write_capacity,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_report import (
    REFERENCE,
    capacity_report,
    demand_of,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_run import (
    BUSIEST,
    HANDSHAKES,
    MOST_HANDSHAKES,
    Trial,
    measure,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet

MOST_SITES: Final = 1000000
LEAST_HANDSHAKES: Final = 10
_RATE: Final = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,3})?)(kbit|mbit|gbit)")
_MEGABITS: Final = {"kbit": 0.001, "mbit": 1.0, "gbit": 1000.0}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What somebody wants to know. Sites, cores and a link ask "what if" and touch no gateway, unless it is written.

    Without a link it is the one that is recorded.
    """

    sites: int | None = None
    cores: int | None = None
    link_mbit: float = 0.0
    gateways: Sequence[str] = ()
    handshakes: int = HANDSHAKES
    busiest: float = BUSIEST
    recorded: bool = False
    write: bool = False

    @property
    def touches_gateways(self) -> bool:
        """Whether anything is measured."""
        return self.write or not (self.recorded or self.sites or self.cores or self.link_mbit)

    def refuse_nonsense(self) -> None:
        """Raise FleetError for numbers out of range and for options that do not go together."""
        for name, value, low, high in (
            ("sites", self.sites, 1, MOST_SITES),
            ("cores", self.cores, 1, 1024),
            ("handshakes", self.handshakes, LEAST_HANDSHAKES, MOST_HANDSHAKES),
            ("max-load", self.busiest, 0.01, 1000),
        ):
            if value is not None and not low <= value <= high:
                raise FleetError(f"{name}: {value} is out of range. Give a number from {low} to {high}.")
        if self.write and (self.sites or self.cores):
            raise FleetError("what would be with other sites or cores is not written. Ask without --write.")
        if self.write and self.recorded:
            raise FleetError("what is recorded is written already. Ask without --recorded to measure anew.")
        if self.gateways and not self.touches_gateways:
            raise FleetError('"what if" touches no gateway. Leave out the gateway, or the sites, cores and link.')


def rate(text: str) -> float:
    """Megabits per second of a link, as people write it: 512kbit, 10mbit, 1.5gbit.

    Raises:
        FleetError: it is none.
    """
    found = _RATE.fullmatch(text.lower())
    mbit = float(found[1]) * _MEGABITS[found[2]] if found else 0.0
    if not mbit:
        raise FleetError(f"link: '{text}' is no rate. Write it as 512kbit, 10mbit or 1.5gbit.")
    return mbit


def answer(
    *, fleet: Fleet, asked: Asked, say: Callable[[str], None] = lambda _text: None
) -> tuple[dict[str, Any], bool]:
    """The report, and whether the file beside the plan was changed.

    Raises:
        FleetError: the question makes no sense, what is recorded cannot be read, or not everything was measured that
            is to be written.
    """
    asked.refuse_nonsense()
    if not asked.touches_gateways:
        fleet.refuse_bad_capacity()
    for fault in fleet.capacity_faults:
        say(f"{fault} Nothing is taken from this file, and no link is known.")
    known = list(fleet.capacity.measured) if fleet.capacity else []
    trials: list[Trial] = []
    if asked.touches_gateways:
        trials = measure(
            fleet=fleet, gateways=asked.gateways, handshakes=asked.handshakes, busiest=asked.busiest, say=say
        )
    fresh = [one.measured for one in trials if one.measured is not None]
    measured = _latest(fleet=fleet, known=known, fresh=fresh)
    source = _source(fleet=fleet, known=known, fresh=fresh)
    figures = measured or [REFERENCE]
    cores = min(one.cores for one in figures) if measured else min(one.cores for one in fleet.plan.gateways)
    demand = demand_of(
        fleet=fleet,
        cores=asked.cores or cores,
        sites=asked.sites,
        open_number=asked.cores is not None or asked.sites is not None,
        link_mbit=asked.link_mbit or (fleet.capacity.link_mbit if fleet.capacity else 0.0),
    )
    report = capacity_report(fleet=fleet, measured=figures, demand=demand, trials=trials, source=source)
    if not asked.write:
        return report, False
    missing = [f"{name}: {why}" for name, why in report["not_measured"].items()]
    if missing or not measured:
        raise FleetError(f"{'; '.join(missing) or 'no gateway was measured'}. Nothing was written.")
    capacity = Capacity(measured=tuple(measured), values=Values(**report["values"]), link_mbit=demand.link_mbit)
    return report, write_capacity(plan_file=fleet.plan_file, capacity=capacity)


def _latest(*, fleet: Fleet, known: Sequence[Measured], fresh: Sequence[Measured]) -> list[Measured]:
    """One row for each gateway, in the plan's order: what was measured now, else what is recorded."""
    rows = {one.gateway: one for one in (*known, *fresh)}
    return [rows[gateway.name] for gateway in fleet.plan.gateways if gateway.name in rows]


def _source(*, fleet: Fleet, known: Sequence[Measured], fresh: Sequence[Measured]) -> str:
    file = capacity_file(fleet.plan_file).name
    if fresh:
        return f"Measured now on {' and '.join(one.gateway for one in fresh)}, beside production."
    if known:
        return f"Nothing was measured now: the figures are those of {file}.{_outgrown(fleet)}"
    return (
        f"Nobody has measured these gateways yet ({file} has none of them): the figures are those of another machine, "
        "see docs/capacity.md. Measure yours with `tools/fleet capacity`."
    )


def _outgrown(fleet: Fleet) -> str:
    values = fleet.capacity.values if fleet.capacity else None
    if values is None or values.sites == len(fleet.sites):
        return ""
    return (
        f" Its values are for {values.sites} sites, the registry has {len(fleet.sites)}: "
        "`tools/fleet capacity --write` measures and derives them anew."
    )
