# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server key in the key store, and the steps of its rotation.

Each step is one write of the file that holds the server keys. What follows from it (a PSK of each site for each server
key, the ledger, the index) is brought in line with that file by `settle`, which a run that was cut off leaves to the
next one.
"""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ansible_collections.spokewright.fleet.plugins.plugin_utils import tls_crypt_v2
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_index import SEALED, booked
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_maker import THREADS, state_event
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_states import in_force
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_storage import SERVER_KEY
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollover import lines, replay
from ansible_collections.spokewright.fleet.plugins.plugin_utils.server_keys import EVENTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_maker import KeyMaker
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import SiteKey
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.ledger import Ledger
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollover import Books, There
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.server_keys import ServerKeys


class ServerKeyStore:
    """Changes inside an operation of the key store only."""

    what = "server key"
    playbook = "rotate_server_key.yml"

    def __init__(self, *, maker: KeyMaker, ledger: Ledger) -> None:
        self.maker = maker
        self.ledger = ledger
        self.storage, self.reader, self.index, self.log = maker.storage, maker.reader, maker.index, maker.log

    @property
    def exists(self) -> bool:
        """Whether there is one at all."""
        return self.storage.has(SERVER_KEY)

    def there(self) -> There:
        """By fingerprint."""
        return self.read().there()

    def read(self) -> ServerKeys:
        """What there is now, whoever changed it."""
        self.reader.forget_servers()
        return self.reader.servers()

    def books(self) -> Books:
        """What the ledger says of the server keys."""
        return replay(self.ledger.entries(), events=EVENTS)

    def other_psks(self, *, sites: Sequence[str]) -> dict[str, str]:
        """The fingerprint of each site's PSK for the other server key, of its newest key that has not ended."""
        found: dict[str, str] = {}
        for site, epochs in self.index.all(sites).items():
            epoch = in_force(epochs)
            prints = self.reader.site(site=site, epoch=epoch).psk_fingerprints if epoch else ()
            found |= {site: prints[1]} if len(prints) > 1 else {}
        return found

    def settled(self) -> bool:
        """Whether everything is in line with the server keys."""
        servers = self.read()
        return not lines(servers.there(), said=self.books(), events=EVENTS) and not any(
            self._is_behind(site=site, epoch=epoch, servers=servers) for site, epoch in self._all()
        )

    def make_next(self, *, reason: str) -> None:
        """A server key that is to follow, and a PSK for it in each key of each site."""
        servers = self.read()
        if servers.phase == "one":
            self._replace(servers.with_next(tls_crypt_v2.ServerKey.generate()), reason=reason)
        self.settle(reason=reason)

    def turn(self, *, reason: str) -> None:
        """The next one serves from now on. Or else the former one again."""
        self._replace(self.read().turned(), reason=reason)
        self.settle(reason=reason)

    def leave_alone(self, *, reason: str) -> None:
        """The serving one only: the other one, and each site's PSK for it, are gone for good."""
        self._replace(self.read().alone(), reason=reason)
        self.settle(reason=reason)

    def settle(self, *, reason: str) -> None:
        """Bring ledger, keys and index in line with the server keys."""
        servers = self.read()
        self._tell(servers, reason=reason)
        with ThreadPoolExecutor(max_workers=THREADS) as pool:
            found = list(pool.map(lambda one: self._settle(site=one[0], epoch=one[1], servers=servers), self._all()))
        news = [key for key in found if key is not None]
        known = {site: self.index.get(site) for site in {key.site for key in news}}
        changed = [key for key in news if key.epoch in known[key.site]]
        told = self.log(
            [state_event(site=key.site, epoch=key.epoch, state=SEALED, entry=key.public()) for key in changed]
        )
        for key, line in zip(changed, told, strict=True):
            known[key.site][key.epoch] = booked(known[key.site][key.epoch], line)
        for site in {key.site for key in changed}:
            self.index.put(site, known[site], sync=False)
        if changed:
            self.index.sync()

    def _replace(self, servers: ServerKeys, *, reason: str) -> None:
        self._tell(self.read(), reason=reason)
        self.storage.seal(SERVER_KEY, servers.to_text())

    def _tell(self, servers: ServerKeys, *, reason: str) -> None:
        told = lines(servers.there(), said=self.books(), events=EVENTS)
        self.log([dataclasses.replace(one, reason=reason) for one in told])

    def _all(self) -> list[tuple[str, int]]:
        return [(site, epoch) for site in self.storage.directories("sites") for epoch in self.reader.epochs(site)]

    def _settle(self, *, site: str, epoch: int, servers: ServerKeys) -> SiteKey | None:
        """Bring one key's file in line; the key when its index is not yet."""
        key = self.reader.site(site=site, epoch=epoch)
        record = self.reader.site_record(site=site, epoch=epoch)
        wanted = self._wanted(key=key, servers=servers)
        if {name: record.get(name) for name in wanted} != wanted:
            kept = {name: value for name, value in {**record, **wanted}.items() if value is not None}
            self.storage.seal(f"sites/{site}/{epoch}.vault", json.dumps(kept, indent=1) + "\n")
        entry = self.index.get(site).get(epoch)
        return key if entry is None or entry.get("psk_fingerprint") != key.public()["psk_fingerprint"] else None

    def _wanted(self, *, key: SiteKey, servers: ServerKeys) -> dict[str, str | None]:
        other = key.other_psk.reveal() if key.other_psk else None
        if servers.phase == "next" and servers.other and other is None:
            # A secret of its own: who has the old server key and listened has the old one.
            metadata = tls_crypt_v2.Metadata(site=key.site, kid=key.kid, epoch=key.epoch, issued=key.issued)
            other = tls_crypt_v2.generate_client_key(server=servers.other, metadata=metadata)
        return {"psk": key.psk.reveal(), "other_psk": other}

    def _is_behind(self, *, site: str, epoch: int, servers: ServerKeys) -> bool:
        key = self.reader.site(site=site, epoch=epoch)
        record: Mapping[str, Any] = self.reader.site_record(site=site, epoch=epoch)
        entry = self.index.get(site).get(epoch, {})
        return (
            record["psk"] != key.psk.reveal()
            or ("other_psk" in record) != (key.other_psk is not None)
            or (servers.phase == "next" and key.other_psk is None)
            or entry.get("psk_fingerprint") != key.public()["psk_fingerprint"]
        )
