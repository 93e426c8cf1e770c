# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fan-out over sites does for each of them, and what it says about all. The Ansible action is only its face."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils import bundle as bundles
from ansible_collections.spokewright.fleet.plugins.plugin_utils.delivery import Order, carry_out, settled, target_for
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import SiteResult
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import NoKeyError, open_store
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_transport import Timeouts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet

# The dead-man timers of the sites that are done run while the last one is waited for.
QUICK: Final = Timeouts(command=30, deadline=30)
NEEDS_BUNDLE: Final = frozenset(("stage", "activate", "confirm"))


class SiteRun:
    """One verb over many sites of a fleet."""

    def __init__(
        self, *, fleet: Fleet, verb: str, deadman_seconds: int, dry_run: bool, timeouts: Timeouts | None = None
    ) -> None:
        self.fleet = fleet
        self.verb = verb
        self.deadman_seconds = deadman_seconds
        self.dry_run = dry_run
        self.timeouts = timeouts or (QUICK if verb in {"activate", "confirm"} else Timeouts())
        self._sites = {site.id: site for site in fleet.sites}
        self._store = open_store(fleet.plan)
        self.began: dict[str, float] = {}

    def one(self, site: str) -> SiteResult:
        """Carry the verb out on one site."""
        found = self._sites[site]
        self.began[site] = time.time()
        target = target_for(fleet=self.fleet, site=found)
        bundle = None
        if self.verb in NEEDS_BUNDLE:
            try:
                bundle = bundles.build(site=found, key=self._store.site_key(site=site))
            except NoKeyError as exc:
                if not self.dry_run:
                    return SiteResult(site=site, ok=False, reason="no-key", message=str(exc))
                shown = carry_out(order=Order(target=target, verb="show"), timeouts=self.timeouts)
                return SiteResult(
                    site=site,
                    ok=shown.ok,
                    changed=shown.ok,
                    reason=shown.reason,
                    message="would make its key, then send it its first bundle" if shown.ok else shown.message,
                    receipt=shown.receipt,
                )
        order = Order(
            target=target,
            verb=self.verb,
            bundle=bundle,
            deadman_seconds=self.deadman_seconds,
            dry_run=self.dry_run,
        )
        return carry_out(order=order, timeouts=self.timeouts)

    def differences(self, *, results: Mapping[str, SiteResult]) -> list[dict[str, str]]:
        """Configuration and file digests, before and after, of the sites that change. Never a key."""
        found = []
        for name, result in results.items():
            if not result.changed:
                continue
            site = self._sites[name]
            public = bundles.render_public(site=site)
            try:
                manifest = bundles.build(site=site, key=self._store.site_key(site=name)).manifest
            except NoKeyError:
                manifest = bundles.manifest_of(files=public) + "(and its key, which is not made yet)\n"
            for file, field, after in (
                (bundles.CONFIG, "config", public[bundles.CONFIG]),
                (bundles.MANIFEST, "manifest", manifest),
            ):
                before = str(result.receipt.get(field, ""))
                found.append(_difference(site=name, file=file, before=before, after=after))
        return [one for one in found if one["before"] != one["after"]]


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
        "openvpn_missing": [name for name, one in results.items() if one.ok and one.receipt.get("openvpn") == ""],
        "activated": {
            name: began[name]
            for name, one in results.items()
            if one.ok and one.changed and one.receipt.get("verb") == "activate"
        },
    }


def _brief(result: SiteResult) -> dict[str, Any]:
    receipt = result.receipt
    brief: dict[str, Any] = {
        "ok": result.ok,
        "changed": result.changed,
        "reason": result.reason,
        "message": result.message,
        "seconds": result.seconds,
    }
    for field in ("generation", "digest", "current", "confirmed", "pending", "openvpn", "service"):
        if field in receipt:
            brief[field] = receipt[field]
    return brief


def _settled(result: SiteResult) -> bool:
    receipt = dict(result.receipt)
    return not result.changed and "generations" in receipt and settled(shown=receipt, digest=receipt.get("digest", ""))


def _difference(*, site: str, file: str, before: str, after: str) -> dict[str, str]:
    header = f"{site} {bundles.DIRECTORY}/{file}"
    # The site's answer carries the text without its last line end.
    whole = f"{before}\n" if before and not before.endswith("\n") else before
    return {"before_header": header, "after_header": header, "before": whole, "after": after}
