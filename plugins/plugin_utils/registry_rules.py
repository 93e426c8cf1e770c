# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules between the rows of a registry, and between the registry and the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils import names
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan_facts import PlacedNetwork, PlanFacts
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.registry import Lan, SiteRow

_SMALLEST_SHARED_PREFIX = 30
_THROUGH_TUNNELS = ("tunnels.", "inside.", "site_networks")
_ONE_SITE = "Each address may lie in one site only; correct one of the two."


class RegistryRules:
    """Judges the rows of one registry."""

    def __init__(self, *, file: str, plan_file: str, facts: PlanFacts, problems: list[Problem]) -> None:
        self._file = file
        self._plan_file = plan_file
        self._facts = facts
        self._problems = problems

    def judge(self, *, rows: Sequence[SiteRow]) -> None:
        """Note every broken rule."""
        self._oob_addresses(rows)
        self._host_keys(rows)
        lans = [lan for row in rows for lan in row.lans]
        self._lans_between_sites(lans)
        self._lans_against_plan(lans)

    def _fault(self, line: int, field: str, value: str, message: str, remedy: str) -> None:
        self._problems.append(Problem(self._file, line, field, value, message, remedy))

    def _oob_addresses(self, rows: Sequence[SiteRow]) -> None:
        taken = {int(placed.address): placed for placed in self._facts.addresses}
        oob = self._facts.homes.get("oob")
        edges: tuple[int, ...] = ()
        if oob is not None and oob.network.prefixlen <= _SMALLEST_SHARED_PREFIX:
            edges = oob.span
        behind = [placed for placed in self._facts.networks if placed.node.path.startswith(_THROUGH_TUNNELS)]
        spans = [(*placed.span, placed) for placed in behind]
        seen: dict[tuple[int, int], SiteRow] = {}
        for row in rows:
            number = row.oob_number
            if not number:
                continue
            if number in taken:
                placed = taken[number]
                self._fault(
                    row.line,
                    "oob_address",
                    row.oob_address,
                    f"{row.oob_address} is the address of {placed.owner} ({self._plan_file}:{placed.node.line}).",
                    "Write the site's own address.",
                )
            elif number in edges and oob is not None:
                self._fault(
                    row.line,
                    "oob_address",
                    row.oob_address,
                    f"{row.oob_address} is the network or broadcast address of {oob.network}.",
                    "Write the site's own address.",
                )
            bastion = self._facts.bastion
            if bastion is not None and (number, row.oob_port) == (int(bastion.address), bastion.port):
                self._fault(
                    row.line,
                    "oob_address",
                    row.oob_address,
                    f"{row.oob_address} port {row.oob_port} is the bastion ({self._plan_file}:{bastion.node.line}).",
                    "Write the site's own address; sites behind one address need their own oob_port.",
                )
            hit = next((placed for first, last, placed in spans if first <= number <= last), None)
            if hit is not None and number not in taken:
                self._fault(
                    row.line,
                    "oob_address",
                    row.oob_address,
                    f"{row.oob_address} lies in {hit.network}, {hit.node.path} of the plan "
                    f"({self._plan_file}:{hit.node.line}): keys never travel through the tunnel.",
                    "Write the address the site answers SSH on, outside its tunnel.",
                )
            earlier = seen.setdefault((number, row.oob_port), row)
            if earlier is not row:
                self._fault(
                    row.line,
                    "oob_address",
                    row.oob_address,
                    f"{row.oob_address} port {row.oob_port} is also that of {earlier.id} in line {earlier.line}.",
                    "Correct one of the two; sites behind one address need their own oob_port.",
                )

    def _host_keys(self, rows: Sequence[SiteRow]) -> None:
        """Whoever has the one host could answer for the other, unseen."""
        seen: dict[str, tuple[str, str]] = {}
        for placed in self._facts.host_keys:
            seen.setdefault(placed.text, (placed.gateway, f"{placed.gateway} in line {placed.node.line} of the plan"))
        bastion = self._facts.bastion
        if bastion is not None and bastion.host_key:
            place = f"the bastion in line {bastion.node.line} of the plan"
            seen.setdefault(bastion.host_key, (place, place))
        for row in rows:
            if not row.host_key:
                continue
            name, place = seen.setdefault(row.host_key, (row.id, f"{row.id} in line {row.line}"))
            if name != row.id:
                message = f"is also the host key of {place}; a cloned image."
                self._fault(row.line, "host_key", row.host_key, message, names.CLONED_RULE)

    def _lans_between_sites(self, lans: Sequence[Lan]) -> None:
        """Prefixes are disjoint or one holds the other: sorted, a stack of those still open finds every pair."""
        held: dict[int, list[Lan]] = {}
        holders: list[Lan] = []
        open_lans: list[Lan] = []
        for lan in sorted(lans, key=lambda lan: (lan.span.first, -lan.span.last, lan.line)):
            while open_lans and open_lans[-1].span.last < lan.span.first:
                open_lans.pop()
            if open_lans and open_lans[-1].span == lan.span:
                self._same_lan(lan, open_lans[-1])
                continue
            if open_lans:
                holder = open_lans[-1]
                if id(holder) not in held:
                    holders.append(holder)
                held.setdefault(id(holder), []).append(lan)
            open_lans.append(lan)
        for holder in holders:
            self._overlap(holder, held[id(holder)])

    def _same_lan(self, late: Lan, early: Lan) -> None:
        if late.line == early.line:
            self._fault(late.line, "lan", late.text, f"{late.text} stands twice in this line.", "Keep one of the two.")
            return
        message = f"{late.text} is already a LAN of {early.site} in line {early.line}."
        self._fault(late.line, "lan", late.text, message, _ONE_SITE)

    def _overlap(self, holder: Lan, inner: Sequence[Lan]) -> None:
        """One LAN that is too wide is one fault, however many sites it covers."""
        first = inner[0]
        # Of two, the later line is the one that was added, the earlier one where to look.
        late, early = (first, holder) if len(inner) == 1 and first.line > holder.line else (holder, first)
        more = f" and {len(inner) - 1} more" if len(inner) > 1 else ""
        message = f"{late.text} overlaps {early.text} of {early.site} in line {early.line}{more}."
        self._fault(late.line, "lan", late.text, message, _ONE_SITE)

    def _lans_against_plan(self, lans: Sequence[Lan]) -> None:
        facts = self._facts
        aggregates = facts.site_networks
        own = {placed.node.path for placed in aggregates or ()}
        reserved = [placed for placed in facts.networks if placed.node.path not in own and not _aggregate(placed)]
        spans = [(placed.span, placed) for placed in reserved]
        homes = None if aggregates is None else [placed.span for placed in aggregates]
        for lan in lans:
            hit = next((placed for span, placed in spans if lan.span.overlaps(span)), None)
            if hit is not None:
                self._fault(
                    lan.line,
                    "lan",
                    lan.text,
                    f"{lan.text} overlaps {hit.network}, {hit.node.path} of the plan "
                    f"({self._plan_file}:{hit.node.line}).",
                    "A site's LAN needs a range of its own.",
                )
            elif homes is not None and not any(lan.span.within(home) for home in homes):
                listed = ", ".join(str(placed.network) for placed in aggregates or ())
                self._fault(
                    lan.line,
                    "lan",
                    lan.text,
                    f"{lan.text} lies in none of the plan's site_networks ({listed}).",
                    f"Correct it, or add its range to site_networks in {self._plan_file}.",
                )


def _aggregate(placed: PlacedNetwork) -> bool:
    return placed.node.path.startswith("site_networks")
