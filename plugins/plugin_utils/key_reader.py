# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading keys out of the store, each proven whole before anybody gets it."""

from __future__ import annotations

import datetime as dt
import json
import threading
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates, tls_crypt_v2
from ansible_collections.spokewright.fleet.plugins.plugin_utils.authorities import Authorities
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import (
    GatewayKey,
    KeyStoreError,
    NoKeyError,
    SiteKey,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_storage import CA_CERT, CA_KEY, CRL, SERVER_KEY
from ansible_collections.spokewright.fleet.plugins.plugin_utils.secret import Secret
from ansible_collections.spokewright.fleet.plugins.plugin_utils.server_keys import ServerKeys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_storage import Storage

# A site's PSK for the serving server key, and for the other one while that is rotated.
PSKS: Final = ("psk", "other_psk")


class KeyReader:
    """Opens and proves. What every site's proof needs is opened once."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._servers: ServerKeys | None = None
        self._mutex = threading.Lock()

    def authorities(self) -> Authorities:
        """The fleet's CA, and while another one takes its place both."""
        return Authorities.from_text(self.storage.read(CA_CERT))

    def ca(self) -> str:
        """The certificates of all CAs that sites are to trust."""
        return "".join(self.authorities().all)

    def ca_identity(self) -> certificates.Identity:
        """The CA that issues, with its private key."""
        return self.ca_identities()[0]

    def ca_identities(self) -> list[certificates.Identity]:
        """All CAs with their private keys, the one that issues first."""
        keys = self.storage.open(CA_KEY)
        try:
            return [
                certificates.Identity(
                    certificate=one, private_key=certificates.own_key(certificate=one, private_keys=keys)
                )
                for one in self.authorities().all
            ]
        except certificates.CertificateError as exc:
            raise KeyStoreError(f"{self.storage.root / CA_KEY}: {exc} Restore it from the backup.") from exc

    def server(self) -> tls_crypt_v2.ServerKey:
        """The key that seals and opens all sites' keys."""
        return self.servers().serving

    def servers(self) -> ServerKeys:
        """That key, and while it is rotated the next one or the former one."""
        with self._mutex:
            if self._servers is None:
                try:
                    self._servers = ServerKeys.from_text(self.storage.open(SERVER_KEY))
                except tls_crypt_v2.TlsCryptV2Error as exc:
                    raise KeyStoreError(f"{self.storage.root / SERVER_KEY}: {exc} Restore it from the backup.") from exc
            return self._servers

    def forget_servers(self) -> None:
        """Read them anew: they were changed."""
        with self._mutex:
            self._servers = None

    def crl_is_old(self) -> bool:
        """Whether the revocation list is to be renewed."""
        try:
            return certificates.crl_is_due(crl=self.storage.read(CRL), now=dt.datetime.now(tz=dt.UTC))
        except certificates.CertificateError as exc:
            raise KeyStoreError(f"{self.storage.root / CRL}: {exc} Restore it from the backup.") from exc

    def epochs(self, site: str) -> list[int]:
        """The epochs of a site that are there, oldest first."""
        return sorted(int(name) for name in self.storage.names(f"sites/{site}", ".vault") if name.isdigit())

    def site(self, *, site: str, epoch: int) -> SiteKey:
        """One key of a site: sealed by our server key, signed by our CA, for this site and epoch."""
        name = f"sites/{site}/{epoch}.vault"
        path = self.storage.root / name
        found = self.site_record(site=site, epoch=epoch)
        authorities, servers = self.authorities(), self.servers()
        identity = certificates.Identity(certificate=found["certificate"], private_key=found["private_key"])
        psks = [str(found[field]) for field in PSKS if field in found]
        try:
            psk, metadata = _sealed(psks, server=servers.serving, site=site, epoch=epoch)
            other_psk = _sealed_too(psks, servers=servers, metadata=metadata)
            _check_issued(authorities, issued=identity, name=site)
        except (tls_crypt_v2.TlsCryptV2Error, certificates.CertificateError) as exc:
            raise KeyStoreError(f"{path}: {exc} It is not delivered. Restore this file from the backup.") from exc
        return SiteKey(
            site=site,
            epoch=epoch,
            kid=metadata.kid,
            issued=metadata.issued,
            ca="".join(authorities.all),
            certificate=identity.certificate,
            private_key=Secret(identity.private_key),
            psk=Secret(psk),
            other_psk=None if other_psk is None else Secret(other_psk),
        )

    def site_record(self, *, site: str, epoch: int) -> dict[str, Any]:
        """What the file of a site's key holds, not proven."""
        return self._record(f"sites/{site}/{epoch}.vault", ("certificate", "private_key", "psk", "kid"))

    def gateway(self, *, name: str) -> GatewayKey:
        """One gateway's material, its certificate proven to be ours, its own, and to fit its key."""
        file = f"gateways/{name}.vault"
        if not self.storage.has(file):
            raise NoKeyError(f"gateway {name} has no key in {self.storage.root}. Make it first: run site.yml.")
        found = self._record(file, ("certificate", "private_key"))
        authorities = self.authorities()
        identity = certificates.Identity(certificate=found["certificate"], private_key=found["private_key"])
        try:
            _check_issued(authorities, issued=identity, name=name)
            there = certificates.crl_split(text=self.storage.read(CRL))
            lists = [crl for ca in authorities.of_gateways for crl in there if certificates.is_crl_of(ca=ca, crl=crl)]
        except FleetError as exc:
            raise KeyStoreError(
                f"{self.storage.root / file}: {exc} It is not delivered. Restore this file from the backup."
            ) from exc
        return GatewayKey(
            name=name,
            ca="".join(authorities.of_gateways),
            crl="".join(lists) or self.storage.read(CRL),
            certificate=identity.certificate,
            private_key=Secret(identity.private_key),
            server_key=Secret(self.server().to_pem()),
        )

    def gateway_certificate(self, *, name: str) -> str:
        """The certificate beside a gateway's key."""
        return str(self._record(f"gateways/{name}.vault", ("certificate", "private_key"))["certificate"])

    def _record(self, name: str, fields: tuple[str, ...]) -> dict[str, Any]:
        text = self.storage.open(name)
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        # What the parser says could quote a key.
        if not isinstance(found, dict) or not all(isinstance(found.get(field), str) for field in fields):
            raise KeyStoreError(
                f"{self.storage.root / name} opens, but what is inside is no key of ours. Restore it from the backup."
            )
        return found


def _check_issued(authorities: Authorities, *, issued: certificates.Identity, name: str) -> None:
    """Raise unless one of the CAs issued it, and it is whole."""
    by = [ca for ca in authorities.all if certificates.is_of(ca=ca, certificate=issued.certificate)]
    ca = certificates.Identity(certificate=(by or list(authorities.all))[0], private_key="")
    certificates.check(ca=ca, issued=issued, name=name)


def _sealed(
    psks: Sequence[str], *, server: tls_crypt_v2.ServerKey, site: str, epoch: int
) -> tuple[str, tls_crypt_v2.Metadata]:
    """The PSK that this server key has sealed. Which of a record's it is, depends on how far a rotation is."""
    foreign: tls_crypt_v2.ForeignKeyError | None = None
    for psk in psks:
        try:
            return psk, tls_crypt_v2.verify(server=server, text=psk, site=site, epoch=epoch)
        except tls_crypt_v2.ForeignKeyError as exc:
            foreign = foreign or exc
    raise foreign or tls_crypt_v2.MalformedKeyError("there is no PSK in it.")


def _sealed_too(psks: Sequence[str], *, servers: ServerKeys, metadata: tls_crypt_v2.Metadata) -> str | None:
    """The PSK for the other server key; none where it is still to be made, or where that key is gone."""
    if servers.other is None:
        return None
    try:
        psk, found = _sealed(psks, server=servers.other, site=metadata.site, epoch=metadata.epoch)
    except tls_crypt_v2.ForeignKeyError:
        return None
    if found.kid != metadata.kid:
        raise tls_crypt_v2.MetadataError(f"its two PSKs have the key ids {metadata.kid} and {found.kid}.")
    return psk
