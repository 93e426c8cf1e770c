# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's encrypted directory of all keys: made once, kept for good, never half written.

ca.pem  crl.pem                      public
ca.key.vault  server-tls-crypt-v2.vault
gateways/NAME.vault  NAME.pem
sites/ID/EPOCH.vault                 one file per site and epoch
index/ID.json                        who has which key, by fingerprint; no secret in it
ledger.jsonl  ledger.head            what happened to every key
operation.json  lock                 who is or was at work
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.authority_store import AuthorityStore
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_index import KeyIndex, misfits
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_losses import Losses
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_maker import (
    KeyMaker,
    revocations,
    seen_events,
    serials,
    state_event,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_reader import KeyReader
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import (
    Ensured,
    GatewayKey,
    KeyStoreError,
    KeyStoreLockedError,
    LedgerError,
    NoKeyError,
    Seen,
    SiteKey,
    StoreKeyError,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_recovery import REMOVE, STORE_KEY, Recovery
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_states import IN_USE, STATES, newest_of
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_storage import (
    CA_CERT,
    CA_KEY,
    CRL,
    SERVER_KEY,
    Storage,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ledger import Event, Ledger
from ansible_collections.spokewright.fleet.plugins.plugin_utils.server_key_store import ServerKeyStore
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_key import StoreKey
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_lock import refuse_busy, who
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_work import StoreWork, told

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.operation import Operation
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Plan

__all__ = [
    "Ensured",
    "Event",
    "GatewayKey",
    "KeyStore",
    "KeyStoreError",
    "KeyStoreLockedError",
    "Ledger",
    "LedgerError",
    "NoKeyError",
    "Seen",
    "SiteKey",
    "StoreKeyError",
    "open_store",
]


# Of its birth and its end the store knows by itself.
SEEN_STATES: Final = STATES[1:-1]


def open_store(plan: Plan) -> KeyStore:
    """The key store of a plan. Nothing is made or read yet."""
    return KeyStore(path=plan.key_store, key=plan.key_store_key)


class KeyStore:
    """All keys of one fleet."""

    def __init__(self, *, path: Path, key: Path) -> None:
        self.path = path
        self.key = StoreKey(key)
        self.storage = Storage(root=path, key=self.key)
        self.reader = KeyReader(self.storage)
        self._index = KeyIndex(self.storage)
        self.ledger = Ledger(path, beside=lambda: misfits(index=self._index, ledger=self.ledger))
        self._work = StoreWork(storage=self.storage, finish=lambda left: self._recovery().finish(left))
        self._mutex = threading.Lock()

    # --- making keys

    def ensure(
        self,
        *,
        fleet: str,
        key_type: certificates.KeyType,
        gateways: Sequence[str],
        sites: Sequence[str],
        dry_run: bool = False,
    ) -> Ensured:
        """Make what is missing; what is there stays as it is, whatever the plan says by now."""
        with told(self.storage, doing="read" if dry_run else "written"):
            self.storage.check()
            missing = self._look(gateways=gateways, sites=sites)
            if dry_run or not (
                missing.changed or self._work.unfinished() or self._unentered(gateways=gateways, sites=sites)
            ):
                return missing
            with self.operation("make keys"):
                return self._make_missing(fleet=fleet, key_type=key_type, gateways=gateways, sites=sites)

    def regenerate(
        self, *, sites: Sequence[str], key_type: certificates.KeyType, reason: str, dry_run: bool = False
    ) -> dict[str, int]:
        """Give each site a key of a new epoch beside those it has; returns the epochs."""
        with told(self.storage, doing="read" if dry_run else "written"):
            self.storage.check()
            self._refuse_unmade(sites)
            if dry_run:
                return {site: self._newest(site) + 1 for site in sites}
            with self.operation("regenerate keys"):
                return self._regenerate(sites=sites, key_type=key_type, reason=reason)

    def destroy(self, *, site: str, epoch: int, reason: str, dry_run: bool = False) -> bool:
        """Remove an old key for good; whether it was there."""
        with told(self.storage, doing="read" if dry_run else "written"):
            self.storage.check()
            if not self._may_destroy(site=site, epoch=epoch):
                return False
            if dry_run:
                return True
            with self.operation("destroy a key"):
                if not self._may_destroy(site=site, epoch=epoch):
                    return False
                with self._work.intend([REMOVE + _file(site, epoch)], reason=reason):
                    self._recovery().finish_removal(site=site, epoch=epoch, reason=reason)
                return True

    def revoke(self, *, sites: Sequence[str], reason: str, dry_run: bool = False) -> dict[str, list[int]]:
        """Put every key the sites ever had on the revocation list, and end it; which epochs that were."""
        with told(self.storage, doing="read" if dry_run else "written"):
            self.storage.check()
            known = self.index(sites=sites)
            lines = revocations(known, reason=reason)
            if lines and not dry_run:
                with (
                    self.operation("revoke keys"),
                    self._work.intend([CRL, *(f"index/{site}.json" for site in known)], reason=reason),
                ):
                    self._maker().crl(revoked=serials(known), reason=reason)
                    self._recovery().apply(self._log(lines), known=known)
            return {site: [one.epoch for one in lines if one.site == site] for site in {one.site for one in lines}}

    # --- reading

    def site_key(self, *, site: str, epoch: int | None = None) -> SiteKey:
        """A site's key, the newest in force unless told; proven whole: sealed by our server key, signed by our CA."""
        there = self.reader.epochs(site)
        if not there:
            raise NoKeyError(f"{site} has no key in {self.path}. Make it first: run site.yml, or its step 'keys'.")
        if epoch is not None and epoch not in there:
            has = ", ".join(str(one) for one in there)
            raise NoKeyError(f"{site} has no key of epoch {epoch} in {self.path}. It has: {has}.")
        if epoch is None:
            known = self._index.get(site)
            # Of a key that no book knows nothing says that it has ended.
            epoch = newest_of({one: known.get(one, {"state": STATES[0]}) for one in there})
        return self.reader.site(site=site, epoch=epoch)

    def gateway_key(self, *, name: str) -> GatewayKey:
        """What a gateway needs, proven to fit together."""
        return self.reader.gateway(name=name)

    def epochs(self, *, site: str) -> list[int]:
        """The epochs of a site whose keys are there, oldest first."""
        return self.reader.epochs(site)

    def sites(self) -> list[str]:
        """Every site that is on record, whether or not any registry has it still."""
        return self._index.sites()

    def index(self, *, sites: Sequence[str] | None = None) -> dict[str, dict[int, dict[str, Any]]]:
        """What is known of the keys of these sites, or of all. Nothing secret."""
        return self._index.all(sites)

    def verify(self) -> list[str]:
        """What is wrong with the ledger, or with the index measured by it; nothing when all is whole."""
        return self.ledger.verify()

    # --- keeping the books

    def mark(self, *, seen: Sequence[Seen]) -> int:
        """Enter what sites were seen to hold; only news is written. Returns how many."""
        for one in seen:
            if one.state not in SEEN_STATES:
                raise KeyStoreError(
                    f"{one.site}: no key can be seen to be {one.state!r}, only {', '.join(SEEN_STATES)}."
                )
        with self._mutex, told(self.storage):
            # Whoever holds the store looks once; nobody takes hold of it for what is no news.
            if self._work.now is None and not self._news(seen, known=self._known(seen)):
                return 0
            with self.operation("enter what sites hold"):
                # Not looked at before: what a crash left was finished just now.
                known = self._known(seen)
                news = self._news(seen, known=known)
                if not news:
                    return 0
                with self._work.intend([f"index/{one.site}.json" for one in news]):
                    self._recovery().apply(self._log(news), known=known)
                return len(news)

    @property
    def server_keys(self) -> ServerKeyStore:
        """The server key, and its rotation."""
        return ServerKeyStore(maker=self._maker(), ledger=self.ledger)

    def authorities(self, *, fleet: str, key_type: certificates.KeyType) -> AuthorityStore:
        """The CA, and how another one takes its place."""
        return AuthorityStore(maker=self._maker(), ledger=self.ledger, fleet=fleet, key_type=key_type)

    def note(self, event: str, *, site: str = "", epoch: int = 0, reason: str = "", operation: str = "") -> None:
        """Add a line to the ledger. It waits for nobody: a key may have to be shown while a rollout runs."""
        with told(self.storage):
            self.storage.check()
            self.storage.refuse_foreign()
            entry = self._index.get(site).get(epoch, {}) if site else {}
            self._log(
                [dataclasses.replace(state_event(site=site, epoch=epoch, state=event, entry=entry), reason=reason)],
                operation=operation,
            )

    @contextlib.contextmanager
    def operation(self, what: str, *, owner: int | None = None) -> Iterator[Operation]:
        """Be the only one that changes the store. What a crash of the one before left is finished first.

        `owner` is the process of the run this belongs to: while that lives, no other run gets in between.

        Raises:
            KeyStoreLockedError: somebody else is at work.
        """
        with self._work.run(what, owner=owner) as begun:
            yield begun

    # --- below

    def _known(self, seen: Sequence[Seen]) -> dict[str, dict[int, dict[str, Any]]]:
        return self.index(sites=list({one.site for one in seen}))

    def _news(self, seen: Sequence[Seen], *, known: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[Event]:
        news: list[Event] = []
        now: dict[tuple[str, int], Mapping[str, Any]] = {}
        for one in seen:
            entry = now.get((one.site, one.epoch)) or known.get(one.site, {}).get(one.epoch)
            if entry is not None:
                news += seen_events(one, entry=entry)
                now[one.site, one.epoch] = one.entered(entry)
        return news

    def _look(self, *, gateways: Sequence[str], sites: Sequence[str]) -> Ensured:
        """What is missing. Without the lock, what looks lost may be in the making."""
        try:
            return self._missing(gateways=gateways, sites=sites)
        except KeyStoreError:
            if self._work.now is not None:
                # Nobody but us is at work: it is as bad as it looks.
                raise
            refuse_busy(self.path)
            return self._missing(gateways=gateways, sites=sites)

    def _missing(self, *, gateways: Sequence[str], sites: Sequence[str]) -> Ensured:
        has = self.storage.has
        missing = Ensured(
            made_ca=not has(CA_CERT),
            made_crl=not has(CRL) or self.reader.crl_is_old(),
            made_server_key=not has(SERVER_KEY),
            made_gateways=tuple(name for name in gateways if not has(f"gateways/{name}.vault")),
            made_sites=tuple(site for site in sites if not self.reader.epochs(site)),
            made_store_key=None if self.key.exists else self.key.path,
        )
        losses = Losses(storage=self.storage, reader=self.reader, index=self._index, ledger=self.ledger)
        losses.refuse(missing=missing, sites=sites)
        self._prove_store_key()
        return missing

    def _make_missing(
        self, *, fleet: str, key_type: certificates.KeyType, gateways: Sequence[str], sites: Sequence[str]
    ) -> Ensured:
        missing = self._missing(gateways=gateways, sites=sites)
        self._recovery().rebuild(self._unknown(sites))
        for name in self._unpublished(gateways):
            self.storage.write(f"gateways/{name}.pem", self.reader.gateway_certificate(name=name))
        pending = [
            *([STORE_KEY] if missing.made_store_key else []),
            *([CA_CERT] if missing.made_ca else []),
            *([CRL] if missing.made_crl else []),
            *([SERVER_KEY] if missing.made_server_key else []),
            *(f"gateways/{name}.vault" for name in missing.made_gateways),
            *(_file(site, 1) for site in missing.made_sites),
        ]
        with self._work.intend(pending):
            self._maker().all(missing=missing, fleet=fleet, key_type=key_type)
        # The hint to keep a copy of a new key must not be lost with the run that made it.
        left = self._work.left
        if missing.made_store_key is None and left is not None and STORE_KEY in left.pending:
            return dataclasses.replace(missing, made_store_key=self.key.path)
        return missing

    def _regenerate(self, *, sites: Sequence[str], key_type: certificates.KeyType, reason: str) -> dict[str, int]:
        self._recovery().rebuild([site for site in sites if not self._index.get(site)])
        self._prove_store_key()
        # What the same order made before it was cut off is not made a second time.
        left = self._work.left
        made = set(left.pending) if left is not None and left.reason == reason else set()
        done = {site: self._newest(site) for site in sites if _file(site, self._newest(site)) in made}
        epochs = {site: self._newest(site) + 1 for site in sites if site not in done}
        with self._work.intend([_file(site, epoch) for site, epoch in epochs.items()], reason=reason):
            self._maker().sites(epochs=epochs, key_type=key_type, ca=self.reader.ca_identity(), reason=reason)
        return {site: {**done, **epochs}[site] for site in sites}

    def _refuse_unmade(self, sites: Sequence[str]) -> None:
        unmade = [site for site in sites if self._newest(site) == 0]
        said = self.ledger.issued_to(unmade) if unmade else ()
        unmade = [site for site in unmade if site not in said]
        if unmade:
            raise NoKeyError(
                f"{', '.join(unmade[:5])}: no key was ever made, so there is none to follow. Run site.yml first."
            )

    def _newest(self, site: str) -> int:
        return max([*self.reader.epochs(site), *self._index.get(site)], default=0)

    def _may_destroy(self, *, site: str, epoch: int) -> bool:
        known = self._index.get(site)
        there = self.reader.epochs(site)
        if epoch not in there and epoch not in known:
            raise NoKeyError(f"{site} never had a key of epoch {epoch} in {self.path}.")
        if epoch not in there:
            return False
        if epoch == max([*there, *known]):
            raise KeyStoreError(
                f"the key of {site} of epoch {epoch} is its newest: without it the site cannot be served. Make a newer "
                "one first."
            )
        state = known.get(epoch, {}).get("state", "issued")
        newer = [one for one, entry in known.items() if one > epoch and entry["state"] == "confirmed"]
        if state in IN_USE and not newer:
            raise KeyStoreError(
                f"the key of {site} of epoch {epoch} is {state}, and no newer one is confirmed: the site may need it. "
                "Bring the newer one to the site and confirm it first."
            )
        return True

    def _prove_store_key(self) -> None:
        """A wrong or lost key of the store is told while its copy may still be found, not when a site is dead."""
        if self.storage.has(CA_KEY):
            self.storage.open(CA_KEY)

    def _unentered(self, *, gateways: Sequence[str], sites: Sequence[str]) -> bool:
        return bool(self._unknown(sites) or self._unpublished(gateways))

    def _unpublished(self, gateways: Sequence[str]) -> list[str]:
        """Gateways whose certificate is in their key's file only."""
        has = self.storage.has
        return [name for name in gateways if has(f"gateways/{name}.vault") and not has(f"gateways/{name}.pem")]

    def _unknown(self, sites: Sequence[str]) -> list[str]:
        """Sites whose keys are there and not in the index."""
        return [site for site in sites if set(self.reader.epochs(site)) - set(self._index.get(site))]

    def _log(self, events: Sequence[Event], *, operation: str = "") -> list[dict[str, Any]]:
        return self.ledger.append(events, who=who(), operation=operation or self._work.name)

    def _maker(self) -> KeyMaker:
        return KeyMaker(storage=self.storage, reader=self.reader, index=self._index, log=self._log)

    def _recovery(self) -> Recovery:
        return Recovery(storage=self.storage, reader=self.reader, index=self._index, ledger=self.ledger, log=self._log)


def _file(site: str, epoch: int) -> str:
    return f"sites/{site}/{epoch}.vault"
