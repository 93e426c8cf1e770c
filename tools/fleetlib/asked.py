# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which sites a command means."""

from __future__ import annotations

import typing as t

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet


def known_sites(*, fleet: Fleet, sites: Sequence[str], group: str | None) -> list[str]:
    """The named sites, those of a group, or both together; in the registry's order.

    Raises:
        FleetError: a name that the registry does not have.
    """
    registered, named = {one.id for one in fleet.sites}, set(sites)
    strange = [site for site in dict.fromkeys(sites) if site not in registered]
    if strange:
        raise FleetError(
            f"{', '.join(strange[:5])}{f' and {len(strange) - 5} more' if len(strange) > 5 else ''}: "
            f"not in the registry {fleet.plan.registry}."
        )
    if group is not None and group not in fleet.plan.groups:
        raise FleetError(f"group {group}: not in the plan {fleet.plan.file}, which has {', '.join(fleet.plan.groups)}.")
    return [one.id for one in fleet.sites if one.id in named or one.group == group]


def asked_sites(*, fleet: Fleet, sites: Sequence[str], group: str | None, everybody: bool) -> list[str]:
    """As above, and every site only when that was said in so many words.

    Raises:
        FleetError: nobody was named, or somebody and everybody.
    """
    if everybody and (sites or group):
        raise FleetError("--all means every site of the registry; name no site and no group beside it.")
    if everybody:
        return [one.id for one in fleet.sites]
    if not sites and not group:
        raise FleetError(f"no site is named. Name sites, or --group NAME, or --all for all {len(fleet.sites)} sites.")
    found = known_sites(fleet=fleet, sites=sites, group=group)
    if not found:
        raise FleetError(f"group {group}: no site of the registry {fleet.plan.registry} is in it.")
    return found
