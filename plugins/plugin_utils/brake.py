# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The emergency brake: hold many sites, ask after their holds, end them. It needs no key and waits for no rollout."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.delivery import Order, carry_out
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import WORKERS, Progress, SiteResult, fan_out
from ansible_collections.spokewright.fleet.plugins.plugin_utils.hold import Hold, one_line
from ansible_collections.spokewright.fleet.plugins.plugin_utils.holds import (
    HoldNote,
    enter_holds,
    holds_file,
    note_of,
    read_holds,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_transport import Timeouts
from ansible_collections.spokewright.fleet.plugins.plugin_utils.targets import at_once, site_target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet

# Somebody waits, and a link that is down is an answer.
QUICK: Final = Timeouts(connect=6, banner=10, auth=10, command=15, deadline=25, retries=1)
# These never heard of it, or not the whole of it.
UNTOLD: Final = frozenset(("unreachable", "bastion-unreachable", "not-tried", "incomplete"))


class Brake:
    """One verb of the brake over sites of a fleet: hold, release or show."""

    def __init__(
        self, *, fleet: Fleet, verb: str, hold: Hold | None = None, dry_run: bool = False, timeouts: Timeouts = QUICK
    ) -> None:
        self.fleet = fleet
        self.verb = verb
        self._hold = hold
        self._dry = dry_run
        self._timeouts = timeouts
        self._sites = {site.id: site for site in fleet.sites}

    def carry_out(
        self,
        *,
        sites: Sequence[str],
        workers: int = WORKERS,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> dict[str, SiteResult]:
        """Do it to all of them, many at a time, and note who is held."""
        before: dict[str, HoldNote] | None = None
        if self._hold is not None and not self._dry:
            # Before anybody is told: a status after a killed run asks them.
            before = read_holds(holds_file(self.fleet), now=time.time())
            told = HoldNote(until=self._hold.until, by=one_line(self._hold.by), reason=one_line(self._hold.reason))
            self._enter(dict.fromkeys(sites, told))
        results = fan_out(
            sites=sites,
            work=self.one,
            workers=at_once(sites=(self._sites[site] for site in sites), workers=workers),
            limit=self._timeouts.deadline,
            on_progress=on_progress,
        )
        if not self._dry:
            self.note(results, before=before)
        return results

    def one(self, site: str, *, seen: str = "") -> SiteResult:
        """Do it to one site; a release ends the hold that was seen there, if one is named, and no other."""
        target = site_target(plan=self.fleet.plan, site=self._sites[site])
        order = Order(target=target, verb=self.verb, hold=self._hold, seen=seen, dry_run=self._dry)
        return carry_out(order=order, timeouts=self._timeouts)

    def note(self, results: Mapping[str, SiteResult], *, before: Mapping[str, HoldNote] | None = None) -> None:
        """Note what sites said of their holds; who was surely not told of a new one has what it had before.

        Where an answer says nothing of a hold, what was noted stays: to ask once too often does no harm.
        """
        now = time.time()
        found: dict[str, HoldNote | None] = {}
        for site, one in results.items():
            if "held" in one.receipt:
                found[site] = note_of(one.receipt, now=now)
            elif before is not None and one.reason in UNTOLD:
                found[site] = before.get(site)
        self._enter(found)

    def _enter(self, found: Mapping[str, HoldNote | None]) -> None:
        enter_holds(holds_file(self.fleet), found=found, now=time.time())


def named_sites(*, fleet: Fleet, names: Sequence[str], everybody: bool = False) -> list[str]:
    """The sites of these groups and these sites, in the plan's order of groups.

    Raises:
        FleetError: a name that is neither, nobody is named, or somebody and everybody.
    """
    sites = {site.id for site in fleet.sites}
    strange = [one for one in dict.fromkeys(names) if one not in sites and one not in fleet.plan.groups]
    if strange:
        raise FleetError(
            f"{', '.join(strange[:5])}{f' and {len(strange) - 5} more' if len(strange) > 5 else ''}: neither a group "
            f"of the plan, which has {', '.join(fleet.plan.groups)}, nor a site of the registry {fleet.plan.registry}."
        )
    if everybody and names:
        raise FleetError("--all means every site of the registry; name no group and no site beside it.")
    if not everybody and not names:
        raise FleetError(f"no site is named. Name groups or sites, or --all for all {len(fleet.sites)} sites.")
    order = {group: number for number, group in enumerate(fleet.plan.groups)}
    return [
        site.id
        for site in sorted(fleet.sites, key=lambda site: order[site.group])
        if everybody or site.id in names or site.group in names
    ]


def brake_report(*, verb: str, check: bool, results: Mapping[str, SiteResult], **more: Any) -> dict[str, Any]:
    """What was done, as data: for each site, and in sum."""
    failed = [site for site, one in results.items() if not one.ok]
    changed = [site for site, one in results.items() if one.changed]
    well = len(results) - len({*failed, *changed})
    done = {"hold": "held", "release": "released"}[verb]
    said = (
        f"{verb}: {len(results)} sites, {len(changed)} {'would be ' if check else ''}{done}, {well} as they should be, "
        f"{len(failed)} failed"
    )
    return {
        "verb": verb,
        "check": check,
        "changed": bool(changed),
        "sites": {
            site: {
                "ok": one.ok,
                "changed": one.changed,
                "reason": one.reason,
                "message": one.message,
                "seconds": one.seconds,
                **{name: one.receipt[name] for name in ("held", "held_by", "held_reason") if name in one.receipt},
            }
            for site, one in results.items()
        },
        "ok_sites": [site for site, one in results.items() if one.ok],
        "failed_sites": failed,
        "said": said,
        **more,
    }
