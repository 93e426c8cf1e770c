# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's directory of all keys: made once, kept for good, never half written.

ca.pem  ca.key  crl.pem  server-tls-crypt-v2.pem
gateways/NAME/{cert.pem,key.pem}
sites/ID/EPOCH/{cert.pem,key.pem,psk.pem}
index.json   who has which key, by fingerprint; no secret in it
lock         held while the store is changed; names its holder
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import getpass
import json
import os
import secrets as random
import shutil
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates, tls_crypt_v2
from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import sync_directory, write_atomic
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

CA_CERT: Final = "ca.pem"
CA_KEY: Final = "ca.key"
CRL: Final = "crl.pem"
SERVER_KEY: Final = "server-tls-crypt-v2.pem"
INDEX: Final = "index.json"
LOCK: Final = "lock"
CERT: Final = "cert.pem"
KEY: Final = "key.pem"
PSK: Final = "psk.pem"


class KeyStoreError(FleetError):
    """The key store cannot be used as it is."""


class KeyStoreLockedError(KeyStoreError):
    """Somebody else changes the key store at this moment."""


class NoKeyError(KeyStoreError):
    """The key asked for was never made."""


@dataclass(frozen=True, kw_only=True)
class SiteKey:
    """Everything secret one site needs."""

    site: str
    epoch: int
    kid: str
    issued: int
    ca: str
    identity: certificates.Identity
    psk: str

    def __repr__(self) -> str:
        return f"SiteKey(site={self.site!r}, epoch={self.epoch}, kid={self.kid!r})"

    def public(self) -> dict[str, Any]:
        """What may be written anywhere: names and fingerprints."""
        return {
            "epoch": self.epoch,
            "kid": self.kid,
            "psk_fingerprint": tls_crypt_v2.fingerprint(text=self.psk),
            "certificate_fingerprint": certificates.fingerprint(certificate=self.identity.certificate),
            "certificate_serial": format(certificates.serial(certificate=self.identity.certificate), "x"),
            "certificate_expires": certificates.expires(certificate=self.identity.certificate).strftime(
                "%Y-%m-%dT%H:%M:%SZ"
            ),
            "issued": self.issued,
        }


@dataclass(frozen=True, kw_only=True)
class Ensured:
    """What `ensure` made, or in a dry run would make."""

    made_ca: bool
    made_crl: bool
    made_server_key: bool
    made_gateways: tuple[str, ...]
    made_sites: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether anything at all is new."""
        return any((self.made_ca, self.made_crl, self.made_server_key, self.made_gateways, self.made_sites))


class Storage:
    """Named secrets in a directory. The one place that knows how they lie on the disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def has(self, name: str) -> bool:
        """Whether the name is there."""
        return (self.root / name).exists()

    def read(self, name: str) -> str:
        """The text under the name."""
        path = self.root / name
        try:
            return path.read_text(encoding="ascii")
        except FileNotFoundError as exc:
            raise KeyStoreError(
                f"{path} is missing from the key store. Restore it from the backup; do not make it anew."
            ) from exc
        except (OSError, UnicodeDecodeError) as exc:
            raise KeyStoreError(f"{path} cannot be read: {exc}.") from exc

    def write(self, name: str, text: str) -> None:
        """Replace one name."""
        write_atomic(self.root / name, text.encode("ascii"), 0o600)

    def write_new(self, name: str, files: Mapping[str, str]) -> None:
        """Add a directory of files that is seen whole or not at all."""
        final = self.root / name
        parent = final.parent
        self._make(parent)
        for left in parent.glob(f".{final.name}.*.new"):
            shutil.rmtree(left)
        temporary = parent / f".{final.name}.{random.token_hex(4)}.new"
        try:
            temporary.mkdir(mode=0o700)
            for file, text in files.items():
                write_atomic(temporary / file, text.encode("ascii"), 0o600)
            temporary.rename(final)
            sync_directory(parent)
        except OSError as exc:
            raise KeyStoreError(
                f"{final} cannot be written: {exc.strerror or exc}. No key was lost. Free space and run again."
            ) from exc
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def names(self, under: str) -> list[str]:
        """The whole entries below a directory."""
        try:
            return sorted(path.name for path in (self.root / under).iterdir() if not path.name.startswith("."))
        except FileNotFoundError:
            return []

    def prepare(self) -> None:
        """Make the root directory, closed to everybody else."""
        self._make(self.root)
        self.check_closed()

    def check_closed(self) -> None:
        """Refuse a root directory that others can look into."""
        mode = self.root.stat().st_mode & 0o777 if self.root.exists() else 0
        if mode & 0o077:
            raise KeyStoreError(
                f"key store {self.root} has mode {mode:04o}: others could read all keys. Run: chmod 0700 {self.root}"
            )

    def _make(self, directory: Path) -> None:
        missing = [path for path in (directory, *directory.parents) if not path.exists()]
        try:
            for path in reversed(missing):
                path.mkdir(mode=0o700)
                sync_directory(path.parent)
        except OSError as exc:
            raise KeyStoreError(f"{directory} cannot be made: {exc.strerror or exc}.") from exc


