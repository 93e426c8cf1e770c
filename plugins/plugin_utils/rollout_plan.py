# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new plan of a rollout from what an operator asks for, and what it would touch."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.wave_plan import (
    WavePlan,
    read_wave_plan,
    sites_by_group,
    wave_plan_text,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.waves import FAILED, UNREACHABLE, Rule, Share, cut

if TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.wave_plan import What

# What a client takes to begin anew and to be seen with an echo: the worst of 100, measured in the lab (bench/rotation).
AWAY_SECONDS: Final = 3
OPTIONS: Final = "the options of this command"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What an operator says on the command line. ``canary``: so many sites of the first group go first, 0 for all."""

    what: What
    reason: str
    groups: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    canary: int = 0
    limit: int = 0
    soak_seconds: int = 0
    success_percent: int = 0
    approval: bool = False
    failed: Share = FAILED
    unreachable: Share = UNREACHABLE


def make_plan(*, fleet: Fleet, asked: Asked) -> WavePlan:
    """The plan, its groups in the order of the fleet's.

    Raises:
        InputErrors: everything in it that cannot be, in the words that are used of a file.
    """
    order = {group: position for position, group in enumerate(fleet.plan.groups)}
    rules = [
        Rule(
            group=group,
            limit=asked.limit,
            soak_seconds=asked.soak_seconds,
            approval=asked.approval,
            success_percent=asked.success_percent,
        )
        for group in sorted(dict.fromkeys(asked.groups), key=lambda group: order.get(group, len(order)))
    ]
    if asked.canary:
        rules.insert(0, dataclasses.replace(rules[0], limit=asked.canary, approval=False))
    else:
        rules[0] = dataclasses.replace(rules[0], approval=False)
    plan = WavePlan(
        what=asked.what,
        reason=asked.reason,
        rules=tuple(rules),
        failed=asked.failed,
        unreachable=asked.unreachable,
        exclude=asked.exclude,
    )
    return read_wave_plan(text=wave_plan_text(plan=plan, rollout="new"), file=OPTIONS, fleet=fleet)


def plan_data(*, plan: WavePlan, fleet: Fleet, rollout: str) -> dict[str, Any]:
    """What a rollout would touch: waves with their sites, and how many tunnels begin anew on which instance."""
    groups = sites_by_group(plan=plan, fleet=fleet)
    instance_of = {site.id: site.instance for site in fleet.sites}
    total = sum(len(sites) for sites in groups.values())
    waves = [
        {
            "name": wave.name,
            "group": wave.group,
            "sites": list(wave.sites),
            "soak_seconds": wave.soak_seconds,
            "approval": wave.approval,
            "success_percent": wave.success_percent,
            "instances": dict(sorted(Counter(instance_of[site] for site in wave.sites).items())),
        }
        for wave in cut(rules=plan.rules, groups=groups)
    ]
    return {
        "rollout": rollout,
        "fleet": fleet.plan.name,
        "what": plan.what,
        "reason": plan.reason,
        "sites": total,
        "budgets": {"failed": plan.failed.of(total), "unreachable": plan.unreachable.of(total)},
        "exclude": list(plan.exclude),
        "away_seconds": AWAY_SECONDS,
        "waves": waves,
    }
