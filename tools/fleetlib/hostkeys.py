# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `tools/fleet hostkeys` does with the pins that ssh, Ansible and our own delivery share."""

from __future__ import annotations

import sys
import typing as t

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet, load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.host_keys import Sighting, collect, write_keys
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_bastion import NAME, bastion_target
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import table
from ansible_collections.spokewright.fleet.plugins.plugin_utils.targets import gateway_target, site_target

if t.TYPE_CHECKING:
    import argparse

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_types import Target


def targets(fleet: Fleet) -> list[Target]:
    """Every host of the fleet that has a pin or should have one: the bastion, gateways, sites."""
    plan = fleet.plan
    bastion = [] if plan.ssh.bastion is None else [bastion_target(bastion=plan.ssh.bastion)]
    gateways = [gateway_target(plan=plan, gateway=gateway) for gateway in plan.gateways]
    return [*bastion, *gateways, *(site_target(plan=plan, site=site) for site in fleet.sites)]


def hostkeys_collect(args: argparse.Namespace) -> bool:
    """Show what each host's key is against its pin; write the missing ones only when told to.

    Raises:
        FleetError: a named host is not in the fleet.
    """
    fleet = load_fleet(plan_file=args.plan_file, require_host_keys=False)
    everyone = targets(fleet)
    unknown = sorted(set(args.sites) - {target.name for target in everyone})
    if unknown:
        raise FleetError(f"{', '.join(unknown)}: not in the registry and not a gateway of {args.plan_file}.")
    wanted = [target for target in everyone if not args.sites or target.name in args.sites]
    seen = collect(targets=wanted)
    sightings = [seen[target.name] for target in wanted]
    news = [one for one in sightings if one.state != "same"]
    if news:
        print(
            table(
                head=["HOST", "KEY", "SHOWS", "PINNED"],
                rows=[
                    [one.site, one.state, one.shown_fingerprint or "-", one.pinned_fingerprint or "-"] for one in news
                ],
            )
        )
    same = len(sightings) - len(news)
    print(f"{same} of {len(sightings)} hosts show the key that is pinned.")
    for one in news:
        if one.state != "new":
            print(one.message, file=sys.stderr)
    return _take(fleet=fleet, new=[one for one in news if one.state == "new"], write=args.write) and all(
        one.state in {"same", "new"} for one in sightings
    )


def _take(*, fleet: Fleet, new: t.Sequence[Sighting], write: bool) -> bool:
    """Write the new keys of sites; other keys stand in the plan, which is the operator's to edit."""
    planned = {NAME: NAME, **{gateway.name: f"gateways.{gateway.name}" for gateway in fleet.plan.gateways}}
    keys = {one.site: one.shown for one in new if one.site not in planned}
    for one in new:
        if one.site in planned:
            print(f"{one.site}: put this into the plan, under {planned[one.site]}:\n    host_key: {one.shown}")
    if keys and not write:
        print("Compare the fingerprints with the hosts' own consoles, then run again with --write.")
        return False
    if keys:
        written = write_keys(registry=fleet.plan.registry, keys=keys)
        print(f"{fleet.plan.registry}: {len(written)} host keys written.")
    return not any(one.site in planned for one in new)


def hostkeys_known_hosts(args: argparse.Namespace) -> bool:
    """Print every pin under the host's name and its out-of-band address, in the format of ssh's known_hosts."""
    fleet = load_fleet(plan_file=args.plan_file)
    for target in targets(fleet):
        address = target.address if target.port == 22 else f"[{target.address}]:{target.port}"
        print(f"{target.name},{address} {target.host_key}")
    return True
