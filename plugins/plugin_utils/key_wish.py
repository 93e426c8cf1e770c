# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator wants of the sites' keys, and how the key store gets there: made, made anew, or destroyed."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import Ensured, KeyStore

# How many sites a message names.
NAMED: Final = 5
CAME_BACK: Final = "its keys were revoked, and it is in the registry"


class WishError(FleetError):
    """What was asked for does not fit together, or does not fit what the key store holds."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Keys of these sites: there, of this epoch, made anew, or gone."""

    sites: tuple[str, ...] | None = None
    state: Literal["present", "absent"] = "present"
    epoch: int | None = None
    regenerate: bool = False
    reason: str = ""

    def check(self) -> None:
        """Refuse what does not fit together, before anything is looked at."""
        if self.epoch is not None and self.epoch < 1:
            raise WishError(f"epoch is {self.epoch}. Epochs are counted from 1.")
        if self.state == "absent" and self.regenerate:
            raise WishError("state=absent destroys a key and regenerate=true makes one. Ask for one of them.")
        if self.state == "absent" and self.epoch is None:
            raise WishError("state=absent destroys the key of one epoch for good, so it wants epoch.")
        what = "state=absent" if self.state == "absent" else "regenerate=true"
        if (self.state == "absent" or self.regenerate) and not self.sites:
            raise WishError(f"{what} wants sites, each by its id: a whole fleet is never meant by leaving them out.")
        if (self.state == "absent" or self.regenerate) and not self.reason.strip():
            raise WishError(f"{what} wants a reason. It is kept in the ledger, for whoever asks later.")


@dataclass(frozen=True, kw_only=True)
class Granted:
    """What became of a wish, or in a dry run would become of it. No field holds a secret."""

    ensured: Ensured | None = None
    made: Mapping[str, int] = field(default_factory=dict)
    destroyed: Mapping[str, int] = field(default_factory=dict)
    before: Mapping[str, Mapping[int, Mapping[str, Any]]] = field(default_factory=dict)
    index: Mapping[str, Mapping[int, Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether anything is new or gone."""
        return bool(self.made or self.destroyed or (self.ensured is not None and self.ensured.changed))


def grant(*, wish: Wish, fleet: Fleet, store: KeyStore, dry_run: bool, owner: int | None = None) -> Granted:
    """Bring the key store to the wish. All sites are judged before the first key is made."""
    wish.check()
    sites = _known(wish=wish, fleet=fleet, store=store)
    what = {"absent": "destroy keys", "present": "make new keys" if wish.regenerate else "make keys"}[wish.state]
    with nullcontext() if dry_run else store.operation(what, owner=owner):
        before = store.index(sites=sites)
        if wish.state == "absent":
            found = Granted(destroyed=_absent(wish=wish, store=store, sites=sites, dry_run=dry_run), before=before)
        else:
            found = _present(wish=wish, fleet=fleet, store=store, sites=sites, dry_run=dry_run, before=before)
        index = store.index(sites=sites)
    return Granted(ensured=found.ensured, made=found.made, destroyed=found.destroyed, before=before, index=index)


def _present(
    *,
    wish: Wish,
    fleet: Fleet,
    store: KeyStore,
    sites: Sequence[str],
    dry_run: bool,
    before: Mapping[str, Mapping[int, Mapping[str, Any]]],
) -> Granted:
    # A key that the index knows and the disk has lost counts as well: its epoch is never given twice.
    newest = {site: max((*store.epochs(site=site), *before.get(site, {})), default=0) for site in sites}
    due = _due(wish=wish, newest=newest)
    key_type = fleet.plan.tunnels.key_type
    made = store.regenerate(sites=due, key_type=key_type, reason=wish.reason, dry_run=dry_run) if due else {}
    # A site that was revoked and has a line again is meant to come back, with a key that nobody has seen.
    back = [site for site, epoch in newest.items() if site not in made and _is_revoked(before.get(site, {}), epoch)]
    if back:
        made |= store.regenerate(sites=back, key_type=key_type, reason=wish.reason or CAME_BACK, dry_run=dry_run)
    ensured = store.ensure(
        fleet=fleet.plan.name,
        key_type=key_type,
        gateways=[gateway.name for gateway in fleet.plan.gateways],
        sites=[site for site in sites if site not in made],
        dry_run=dry_run,
    )
    return Granted(ensured=ensured, made={**dict.fromkeys(ensured.made_sites, 1), **made}, before=before)


def _is_revoked(epochs: Mapping[int, Mapping[str, Any]], newest: int) -> bool:
    return bool(newest) and epochs.get(newest, {}).get("state") == "revoked"


def _absent(*, wish: Wish, store: KeyStore, sites: Sequence[str], dry_run: bool) -> dict[str, int]:
    epoch = wish.epoch or 0
    # First all of them dry: a refusal for the last site must not find the first one's key gone.
    gone = [site for site in sites if store.destroy(site=site, epoch=epoch, reason=wish.reason, dry_run=True)]
    for site in gone if not dry_run else []:
        store.destroy(site=site, epoch=epoch, reason=wish.reason)
    return dict.fromkeys(gone, epoch)


def _due(*, wish: Wish, newest: Mapping[str, int]) -> list[str]:
    """The sites that have a key and are to have another; refuse an epoch that no step of ours leads to."""
    # A site without a key gets its first one in any case, and that one is new enough.
    after = {site: epoch or 1 for site, epoch in newest.items()}
    if not wish.regenerate:
        if wish.epoch is not None:
            _refuse(wish=wish, wrong=[site for site in after if after[site] != wish.epoch], after=after)
        return []
    if wish.epoch is None:
        return [site for site, epoch in newest.items() if epoch]
    due = [site for site, epoch in newest.items() if epoch and epoch + 1 == wish.epoch]
    _refuse(wish=wish, wrong=[site for site in after if site not in due and after[site] != wish.epoch], after=after)
    return due


def _refuse(*, wish: Wish, wrong: Sequence[str], after: Mapping[str, int]) -> None:
    if not wrong:
        return
    said = ", ".join(f"{site} is at epoch {after[site]}" for site in wrong[:NAMED])
    more = f" and {len(wrong) - NAMED} more are not at it" if len(wrong) > NAMED else ""
    todo = (
        f"regenerate=true makes epoch {wish.epoch} only where {(wish.epoch or 1) - 1} is the newest."
        if wish.regenerate
        else "A newer key is made with regenerate=true; an older one never becomes the newest again."
    )
    raise WishError(f"epoch {wish.epoch} was asked for: {said}{more}. Nothing was made. {todo}")


def _known(*, wish: Wish, fleet: Fleet, store: KeyStore) -> list[str]:
    """The sites that are meant. A key may be destroyed after its site has left the registry."""
    registered = [site.id for site in fleet.sites]
    if wish.sites is None:
        return registered
    known = set(registered)
    strange = [
        site for site in wish.sites if site not in known and not (wish.state == "absent" and store.epochs(site=site))
    ]
    if strange:
        raise WishError(
            f"{', '.join(strange[:NAMED])}{' and more' if len(strange) > NAMED else ''}: not in the registry of "
            f"{fleet.plan.file}. Check the ids against {fleet.plan.registry}."
        )
    return list(dict.fromkeys(wish.sites))
