# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan in words and as data: where each site goes and why, and what would change."""

from __future__ import annotations

import typing as t
from collections import Counter

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import write_lock
from ansible_collections.spokewright.fleet.plugins.plugin_utils.lock import lock_text

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.allocation import Change
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet


def describe_change(change: Change) -> str:
    """One change in one sentence."""
    where = f"{change.before} -> {change.after}" if change.before and change.after else change.after or change.before
    return f"{change.subject}: {change.kind.replace('-', ' ')}: {where} ({change.why})"


def sites_that_move(*, fleet: Fleet) -> tuple[str, ...]:
    """Sites that go to another instance with their block: cut off from the gateways' change to their own new bundle."""
    moved = {change.subject for change in fleet.changes if change.kind == "block-moved"}
    recorded = {change.subject for change in fleet.changes if change.kind in {"site-added", "site-returned"}}
    return tuple(site.id for site in fleet.sites if site.tunnel_block in moved and site.id not in recorded)


def refuse_moves(*, fleet: Fleet, consent: str) -> None:
    """Refuse to record that sites change their instance, unless the operator has asked for it.

    Raises:
        FleetError: sites would move; the message names them and says how to consent.
    """
    moving = sites_that_move(fleet=fleet)
    if not moving:
        return
    shown = ", ".join(moving[:5]) + (f" and {len(moving) - 5} more" if len(moving) > 5 else "")
    raise FleetError(
        f"{fleet.plan_file}: {len(moving)} sites would move to another tunnel instance: {shown}. Each of them is cut "
        "off from the moment the gateways change until its own new bundle is active, and stays so while its "
        f"out-of-band link is down. Nothing was changed. See `tools/fleet plan`; to do it, {consent}."
    )


def lock_texts(*, fleet: Fleet) -> tuple[str, str]:
    """The lock file as it is and as it would be."""
    path = fleet.plan.lock
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    return before, lock_text(lock=fleet.lock)


def record(*, fleet: Fleet) -> bool:
    """Write the lock file; False when it was right already."""
    return write_lock(fleet=fleet)


def plan_report(*, fleet: Fleet) -> dict[str, t.Any]:
    """The whole plan as plain data."""
    load = Counter(site.instance for site in fleet.sites)
    return {
        "fleet": fleet.plan.name,
        "instances": [
            {"name": one.name, "port": one.port, "blocks": list(one.blocks), "sites": load[one.name]}
            for one in fleet.instances
        ],
        "changes": [
            {
                "kind": change.kind,
                "subject": change.subject,
                "before": change.before,
                "after": change.after,
                "why": change.why,
            }
            for change in fleet.changes
        ],
        "tombstones": [
            {"id": name, "address": stone.address, "removed": stone.removed}
            for name, stone in sorted(fleet.lock.tombstones.items())
        ],
        "sites": [
            {
                "id": site.id,
                "group": site.group,
                "tunnel_address": str(site.tunnel_address),
                "block": str(site.tunnel_block),
                "instance": site.instance,
                "port": site.port,
                "transports": list(site.transports),
                "lans": [str(lan) for lan in site.lans],
                "why": site.why,
            }
            for site in fleet.sites
        ],
    }
