# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fan-out over sites does for each of them, and what it says about all. Every face only shows it."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils import bundle as bundles
from ansible_collections.spokewright.fleet.plugins.plugin_utils.delivery import Order, carry_out, settled
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import WORKERS, Progress, SiteResult, fan_out
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import NoKeyError, Seen, open_store
from ansible_collections.spokewright.fleet.plugins.plugin_utils.own_run import is_over
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_transport import Timeouts
from ansible_collections.spokewright.fleet.plugins.plugin_utils.targets import at_once, site_target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore

# The dead-man timers of the sites that are done run while the last one is waited for.
QUICK: Final = Timeouts(command=30, deadline=30)
NEEDS_BUNDLE: Final = frozenset(("stage", "activate", "confirm"))
# Results between two entries in the books: what a killed controller has to ask its sites again.
BATCH: Final = 50
RETIRED: Final = "retired"
# Of no use once it is known that the site does not change.
BULKY: Final = frozenset(("config", "manifest", "tools"))


class SiteRun:
    """One verb over many sites of a fleet.

    `generation` says what `revert` leaves and `forget` removes, see `Order`; "retired" is what each site has of keys
    before its confirmed one. `texts` asks for what `differences` compares with; a dry run has it anyway.
    """

    def __init__(
        self,
        *,
        fleet: Fleet,
        verb: str,
        deadman_seconds: int,
        dry_run: bool,
        timeouts: Timeouts | None = None,
        store: KeyStore | None = None,
        owner: int | None = None,
        generation: str = "",
        texts: bool = False,
    ) -> None:
        self.fleet = fleet
        self.verb = verb
        self.deadman_seconds = deadman_seconds
        self.dry_run = dry_run
        self.generation = generation
        self.texts = texts
        self.timeouts = timeouts or (QUICK if verb in {"activate", "confirm"} else Timeouts())
        self.began: dict[str, float] = {}
        self._sites = {site.id: site for site in fleet.sites}
        self._store = store or open_store(fleet.plan)
        self._owner = owner
        self._books: list[Seen] = []

    def carry_out(
        self,
        *,
        sites: Sequence[str],
        workers: int = WORKERS,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> dict[str, SiteResult]:
        """Carry the verb out on all of them and enter in the key store what they then hold.

        Raises:
            KeyStoreLockedError: somebody else changes keys or sites at this moment.
        """
        changes = self.verb != "show" and not self.dry_run
        work = self._store.operation(f"{self.verb} on {len(sites)} sites", owner=self._owner) if changes else None

        def note(progress: Progress) -> None:
            if changes:
                self._books += seen_by(verb=self.verb, result=progress.last)
                if len(self._books) >= BATCH:
                    self._enter()
            if on_progress is not None:
                on_progress(progress)

        with work or contextlib.nullcontext():
            try:
                return fan_out(
                    sites=sites,
                    work=self.one,
                    workers=at_once(sites=filter(None, map(self._sites.get, sites)), workers=workers),
                    limit=self.timeouts.deadline,
                    on_progress=note,
                )
            finally:
                self._enter()

    def _enter(self) -> None:
        seen, self._books = self._books, []
        if seen:
            self._store.mark(seen=seen)

    def one(self, site: str) -> SiteResult:
        """Carry the verb out on one site."""
        if is_over(self._owner):
            # Killed: the next run does the rest, and waits for us until then.
            return SiteResult(site=site, ok=False, reason="run-ended", message="the run that asked for it has ended")
        found = self._sites[site]
        self.began[site] = time.time()
        target = site_target(plan=self.fleet.plan, site=found)
        bundle = None
        if self.verb in NEEDS_BUNDLE:
            try:
                bundle = bundles.build(site=found, key=self._store.site_key(site=site))
            except NoKeyError as exc:
                return self._without_key(site=site, why=str(exc), order=Order(target=target, verb="show"))
        order = Order(
            target=target,
            verb=self.verb,
            bundle=bundle,
            deadman_seconds=self.deadman_seconds,
            dry_run=self.dry_run,
            generation=self._generation(site),
            texts=self.texts,
        )
        result = carry_out(order=order, timeouts=self.timeouts)
        if bundle is not None:
            both = {"carries": bundle.carries} if bundle.carries else {}
            result = dataclasses.replace(result, receipt={**result.receipt, "epoch": bundle.epoch, **both})
        return result if self.verb == "show" else _lean(result)

    def _generation(self, site: str) -> str:
        if self.generation != RETIRED:
            return self.generation
        epochs = self._store.index(sites=[site]).get(site, {})
        return f"below {max((epoch for epoch, one in epochs.items() if one['state'] == 'confirmed'), default=0)}"

    def _without_key(self, *, site: str, why: str, order: Order) -> SiteResult:
        if not self.dry_run:
            return SiteResult(site=site, ok=False, reason="no-key", message=why)
        shown = carry_out(order=order, timeouts=self.timeouts)
        message = "would make its key, then send it its first bundle" if shown.ok else shown.message
        return dataclasses.replace(shown, changed=shown.ok, message=message)

    def differences(self, *, results: Mapping[str, SiteResult]) -> list[dict[str, str]]:
        """Configuration and file digests, before and after, of the sites that change. Never a key."""
        found = []
        for name, result in results.items():
            if not result.changed:
                continue
            site = self._sites[name]
            public = bundles.render_public(site=site)
            try:
                bundle = bundles.build(site=site, key=self._store.site_key(site=name))
                public, manifest = bundles.render_public(site=site, two_psks=bundle.two_psks), bundle.manifest
            except NoKeyError:
                manifest = bundles.manifest_of(files=public) + "(and its key, which is not made yet)\n"
            for file, field, after in (
                (bundles.CONFIG, "config", public[bundles.CONFIG]),
                (bundles.MANIFEST, "manifest", manifest),
            ):
                before = str(result.receipt.get(field, ""))
                found.append(_difference(site=name, file=file, before=before, after=after))
        return [one for one in found if one["before"] != one["after"]]


def seen_by(*, verb: str, result: SiteResult) -> list[Seen]:
    """What a receipt tells the books. Only keys the site has proven to hold count."""
    receipt = result.receipt
    if not result.ok:
        return []
    if verb == "revert":
        return _seen_back(site=result.site, receipt=receipt)
    if verb not in NEEDS_BUNDLE or "epoch" not in receipt:
        return []
    state, carries = "staged", ""
    if receipt["generation"] == receipt["confirmed"]:
        state, carries = "confirmed", str(receipt.get("carries", ""))
    elif receipt["generation"] == receipt["current"]:
        state = "active"
    return [Seen(site=result.site, epoch=int(receipt["epoch"]), state=state, carries=carries)]


def _seen_back(*, site: str, receipt: Mapping[str, Any]) -> list[Seen]:
    epochs = {one["generation"]: one.get("facts", {}).get("epoch") for one in receipt.get("generations", ())}
    now, former = epochs.get(receipt["current"]), epochs.get(receipt["reverted"])
    seen = []
    if former is not None and former != now:
        seen.append(Seen(site=site, epoch=int(former), state="staged", back=True))
    if now is not None and receipt["current"] == receipt["confirmed"]:
        seen.append(Seen(site=site, epoch=int(now), state="confirmed", back=True))
    return seen


def _lean(result: SiteResult) -> SiteResult:
    """Thousands of receipts are kept until the end of a run."""
    receipt = {name: value for name, value in result.receipt.items() if result.changed or name not in BULKY}
    return dataclasses.replace(result, receipt=receipt)


def summary(*, results: Mapping[str, SiteResult], began: Mapping[str, float]) -> dict[str, Any]:
    """A small answer: per site what happened, and lists that a play can select by.

    `activated` is when the activation of a site began: a session older than that proves nothing about it.
    """
    return {
        "changed": any(one.changed for one in results.values()),
        "sites": {name: _brief(one) for name, one in results.items()},
        "ok_sites": [name for name, one in results.items() if one.ok],
        "failed_sites": [name for name, one in results.items() if not one.ok],
        "unsettled_sites": [name for name, one in results.items() if one.ok and not _settled(one)],
        "held_sites": [name for name, one in results.items() if one.ok and one.receipt.get("held")],
        "openvpn_missing": [name for name, one in results.items() if one.ok and one.receipt.get("installed") is False],
        "activated": {
            name: began[name]
            for name, one in results.items()
            if one.ok and one.changed and one.receipt.get("verb") == "activate"
        },
    }


BRIEF: Final = (
    "generation",
    "digest",
    "epoch",
    "current",
    "confirmed",
    "previous",
    "pending",
    "reverted",
    "forgotten",
    "init",
    "openvpn",
    "free_kb",
    "tools",
    "service",
    "enabled",
    "held",
    "held_by",
    "held_reason",
)


def _brief(result: SiteResult) -> dict[str, Any]:
    receipt = result.receipt
    brief: dict[str, Any] = {
        "ok": result.ok,
        "changed": result.changed,
        "reason": result.reason,
        "message": result.message,
        "seconds": result.seconds,
        **{field: receipt[field] for field in BRIEF if field in receipt},
    }
    if receipt.get("verb") == "show":
        brief["generations"] = receipt.get("generations", [])
    return brief


def _settled(result: SiteResult) -> bool:
    receipt = dict(result.receipt)
    return not result.changed and "generations" in receipt and settled(shown=receipt, digest=receipt.get("digest", ""))


def _difference(*, site: str, file: str, before: str, after: str) -> dict[str, str]:
    header = f"{site} {bundles.DIRECTORY}/{file}"
    # The site's answer carries the text without its last line end.
    whole = f"{before}\n" if before and not before.endswith("\n") else before
    return {"before_header": header, "after_header": header, "before": whole, "after": after}
