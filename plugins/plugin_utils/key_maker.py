# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making keys and putting them into the store: vault file first, then ledger, then index.

A key is in use only after all three; a crash between them leaves a whole key that the next run enters.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import secrets as random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates, server_keys, tls_crypt_v2
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_index import CARRIES, applied
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import Ensured, Seen, SiteKey
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_storage import (
    CA_CERT,
    CA_KEY,
    CRL,
    README,
    README_TEXT,
    SERVER_KEY,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ledger import Event
from ansible_collections.spokewright.fleet.plugins.plugin_utils.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_index import KeyIndex
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_reader import KeyReader
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_storage import Storage
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.server_keys import ServerKeys
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_key import StoreKey

# So many keys share one line of durable writes in the ledger.
BATCH: Final = 100
# The costly part of a key, its encryption, runs without Python's lock.
THREADS: Final = 4


class KeyMaker:
    """Makes what is told to be missing; asks nothing and replaces no key."""

    def __init__(
        self,
        *,
        storage: Storage,
        reader: KeyReader,
        index: KeyIndex,
        log: Callable[[Sequence[Event]], list[dict[str, Any]]],
    ) -> None:
        self.storage = storage
        self.reader = reader
        self.index = index
        self.log = log
        self.now = dt.datetime.now(tz=dt.UTC).replace(microsecond=0)

    def all(self, *, missing: Ensured, fleet: str, key_type: certificates.KeyType) -> None:
        """Everything that is missing, in the order in which one needs the other."""
        if missing.made_store_key and self.storage.key.make():
            self.log([store_key_event(self.storage.key)])
        if missing.made_ca:
            self.storage.key.refuse_weak()
            self.ca(fleet=fleet, key_type=key_type)
        if missing.made_crl:
            self.crl()
        if missing.made_server_key:
            self.server_key()
        if missing.made_gateways or missing.made_sites:
            ca = self.reader.ca_identity()
            for name in missing.made_gateways:
                self.gateway(name=name, key_type=key_type, ca=ca)
            self.sites(epochs=dict.fromkeys(missing.made_sites, 1), key_type=key_type, ca=ca)

    def ca(self, *, fleet: str, key_type: certificates.KeyType) -> None:
        """The fleet's CA."""
        self.storage.write(README, README_TEXT)
        made = certificates.make_ca(fleet=fleet, key_type=key_type, now=self.now)
        # The certificate is written last: it is what says that the CA exists.
        self.storage.seal(CA_KEY, made.private_key)
        self.storage.write(CA_CERT, made.certificate)
        self.log([ca_event(made.certificate)])

    def crl(self, *, revoked: Iterable[int] = (), reason: str = "") -> None:
        """The revocation list, with what the one before it revoked and with these serial numbers."""
        lists = []
        for ca in self.reader.ca_identities():
            if self.storage.has(CRL):
                # Each list names them all: which CA issued a certificate need not be known.
                made = certificates.renew_crl(ca=ca, crl=self.storage.read(CRL), now=self.now, revoked=revoked)
            else:
                made = certificates.make_crl(ca=ca, revoked=revoked, now=self.now)
            lists.append(made)
        self.storage.write(CRL, "".join(lists))
        self.log([Event(event="crl-made", reason=reason)])

    def server_key(self) -> None:
        """The tls-crypt-v2 server key."""
        made = tls_crypt_v2.ServerKey.generate()
        self.storage.seal(SERVER_KEY, made.to_pem())
        self.log([server_key_event(made)])

    def gateway(self, *, name: str, key_type: certificates.KeyType, ca: certificates.Identity) -> None:
        """A gateway's certificate and key."""
        made = certificates.issue_gateway(ca=ca, name=name, key_type=key_type, now=self.now)
        self.storage.make("gateways")
        self.storage.seal(
            f"gateways/{name}.vault",
            json.dumps({"certificate": made.certificate, "private_key": made.private_key}, indent=1) + "\n",
        )
        self.storage.write(f"gateways/{name}.pem", made.certificate)
        self.log([gateway_event(name=name, certificate=made.certificate)])

    def sites(
        self, *, epochs: Mapping[str, int], key_type: certificates.KeyType, ca: certificates.Identity, reason: str = ""
    ) -> None:
        """The named epoch of each site."""
        servers = self.reader.servers()
        self.storage.make("sites")
        self.storage.make("index")
        wanted = list(epochs.items())
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            for site, _epoch in batch:
                self.storage.make(f"sites/{site}", sync=False)
            self.storage.sync("sites")

            def one(item: tuple[str, int]) -> SiteKey:
                return self._site(site=item[0], epoch=item[1], ca=ca, servers=servers, key_type=key_type)

            with ThreadPoolExecutor(max_workers=THREADS) as pool:
                made = list(pool.map(one, batch))
            lines = self.log([issue_event(key, reason=reason) for key in made])
            with ThreadPoolExecutor(max_workers=THREADS) as pool:
                list(pool.map(self._enter, made, [str(line["time"]) for line in lines]))
            self.index.sync()

    def _enter(self, key: SiteKey, time: str) -> None:
        known = self.index.get(key.site)
        self.index.put(key.site, {**known, key.epoch: applied(key.public(), state="issued", time=time)}, sync=False)

    def _site(
        self,
        *,
        site: str,
        epoch: int,
        ca: certificates.Identity,
        servers: ServerKeys,
        key_type: certificates.KeyType,
    ) -> SiteKey:
        metadata = tls_crypt_v2.Metadata(
            site=site, kid=random.token_hex(8), epoch=epoch, issued=int(self.now.timestamp())
        )
        issued = certificates.issue_site(ca=ca, site=site, key_type=key_type, now=self.now)
        psk = tls_crypt_v2.generate_client_key(server=servers.serving, metadata=metadata)
        # A key that is made while the server key is rotated is one for both, as all others are.
        other_psk = servers.other and tls_crypt_v2.generate_client_key(server=servers.other, metadata=metadata)
        record: dict[str, Any] = {
            "site": site,
            "epoch": epoch,
            "kid": metadata.kid,
            "issued": metadata.issued,
            "certificate": issued.certificate,
            "private_key": issued.private_key,
            "psk": psk,
            **({"other_psk": other_psk} if other_psk else {}),
        }
        self.storage.seal(f"sites/{site}/{epoch}.vault", json.dumps(record, indent=1) + "\n")
        return SiteKey(
            site=site,
            epoch=epoch,
            kid=metadata.kid,
            issued=metadata.issued,
            ca=self.reader.ca(),
            certificate=issued.certificate,
            private_key=Secret(issued.private_key),
            psk=Secret(psk),
            other_psk=Secret(other_psk) if other_psk else None,
        )


def store_key_event(key: StoreKey) -> Event:
    """The ledger's line for a new key of the store's own."""
    return Event(event="store-key-made", reason=str(key.path))


def ca_event(certificate: str) -> Event:
    """The ledger's line for a CA."""
    return Event(event="ca-made", fingerprint=certificates.fingerprint(certificate=certificate))


def server_key_event(key: tls_crypt_v2.ServerKey, *, reason: str = "") -> Event:
    """The ledger's line for a server key."""
    return Event(event=server_keys.EVENTS.made, fingerprint=server_keys.fingerprint(key), reason=reason)


def gateway_event(*, name: str, certificate: str) -> Event:
    """The ledger's line for a gateway's certificate."""
    return Event(event="gateway-issued", reason=name, fingerprint=certificates.fingerprint(certificate=certificate))


def issue_event(key: SiteKey, *, reason: str) -> Event:
    """The ledger's line for a site's key."""
    return Event(
        event="issued",
        site=key.site,
        epoch=key.epoch,
        kid=key.kid,
        fingerprint=tls_crypt_v2.fingerprint(text=key.psk.reveal()),
        reason=reason,
    )


def state_event(*, site: str, epoch: int, state: str, entry: Mapping[str, Any], reason: str = "") -> Event:
    """The ledger's line for a site's key that came to a state."""
    return Event(
        event=state,
        site=site,
        epoch=epoch,
        kid=str(entry.get("kid", "")),
        fingerprint=str(entry.get("psk_fingerprint", "")),
        reason=reason,
    )


def seen_events(one: Seen, *, entry: Mapping[str, Any]) -> list[Event]:
    """The ledger's lines for what a site was seen to hold; none when that is no news."""
    found = []
    if one.is_news(str(entry["state"])):
        found.append(state_event(site=one.site, epoch=one.epoch, state=one.state, entry=entry))
    if one.carries not in {"", entry.get("carries", "")}:
        line = state_event(site=one.site, epoch=one.epoch, state=CARRIES, entry=entry)
        found.append(dataclasses.replace(line, fingerprint=one.carries))
    return found


def serials(known: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[int]:
    """The serial numbers of all certificates of these sites, those of destroyed keys among them."""
    entries = [entry for epochs in known.values() for entry in epochs.values()]
    return [int(str(entry["certificate_serial"]), 16) for entry in entries if entry.get("certificate_serial")]


def revocations(known: Mapping[str, Mapping[int, Mapping[str, Any]]], *, reason: str) -> list[Event]:
    """The ledger's lines for the end of all keys of these sites that are not revoked yet."""
    return [
        state_event(site=site, epoch=epoch, state="revoked", entry=entry, reason=reason)
        for site, epochs in known.items()
        for epoch, entry in sorted(epochs.items())
        if entry["state"] != "revoked"
    ]
