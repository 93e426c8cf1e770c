# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where and how each host of a fleet is reached out of band."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_types import Target

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Site
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Gateway, Plan


def gateway_target(*, plan: Plan, gateway: Gateway) -> Target:
    """A gateway, through the bastion if the plan has one."""
    return Target(
        name=gateway.name,
        address=str(gateway.oob.address),
        port=plan.ssh.port,
        user=plan.ssh.user,
        host_key=gateway.host_key,
        private_key_file=plan.ssh.private_key_file,
        bastion=plan.ssh.bastion,
    )


def site_target(*, plan: Plan, site: Site) -> Target:
    """A site, the way and with the client the registry names for it."""
    return Target(
        name=site.id,
        address=site.oob_address,
        port=site.oob_port,
        user=site.oob_user,
        host_key=site.host_key,
        private_key_file=plan.ssh.private_key_file,
        bastion=site.bastion,
        client=site.oob_client,
    )


def at_once(*, sites: Iterable[Site], workers: int) -> int:
    """How many sites are worked on at a time: no more than the bastion lets through, or the rest would only wait.

    A wait for the bastion counts against a site's own time. Sites that are reached directly need no turn.
    """
    ways = [site.bastion for site in sites]
    direct = ways.count(None)
    through = {bastion for bastion in ways if bastion is not None}
    if not through:
        return workers
    return min(workers, direct + sum(bastion.channels for bastion in through))
