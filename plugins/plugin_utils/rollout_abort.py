# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give a rollout up: whoever is on probation goes back, and a new key that nobody works with ends."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import Seen
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_states import ENDED, newest_of
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_lines import (
    ABORTED,
    DONE,
    FAILED,
    GIVEN_UP,
    Halt,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.site_run import SiteRun

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import Progress, SiteResult
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout import Rollout


@dataclass(kw_only=True)
class Aborted:
    """Sites by what became of them; ``left`` names those that could not be asked, and why."""

    kept_new: list[str] = field(default_factory=list)
    went_back: list[str] = field(default_factory=list)
    untouched: list[str] = field(default_factory=list)
    keys_ended: dict[str, int] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def abort(
    *,
    fleet: Fleet,
    store: KeyStore,
    record: Rollout,
    by: str,
    on_progress: Callable[[str, Progress], None] | None = None,
) -> Aborted:
    """Leave every site of a rollout on a generation that is confirmed; the record says so when it is done.

    A site that has confirmed the new generation keeps it. One on probation goes back to the former at once. Where no
    site works with a new key, the key ends, and the former one is the newest again. A site that cannot be asked is left
    as it is, its new key too: nobody knows which one it works with, and its dead-man timer takes it back by itself.
    """
    sites = [site for site in record.sites if site in {one.id for one in fleet.sites}]

    def carry_out(verb: str, some: Sequence[str], generation: str = "") -> dict[str, SiteResult]:
        run = SiteRun(
            fleet=fleet,
            verb=verb,
            generation=generation,
            deadman_seconds=fleet.plan.policies.deadman_seconds,
            dry_run=False,
            store=store,
        )
        return run.carry_out(
            sites=some, on_progress=None if on_progress is None else lambda step: on_progress(verb, step)
        )

    shown = carry_out("show", sites)
    found = Aborted(left={site: one.message for site, one in shown.items() if not one.ok})
    back = [site for site, one in shown.items() if one.ok and one.receipt.get("pending")]
    for site, one in (carry_out("revert", back) if back else {}).items():
        if one.ok:
            found.went_back.append(site)
            shown[site] = one
        else:
            found.left[site] = one.message
    reached = {site: one for site, one in shown.items() if site not in found.left}
    ending = _ending(store=store, shown=reached) if record.what == "keys" else {}
    for epoch in sorted(set(ending.values())):
        told = carry_out("forget", [site for site, one in ending.items() if one == epoch], f"epoch {epoch}")
        found.left |= {site: one.message for site, one in told.items() if not one.ok}
    found.keys_ended = {site: epoch for site, epoch in ending.items() if site not in found.left}
    store.mark(seen=[Seen(site=site, epoch=epoch, state="retired") for site, epoch in found.keys_ended.items()])
    index = store.index(sites=list(reached)) if record.what == "keys" else {}
    for site, one in reached.items():
        if site not in found.left and site not in found.went_back:
            newest = newest_of(index.get(site, {}))
            kept = _keeps_new(record, site=site, runs_newest=site not in ending and _epoch_of(one) == newest > 0)
            (found.kept_new if kept else found.untouched).append(site)
    _enter(record, found=found, by=by)
    return found


def _ending(*, store: KeyStore, shown: Mapping[str, SiteResult]) -> dict[str, int]:
    """The new keys that no site works with, by what the sites say.

    Where the key that a site works with was revoked meanwhile, the new one is all it has, and stays.
    """
    index = store.index(sites=list(shown))
    ending = {}
    for site, one in shown.items():
        epochs, runs = index.get(site, {}), _epoch_of(one)
        epoch = newest_of(epochs)
        if runs in epochs and epoch > runs and epochs[runs]["state"] not in ENDED:
            ending[site] = epoch
    return ending


def _keeps_new(record: Rollout, *, site: str, runs_newest: bool) -> bool:
    """Whether a site has confirmed the new generation, also when the run that saw it did not live to say so."""
    line = record.sites[site]
    # After an earlier abort the newest key is the former one.
    return line.state == DONE or line.reason == "soak" or (runs_newest and line.reason != ABORTED)


def _epoch_of(one: SiteResult) -> int:
    """The epoch of the generation that a site has confirmed and runs; 0 where it says none."""
    receipt = one.receipt
    if receipt.get("current") != receipt.get("confirmed"):
        return 0
    epochs = {held["generation"]: held.get("facts", {}).get("epoch") for held in receipt.get("generations", ())}
    return int(epochs.get(receipt.get("current")) or 0)


def _enter(record: Rollout, *, found: Aborted, by: str) -> None:
    for site, line in record.sites.items():
        if site in found.left:
            line.message = f"could not be asked, so it was left as it is: {found.left[site]}"
        elif site in found.kept_new:
            if line.state != FAILED:
                line.state, line.reason, line.message = DONE, "", "runs it, confirmed"
        else:
            line.state, line.reason = ABORTED, ABORTED
            line.message = "went back to what it had confirmed" if site in found.went_back else "keeps what it runs"
    now = time.time()
    if record.outcome != GIVEN_UP:
        record.halts.append(Halt(at=now, wave="", why=f"aborted by {by}"))
    record.outcome, record.ended = GIVEN_UP, now
