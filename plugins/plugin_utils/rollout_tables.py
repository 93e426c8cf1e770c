# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts as tables for people."""

from __future__ import annotations

import typing as t

from ansible_collections.spokewright.fleet.plugins.plugin_utils.durations import duration
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import table, tame


def plan_table(data: t.Mapping[str, t.Any]) -> str:
    """What a rollout would touch, wave by wave."""
    rows = [
        [
            wave["name"],
            str(len(wave["sites"])),
            ", ".join(f"{name} {number}" for name, number in wave["instances"].items()),
            duration(wave["soak_seconds"]) if wave["soak_seconds"] else "-",
            "wanted" if wave["approval"] else "-",
            _some(wave["sites"]),
        ]
        for wave in data["waves"]
    ]
    budgets, sites = data["budgets"], data["sites"]
    why = f": {tame(data['reason'])}" if data["reason"] else ""
    head = [
        f"rollout {data['rollout']}, {data['what']}{why}",
        f"{sites} sites reconnect, each once, for about {data['away_seconds']} s at most; no gateway restarts anything",
        f"it stops when more than {budgets['failed']} fail, or more than {budgets['unreachable']} cannot be reached",
    ]
    left_out = [f"left out: {', '.join(data['exclude'])}"] if data["exclude"] else []
    return "\n".join(
        [*head, *left_out, "", table(head=["WAVE", "SITES", "TUNNELS", "SOAK", "APPROVAL", "WHO"], rows=rows)]
    )


def rollouts_table(rows: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    """All rollouts, by name."""
    if not rows:
        return "no rollout was planned or begun yet: tools/fleet rollout plan --help"
    cells = [
        [one["rollout"], "planned", "-", "-", "-"]
        if one["planned_only"]
        else [
            one["rollout"],
            one["outcome"],
            ", ".join(f"{number} {state}" for state, number in one["summary"].items() if number) or "-",
            one["began"],
            tame(one["halts"][-1]["why"]) if one["halts"] and one["outcome"] != "finished" else "-",
        ]
        for one in rows
    ]
    return table(head=["ROLLOUT", "STATE", "SITES", "BEGAN", "WHY"], rows=cells)


def _some(sites: t.Sequence[str]) -> str:
    return " ".join(sites) if len(sites) <= 3 else f"{' '.join(sites[:3])} and {len(sites) - 3} more"
