# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a rollout is cut into waves: site groups in the plan's order, each at most so many sites at a time. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PERCENT: Final = 100


@dataclass(frozen=True, kw_only=True)
class Share:
    """A number of sites, or a percentage of all that a rollout has."""

    number: int
    percent: bool = False

    def __str__(self) -> str:
        return f"{self.number}%" if self.percent else str(self.number)

    def of(self, total: int) -> int:
        """How many sites that is. A percentage is rounded up, and never less than one: half a site cannot be spared."""
        if not self.percent:
            return self.number
        return max(1, -(-total * self.number // PERCENT)) if self.number else 0


# What a rollout without a wave plan may lose before it stops.
FAILED: Final = Share(number=0)
UNREACHABLE: Final = Share(number=20, percent=True)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How the sites of one site group take their turn.

    ``limit``: at most that many at a time, 0 for all of them. ``soak_seconds``: how long they have to stay well before
    the next wave. ``approval``: a person says that the wave may begin. ``success_percent``: of the sites that were
    tried, how many have to be well for the rollout to go on.
    """

    group: str
    limit: int = 0
    soak_seconds: int = 0
    approval: bool = False
    success_percent: int = 0


@dataclass(frozen=True, kw_only=True)
class Wave:
    """One step of a rollout. Its ``name`` is its group's, with a count where the group has several."""

    name: str
    group: str
    sites: tuple[str, ...]
    soak_seconds: int = 0
    approval: bool = False
    success_percent: int = 0


def cut(*, rules: Sequence[Rule], groups: Mapping[str, Sequence[str]]) -> list[Wave]:
    """The waves of these sites, in the order of the rules. A group without sites has none.

    Args:
        rules: how each group takes its turn. A group may have several: the first takes its limit, the next the rest.
        groups: the sites of each group that take part, in the order of the registry.
    """
    pieces: list[tuple[Rule, list[str]]] = []
    left = {group: list(sites) for group, sites in groups.items()}
    for position, rule in enumerate(rules):
        again = any(later.group == rule.group for later in rules[position + 1 :])
        sites = left.get(rule.group, [])
        size = rule.limit or len(sites)
        while sites:
            pieces.append((rule, sites[:size]))
            del sites[:size]
            if again:
                break
    counts = {group: sum(rule.group == group for rule, _sites in pieces) for group in groups}
    numbers = dict.fromkeys(groups, 0)
    waves = []
    for rule, sites in pieces:
        numbers[rule.group] += 1
        count = counts[rule.group]
        waves.append(
            Wave(
                name=rule.group if count == 1 else f"{rule.group} {numbers[rule.group]}/{count}",
                group=rule.group,
                sites=tuple(sites),
                soak_seconds=rule.soak_seconds,
                approval=rule.approval,
                success_percent=rule.success_percent,
            )
        )
    return waves
