# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it takes to revoke a site: every key it ever had ends, in one step of the key store."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import open_store
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ledger import REASON_MAX
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rotation import denied, named, reasons_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet


class RevocationError(FleetError):
    """Nothing was revoked."""


@dataclass(frozen=True, kw_only=True)
class Revocation:
    """What was revoked and made, by site.

    ``denied``: ids of all keys no gateway may let in. ``lines``: for people. ``skipped``: sites whose newest key was
    made for the same reason before, with its epoch; that key is let in.
    """

    revoked: dict[str, list[int]] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    denied: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)


def revoke(
    *, fleet: Fleet, sites: Sequence[str], reason: str, reissue: bool, dry_run: bool, owner: int | None = None
) -> Revocation:
    """Revoke all keys of the sites, and with `reissue` make each a new one.

    A site that is to stay away must have left the registry: the next run would make it a new key, and bring it to
    whoever has the box. One that is to come back at once must be in it.

    Raises:
        RevocationError: the sites do not fit, or no reason is given.
        KeyStoreError: the key store cannot be used as it is.
    """
    store = open_store(fleet.plan)
    _refuse(fleet=fleet, known=store.sites(), sites=sites, reason=reason, reissue=reissue)
    with nullcontext() if dry_run else store.operation(f"revoke {', '.join(sites)}", owner=owner):
        before = store.index(sites=sites)
        reasons = reasons_of(store.ledger.entries()) if reissue else {}
        due = [
            site
            for site, epochs in before.items()
            if not _reissued(epochs, made_for=reasons.get((site, max(epochs)), ""), reason=reason)
        ]
        revoked = store.revoke(sites=due, reason=reason, dry_run=dry_run)
        made: dict[str, int] = {}
        if reissue and due:
            key_type = fleet.plan.tunnels.key_type
            made = store.regenerate(sites=due, key_type=key_type, reason=reason, dry_run=dry_run)
        index = store.index()
    return Revocation(
        revoked=revoked,
        made=made,
        denied=denied(index, ending=revoked),
        skipped={site: max(epochs) for site, epochs in before.items() if site not in due},
        lines=[named(site, before[site][epoch]) for site, epochs in revoked.items() for epoch in epochs],
    )


def _reissued(epochs: Mapping[int, Mapping[str, Any]], *, made_for: str, reason: str) -> bool:
    """The same was asked before: the newest key was made for it, and all others are revoked."""
    newest = max(epochs, default=0)
    older = [one["state"] for epoch, one in epochs.items() if epoch < newest]
    return made_for == reason[:REASON_MAX] and bool(older) and set(older) == {"revoked"}


def _refuse(*, fleet: Fleet, known: Sequence[str], sites: Sequence[str], reason: str, reissue: bool) -> None:
    registered = {site.id for site in fleet.sites}
    faults = [] if sites else ["no site is named."]
    if not reason.strip():
        faults.append("a revocation wants a reason. It is kept in the ledger, for whoever asks later.")
    for site in sites:
        if site not in known:
            faults.append(f"{site}: no key was ever made for it. Check the id: `tools/fleet keys` lists them.")
        elif site in registered and not reissue:
            faults.append(
                f"{site} is in the registry, so the next run would make it a new key. Remove its line from "
                f"{fleet.plan.registry}, then run again. If it is to have a new key at once, add -e emergency=true."
            )
        elif site not in registered and reissue:
            faults.append(f"{site} is not in the registry, so it cannot have a new key. Leave emergency=true out.")
    if faults:
        raise RevocationError("Nothing was revoked. " + " ".join(faults))
