# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the store's index says about the keys of a fleet. Reads no secret."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_states import ENDED, newest_of
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_storage import CRL
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rotation import DUE_DAYS, MOST_DAYS, issued_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollover_steps import Rolled

# The list is renewed when less than a year is left; with less than this somebody has not run anything for long.
CRL_WATCH_DAYS: Final = 180
NO_KEY: Final = "none"


def key_report(
    *,
    fleet: Fleet,
    store: KeyStore,
    sites: Sequence[str],
    all_epochs: bool,
    gone: Sequence[str] = (),
    now: dt.datetime | None = None,
) -> dict[str, Any]:
    """A row for each asked site and epoch, newest last, and how long the revocation list still lives.

    `gone` are sites that left the registry and have keys, shown or not.
    """
    now = now or dt.datetime.now(tz=dt.UTC)
    group_of = {site.id: site.group for site in fleet.sites}
    index = store.index(sites=sites)
    rows = [
        _row(site=site, group=group_of.get(site, ""), entry=entry, now=now)
        for site in sites
        for entry in _epochs(index.get(site, {}), all_epochs=all_epochs)
    ]
    days = crl_days_left(store=store, now=now)
    without = [row["site"] for row in rows if row["state"] == NO_KEY]
    newest = {site: epochs[newest_of(epochs)] for site, epochs in index.items() if site in group_of}
    live = {site: _age(entry, now=now) for site, entry in newest.items() if entry["state"] not in ENDED}
    overdue = [site for site, age in live.items() if age >= MOST_DAYS]
    return {
        "fleet": fleet.plan.name,
        "store": str(store.path),
        "crl_days_left": days,
        "keys": rows,
        "without_key": without,
        "due": [site for site, age in live.items() if age >= DUE_DAYS],
        "overdue": overdue,
        "not_in_registry": list(gone),
        "rollovers": list(_rollovers(fleet=fleet, store=store)),
        "well": not without and not overdue and days is not None and days >= CRL_WATCH_DAYS,
    }


def _rollovers(*, fleet: Fleet, store: KeyStore) -> Iterator[dict[str, str]]:
    """The server key and the CA, where one is to follow another and that is not over."""
    plan = fleet.plan
    both: tuple[Rolled, ...] = (store.server_keys, store.authorities(fleet=plan.name, key_type=plan.tunnels.key_type))
    for what, one in zip(("server key", "CA"), both, strict=True):
        books = one.books()
        there = books.there
        if there.phase != "one":
            newer = there.other if there.phase == "next" else there.serving
            yield {
                "what": what,
                "serving": there.serving,
                "other": there.other,
                "phase": there.phase,
                "reason": books.reasons.get(newer, ""),
                "playbook": f"playbooks/{one.playbook}",
            }


def gone_sites(*, fleet: Fleet, store: KeyStore) -> list[str]:
    """The sites that have keys and no line in the registry any more."""
    return sorted(set(store.sites()) - {site.id for site in fleet.sites})


def crl_days_left(*, store: KeyStore, now: dt.datetime | None = None) -> int | None:
    """Whole days until the revocation list expires; None when there is no list."""
    path = store.path / CRL
    if not path.exists():
        return None
    return certificates.crl_days_left(crl=path.read_text(encoding="ascii"), now=now or dt.datetime.now(tz=dt.UTC))


def _epochs(epochs: Mapping[int, Mapping[str, Any]], *, all_epochs: bool) -> list[Mapping[str, Any]]:
    found = [epochs[number] for number in sorted(epochs)]
    if not found:
        return [{}]
    return found if all_epochs else [epochs[newest_of(epochs)]]


def _row(*, site: str, group: str, entry: Mapping[str, Any], now: dt.datetime) -> dict[str, Any]:
    state = str(entry.get("state", NO_KEY))
    times = entry.get("times", {})
    return {
        "site": site,
        "group": group,
        "epoch": int(entry.get("epoch", 0)),
        "kid": str(entry.get("kid", "")),
        "psk_fingerprint": str(entry.get("psk_fingerprint", "")),
        "state": state,
        "issued": str(times.get("issued", "")),
        "age_days": _age(entry, now=now) if entry else None,
        "since": str(times.get(state, "")),
        "certificate_expires": str(entry.get("certificate_expires", "")),
    }


def _age(entry: Mapping[str, Any], *, now: dt.datetime) -> int:
    return (now - issued_at(entry)).days
