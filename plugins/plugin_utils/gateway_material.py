# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a gateway is given to identify itself, checked as a whole on the controller before any of it travels.

A daemon takes a CRL that is expired or garbled and from then on refuses every site; a certificate that does not belong
to its key is found at the next restart. Neither may be found on the gateway.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import typing as t
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.gateway_files import CRL, KeyFile
from ansible_collections.spokewright.fleet.plugins.plugin_utils.secret import Secret

if t.TYPE_CHECKING:
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import GatewayKey

SERVER_KEY_LABEL = "OpenVPN tls-crypt-v2 server key"
SERVER_KEY_BYTES = 128
RENEW_CERTIFICATE = "For a new one, move its .vault and its .pem out of the key store and run playbooks/site.yml"
RENEW_CRL = "playbooks/site.yml makes a new one when less than a year is left"


class MaterialError(FleetError):
    """A part does not fit the others. Its text says which, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """A gateway's files, and what may be known about them.

    ``digest`` names this set of files: it changes when one of them does. The CRL is not part of it, because a daemon
    reads a new CRL without a restart.
    """

    digest: str
    certificate_days: int
    crl_days: int
    crl_revoked: int
    keys: tuple[KeyFile, ...]
    crl: KeyFile


def check_material(*, key: GatewayKey, store: Path, now: datetime | None = None) -> Material:
    """Check what the store holds for a gateway.

    Raises:
        MaterialError: the first thing that is wrong.
    """
    moment = now or datetime.now(UTC)
    # The names under which an operator finds them, for messages.
    ca_file, crl_file, own_file = store / "ca.pem", store / "crl.pem", store / "gateways" / f"{key.name}.vault"
    authorities = [_certificate(text=one, path=ca_file) for one in certificates.split(text=key.ca) or [key.ca]]
    certificate = _certificate(text=key.certificate, path=own_file)
    _check_certificate(path=own_file, certificate=certificate, authorities=authorities, ca_file=ca_file)
    _check_private_key(path=own_file, text=key.private_key, certificate=certificate)
    _check_server_key(path=store / "server-tls-crypt-v2.vault", text=key.server_key)
    lists = certificates.crl_split(text=key.crl)
    if len(lists) != len(authorities):
        raise MaterialError(
            f"{crl_file}: {len(lists)} lists for {len(authorities)} CAs in {ca_file}; who was revoked would be let in. "
            f"{RENEW_CRL}"
        )
    crls = [
        _crl(text=text, path=crl_file, authority=authority, ca_file=ca_file)
        for text, authority in zip(lists, authorities, strict=True)
    ]
    keys = (
        KeyFile(name="ca.crt", content=Secret(key.ca)),
        KeyFile(name="gateway.crt", content=Secret(key.certificate)),
        KeyFile(name="gateway.key", content=key.private_key),
        KeyFile(name="tls-crypt-v2.key", content=key.server_key),
    )
    return Material(
        digest=hashlib.sha256(b"".join(bytes.fromhex(file.digest) for file in keys)).hexdigest()[:16],
        certificate_days=_days_left(
            path=own_file, until=certificate.not_valid_after_utc, now=moment, remedy=RENEW_CERTIFICATE
        ),
        crl_days=min(
            _days_left(path=crl_file, until=crl.next_update_utc, now=moment, remedy=RENEW_CRL) for crl in crls
        ),
        crl_revoked=len(crls[0]),
        keys=keys,
        crl=KeyFile(name=CRL, content=Secret(key.crl)),
    )


def check_days(*, material: Material, store: Path, crl_minimum_days: int) -> None:
    """Refuse what would run out before anybody looks again.

    Raises:
        MaterialError: which one, and how long it is still good.
    """
    if material.crl_days < crl_minimum_days:
        raise MaterialError(
            f"{store / 'crl.pem'}: good for {material.crl_days} more days, and {crl_minimum_days} are asked for. With "
            f"a CRL that ran out no site connects. {RENEW_CRL}"
        )
    if material.certificate_days < 1:
        raise MaterialError(
            f"{store / 'gateways'}: this gateway's certificate is good for less than a day. {RENEW_CERTIFICATE}"
        )


def _certificate(*, text: str, path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(text.encode("ascii"))
    except ValueError as exc:
        raise MaterialError(f"{path}: no certificate in PEM form. Restore it from the backup of the key store") from exc


def _check_certificate(
    *, path: Path, certificate: x509.Certificate, authorities: t.Sequence[x509.Certificate], ca_file: Path
) -> None:
    if not any(_issued_by(authority, certificate=certificate) for authority in authorities):
        raise MaterialError(f"{path}: not issued by the CA in {ca_file}; sites would refuse this gateway")
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    if ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        raise MaterialError(f"{path}: no server's certificate (extended key usage serverAuth); sites would refuse it")


def _issued_by(authority: x509.Certificate, *, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _check_private_key(*, path: Path, text: Secret, certificate: x509.Certificate) -> None:
    try:
        key = serialization.load_pem_private_key(text.reveal().encode("ascii"), password=None)
    except (ValueError, TypeError):
        # Without the cause: it may quote what it could not read.
        raise MaterialError(f"{path}: no unencrypted private key in PEM form") from None
    if _public(key.public_key()) != _public(certificate.public_key()):
        raise MaterialError(f"{path}: its private key does not belong to its certificate")


def _public(key: t.Any) -> bytes:
    return bytes(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def _check_server_key(*, path: Path, text: Secret) -> None:
    lines = text.reveal().split("\n")
    body = [line.strip() for line in lines if line.strip() and not line.startswith("-----")]
    try:
        raw = base64.b64decode("".join(body), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if lines[0].strip() != f"-----BEGIN {SERVER_KEY_LABEL}-----" or len(raw) != SERVER_KEY_BYTES:
        raise MaterialError(f"{path}: no {SERVER_KEY_LABEL} of {SERVER_KEY_BYTES} bytes")


def _crl(*, text: str, path: Path, authority: x509.Certificate, ca_file: Path) -> x509.CertificateRevocationList:
    try:
        crl = x509.load_pem_x509_crl(text.encode("ascii"))
    except ValueError as exc:
        raise MaterialError(f"{path}: no CRL in PEM form; with it a gateway would refuse every site") from exc
    if not crl.is_signature_valid(authority.public_key()):  # type: ignore[arg-type] # CA keys are P-256 or Ed25519
        raise MaterialError(f"{path}: not signed by the CA in {ca_file}")
    return crl


def _days_left(*, path: Path, until: datetime | None, now: datetime, remedy: str) -> int:
    if until is None:
        raise MaterialError(f"{path}: no time of its next update. {remedy}")
    if until <= now:
        raise MaterialError(f"{path}: ran out at {until.isoformat()}; with it no site would connect. {remedy}")
    return (until - now).days