class KeyStore:
    """All keys of one fleet."""

    def __init__(self, *, path: Path, storage: Storage | None = None) -> None:
        self.path = path
        self.storage = storage or Storage(path)

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
        try:
            self.storage.check_closed()
            missing = self._missing(gateways=gateways, sites=sites)
            if dry_run or not (missing.changed or self._new_index(fleet=fleet) != self.index()):
                return missing
            self.storage.prepare()
            with self._locked(operation="make keys"):
                return self._make_missing(fleet=fleet, key_type=key_type, gateways=gateways, sites=sites)
        except OSError as exc:
            raise KeyStoreError(
                f"the key store {self.path} cannot be {'read' if dry_run else 'written'}: {exc.strerror or exc}"
                f"{f' ({exc.filename})' if exc.filename else ''}. No key was lost. See to free space and to the "
                "permissions of the directory, then run again."
            ) from exc

    def site_key(self, *, site: str) -> SiteKey:
        """The newest key of a site, proven whole: sealed by our server key, signed by our CA, for this site."""
        epoch = self.epoch(site=site)
        if epoch == 0:
            raise NoKeyError(f"{site} has no key in {self.path}. Make it first: run site.yml, or its step 'keys'.")
        return self._read_site(site=site, epoch=epoch)

    def epoch(self, *, site: str) -> int:
        """The newest epoch of a site's keys, 0 when it has none."""
        return max((int(name) for name in self.storage.names(f"sites/{site}") if name.isdigit()), default=0)

    def index(self) -> dict[str, Any]:
        """The index without secrets, empty when there is none yet."""
        if not self.storage.has(INDEX):
            return {}
        try:
            found = json.loads(self.storage.read(INDEX))
        except ValueError as exc:
            raise KeyStoreError(
                f"{self.path / INDEX} is no JSON ({exc}). It holds nothing secret: delete it, the next run rebuilds it."
            ) from exc
        return found if isinstance(found, dict) else {}

    def _missing(self, *, gateways: Sequence[str], sites: Sequence[str]) -> Ensured:
        has = self.storage.has
        missing = Ensured(
            made_ca=not has(CA_CERT),
            made_crl=not has(CRL),
            made_server_key=not has(SERVER_KEY),
            made_gateways=tuple(name for name in gateways if not has(f"gateways/{name}/{CERT}")),
            made_sites=tuple(site for site in sites if self.epoch(site=site) == 0),
        )
        self._refuse_partial_loss(missing)
        self._refuse_half_a_gateway(gateways)
        self._refuse_lost_sites(sites)
        return missing

    def _make_missing(
        self, *, fleet: str, key_type: certificates.KeyType, gateways: Sequence[str], sites: Sequence[str]
    ) -> Ensured:
        missing = self._missing(gateways=gateways, sites=sites)
        now = dt.datetime.now(tz=dt.UTC).replace(microsecond=0)
        if missing.made_ca:
            ca = certificates.make_ca(fleet=fleet, key_type=key_type, now=now)
            # The certificate is written last: it is what says that the CA exists.
            self.storage.write(CA_KEY, ca.private_key)
            self.storage.write(CA_CERT, ca.certificate)
        ca = certificates.Identity(certificate=self.storage.read(CA_CERT), private_key=self.storage.read(CA_KEY))
        if missing.made_crl:
            self.storage.write(CRL, certificates.make_crl(ca=ca, revoked=(), now=now))
        if missing.made_server_key:
            self.storage.write(SERVER_KEY, tls_crypt_v2.ServerKey.generate().to_pem())
        server = tls_crypt_v2.ServerKey.from_pem(self.storage.read(SERVER_KEY))
        for name in missing.made_gateways:
            issued = certificates.issue_gateway(ca=ca, name=name, key_type=key_type, now=now)
            self.storage.write_new(f"gateways/{name}", {KEY: issued.private_key, CERT: issued.certificate})
        for site in missing.made_sites:
            self._make_site(site=site, epoch=1, ca=ca, server=server, key_type=key_type, now=now)
        self._write_index(fleet=fleet)
        return missing

    def _refuse_partial_loss(self, missing: Ensured) -> None:
        """A CA or server key that vanished while keys made with it are still there was lost, not never made."""
        issued = self.storage.names("sites") or self.storage.names("gateways")
        for gone, name in ((missing.made_ca, CA_CERT), (missing.made_server_key, SERVER_KEY)):
            if gone and issued:
                raise KeyStoreError(
                    f"{self.path / name} is gone, but keys made with it are still there. A new one would lock every "
                    "site out. Restore it from the backup of the key store."
                )
        if not missing.made_ca and not self.storage.has(CA_KEY):
            raise KeyStoreError(
                f"{self.path / CA_KEY} is gone, but {CA_CERT} is there. Without it no site or gateway can be given a "
                "key. Restore it from the backup of the key store; do not make it anew."
            )

    def _refuse_half_a_gateway(self, gateways: Sequence[str]) -> None:
        for name in gateways:
            there = self.storage.names(f"gateways/{name}")
            gone = [file for file in (CERT, KEY) if file not in there]
            if there and gone:
                raise KeyStoreError(
                    f"{self.path / 'gateways' / name} is only partly there: {' and '.join(gone)} missing. Restore it "
                    f"from the backup. For a new certificate of {name}, remove the whole directory."
                )

    def _refuse_lost_sites(self, sites: Sequence[str]) -> None:
        """The index says who was given a key; a key it knows and that is not there was lost, not never made."""
        known = self.index().get("sites", {})
        lost = [
            site
            for site in sites
            if max((int(name) for name in known.get(site, {}) if name.isdigit()), default=0) > self.epoch(site=site)
        ]
        if lost:
            raise KeyStoreError(
                f"{self.path / 'sites'}: the keys of {', '.join(lost[:5])}"
                f"{f' and {len(lost) - 5} more' if len(lost) > 5 else ''} are gone, but {INDEX} knows that they were "
                f"made. Restore sites/ID from the backup of the key store. To give such a site a new key on purpose, "
                f'remove its entry under "sites" from {self.path / INDEX}, then run again.'
            )

    def _make_site(
        self,
        *,
        site: str,
        epoch: int,
        ca: certificates.Identity,
        server: tls_crypt_v2.ServerKey,
        key_type: certificates.KeyType,
        now: dt.datetime,
    ) -> None:
        metadata = tls_crypt_v2.Metadata(site=site, kid=random.token_hex(8), epoch=epoch, issued=int(now.timestamp()))
        issued = certificates.issue_site(ca=ca, site=site, key_type=key_type, now=now)
        psk = tls_crypt_v2.generate_client_key(server=server, metadata=metadata)
        self.storage.write_new(f"sites/{site}/{epoch}", {KEY: issued.private_key, CERT: issued.certificate, PSK: psk})

    def _read_site(self, *, site: str, epoch: int) -> SiteKey:
        read, where = self.storage.read, f"sites/{site}/{epoch}"
        server = tls_crypt_v2.ServerKey.from_pem(read(SERVER_KEY))
        ca = certificates.Identity(certificate=read(CA_CERT), private_key="")
        identity = certificates.Identity(certificate=read(f"{where}/{CERT}"), private_key=read(f"{where}/{KEY}"))
        psk = read(f"{where}/{PSK}")
        try:
            metadata = tls_crypt_v2.verify(server=server, text=psk, site=site, epoch=epoch)
            certificates.check(ca=ca, issued=identity, name=site)
        except FleetError as exc:
            raise KeyStoreError(
                f"{self.path / where}: {exc} It is not delivered. Restore this directory from the backup."
            ) from exc
        return SiteKey(
            site=site,
            epoch=epoch,
            kid=metadata.kid,
            issued=metadata.issued,
            ca=ca.certificate,
            identity=identity,
            psk=psk,
        )

    def _write_index(self, *, fleet: str) -> None:
        """Bring the index in line with the files; they are the truth, so a crash before this line loses nothing."""
        new = self._new_index(fleet=fleet)
        if new != self.index():
            self.storage.write(INDEX, json.dumps(new, indent=1, sort_keys=True) + "\n")

    def _new_index(self, *, fleet: str) -> dict[str, Any]:
        known = self.index().get("sites", {})
        # What was made once stays known, so that its loss is seen even when the site comes back years later.
        sites: dict[str, dict[str, Any]] = dict(known)
        for site in self.storage.names("sites"):
            entries = dict(known.get(site, {}))
            for name in self.storage.names(f"sites/{site}"):
                if name.isdigit() and name not in entries:
                    entries[name] = {**self._read_site(site=site, epoch=int(name)).public(), "state": "issued"}
            sites[site] = entries
        gateways = {}
        for name in self.storage.names("gateways"):
            text = self.storage.read(f"gateways/{name}/{CERT}")
            gateways[name] = {
                "certificate_fingerprint": certificates.fingerprint(certificate=text),
                "certificate_serial": format(certificates.serial(certificate=text), "x"),
            }
        ca = certificates.fingerprint(certificate=self.storage.read(CA_CERT))
        return {"version": 1, "fleet": fleet, "ca_fingerprint": ca, "gateways": gateways, "sites": sites}

    @contextlib.contextmanager
    def _locked(self, *, operation: str) -> Iterator[None]:
        path = self.path / LOCK
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                holder = os.pread(handle, 300, 0).decode("utf-8", "replace").strip() or "an unknown process"
                raise KeyStoreLockedError(
                    f"the key store {self.path} is in use by {holder}. Wait for it to end, then run again."
                ) from exc
            since = dt.datetime.now(tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            line = f"{getpass.getuser()}@{socket.gethostname()} (pid {os.getpid()}) since {since}: {operation}\n"
            os.ftruncate(handle, 0)
            os.pwrite(handle, line.encode(), 0)
            yield
            with contextlib.suppress(OSError):
                os.ftruncate(handle, 0)
        finally:
            os.close(handle)
