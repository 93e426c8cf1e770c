# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The CA in the key store, and the steps by which another one takes its place.

Each step is one write of ca.pem. What follows from it (revocation lists, the gateways' certificates, the ledger) is
brought in line with that file by `settle`, which a run that was cut off leaves to the next one.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates
from ansible_collections.spokewright.fleet.plugins.plugin_utils.authorities import EVENTS, Authorities
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_index import booked
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_maker import gateway_event, state_event
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_states import in_force
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_storage import CA_CERT, CA_KEY, CRL
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollover import lines, replay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_maker import KeyMaker
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.ledger import Ledger
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollover import Books, There


class AuthorityStore:
    """Changes inside an operation of the key store only."""

    what = "CA"
    playbook = "rotate_ca.yml"

    def __init__(self, *, maker: KeyMaker, ledger: Ledger, fleet: str, key_type: certificates.KeyType) -> None:
        self.maker = maker
        self.ledger = ledger
        self.storage, self.reader, self.index, self.log = maker.storage, maker.reader, maker.index, maker.log
        self.fleet = fleet
        self.key_type = key_type

    @property
    def exists(self) -> bool:
        """Whether there is one at all."""
        return self.storage.has(CA_CERT)

    def read(self) -> Authorities:
        """What there is now."""
        return self.reader.authorities()

    def there(self) -> There:
        """By fingerprint."""
        return self.read().there()

    def books(self) -> Books:
        """What the ledger says of the CAs."""
        return replay(self.ledger.entries(), events=EVENTS)

    def settled(self) -> bool:
        """Whether everything is in line with the CAs."""
        found = self.read()
        return not (
            lines(found.there(), said=self.books(), events=EVENTS)
            or self._lists_differ(found)
            or self._keys_differ(found)
            or any(self._gateway_differs(name, found) for name in self._gateways())
        )

    def make_next(self, *, reason: str) -> None:
        """A CA that is to follow, and its revocation list."""
        found = self.read()
        if found.phase == "one":
            now = dt.datetime.now(tz=dt.UTC).replace(microsecond=0)
            made = certificates.make_ca(fleet=self.fleet, key_type=self.key_type, now=now, follows=True)
            # The certificate is written last: it is what says that the CA exists.
            own = self.reader.ca_identity().private_key
            self.storage.seal(CA_KEY, own + made.private_key)
            self._replace(found.with_next(made.certificate), reason=reason)
        self.settle(reason=reason)

    def turn(self, *, reason: str) -> None:
        """The next one issues from now on: first of all, new certificates for the gateways."""
        self._replace(self.read().turned(), reason=reason)
        self.settle(reason=reason)

    def leave_alone(self, *, reason: str) -> None:
        """The serving one only: the other one's key, and the sites' keys that it issued, are gone for good."""
        found = self.read()
        for site, epoch in self._issued_by_other(found):
            self._destroy(site=site, epoch=epoch, reason=reason)
        self._replace(found.alone(), reason=reason)
        self.settle(reason=reason)

    def settle(self, *, reason: str) -> None:
        """Bring ledger, revocation lists and gateways' certificates in line with the CAs."""
        found = self.read()
        self._tell(found, reason=reason)
        if self._lists_differ(found):
            self.maker.crl(reason=reason)
        if self._keys_differ(found):
            self.storage.seal(CA_KEY, "".join(one.private_key for one in self.reader.ca_identities()))
        for name in self._gateways():
            if not certificates.is_of(ca=found.serving, certificate=self.reader.gateway_certificate(name=name)):
                self.maker.gateway(name=name, key_type=self.key_type, ca=self.reader.ca_identity())
            elif self._gateway_differs(name, found):
                # A run was killed between a gateway's key and its certificate beside it.
                certificate = self.reader.gateway_certificate(name=name)
                self.storage.write(f"gateways/{name}.pem", certificate)
                self.log([gateway_event(name=name, certificate=certificate)])

    def next_authority(self) -> str:
        """The fingerprint of the CA that is to follow, empty when none is."""
        there = self.there()
        return there.other if there.phase == "next" else ""

    def outdated(self, *, sites: Sequence[str]) -> dict[str, str]:
        """The sites whose newest key the serving CA has not issued, or that have not confirmed it, and why."""
        found, serving = {}, self.read().serving
        for site in sites:
            epochs = self.index.get(site)
            epoch = in_force(epochs)
            if not epoch:
                found[site] = "it has no key"
            elif not certificates.is_of(ca=serving, certificate=self.reader.site(site=site, epoch=epoch).certificate):
                found[site] = f"its newest key, of epoch {epoch}, is of the former CA"
            elif epochs[epoch]["state"] != "confirmed":
                found[site] = f"its key of epoch {epoch}, of the new CA, is {epochs[epoch]['state']} and not confirmed"
        return found

    def to_reissue(self, *, sites: Sequence[str]) -> list[str]:
        """The sites whose newest key the serving CA has not issued.

        That of a rotation that was given up has ended and is none; where no key is in force, the last one counts.
        """
        serving = self.read().serving
        return [
            site
            for site in sites
            if (epochs := self.reader.epochs(site))
            and not certificates.is_of(
                ca=serving,
                certificate=self.reader.site(site=site, epoch=in_force(self.index.get(site)) or epochs[-1]).certificate,
            )
        ]

    def _replace(self, found: Authorities, *, reason: str) -> None:
        self._tell(self.read(), reason=reason)
        self.storage.write(CA_CERT, found.to_text())

    def _tell(self, found: Authorities, *, reason: str) -> None:
        told = lines(found.there(), said=self.books(), events=EVENTS)
        self.log([dataclasses.replace(one, reason=reason) for one in told])

    def _gateways(self) -> list[str]:
        return self.storage.names("gateways", ".vault")

    def _gateway_differs(self, name: str, found: Authorities) -> bool:
        certificate = self.reader.gateway_certificate(name=name)
        beside = self.storage.read(f"gateways/{name}.pem") if self.storage.has(f"gateways/{name}.pem") else ""
        return beside != certificate or not certificates.is_of(ca=found.serving, certificate=certificate)

    def _lists_differ(self, found: Authorities) -> bool:
        """One list for each CA and no other: a certificate of a CA without a list is let in, revoked or not."""
        lists = certificates.crl_split(text=self.storage.read(CRL))
        return len(lists) != len(found.all) or not all(
            any(certificates.is_crl_of(ca=ca, crl=crl) for crl in lists) for ca in found.all
        )

    def _keys_differ(self, found: Authorities) -> bool:
        return self.storage.open(CA_KEY).count("-----BEGIN") != len(found.all)

    def _issued_by_other(self, found: Authorities) -> list[tuple[str, int]]:
        return [
            (site, epoch)
            for site in self.storage.directories("sites")
            for epoch in self.reader.epochs(site)
            if not certificates.is_of(
                ca=found.serving, certificate=self.reader.site(site=site, epoch=epoch).certificate
            )
        ]

    def _destroy(self, *, site: str, epoch: int, reason: str) -> None:
        """Enter that a key is gone, and then remove it: cut off in between, its file is found and removed again."""
        known = self.index.get(site)
        if epoch in known and known[epoch]["state"] != "destroyed":
            line = state_event(site=site, epoch=epoch, state="destroyed", entry=known[epoch], reason=reason)
            (told,) = self.log([line])
            self.index.put(site, {**known, epoch: booked(known[epoch], told)})
        self.storage.remove(f"sites/{site}/{epoch}.vault")
