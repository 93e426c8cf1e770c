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

if t.TYPE_CHECKING:
    from pathlib import Path

SERVER_KEY_LABEL = "OpenVPN tls-crypt-v2 server key"
SERVER_KEY_BYTES = 128


class MaterialError(Exception):
    """A file is missing or does not fit the others. Its text says which, and what to do."""


@dataclass(frozen=True)
class Material:
    """What is known about the files, with no secret in it.

    ``digest`` names this set of files: it changes when one of them does. The CRL is not part of it, because a daemon
    reads a new CRL without a restart.
    """

    digest: str
    certificate_days: int
    crl_days: int
    crl_revoked: int


@dataclass(frozen=True)
class MaterialFiles:
    """Where the files lie in the controller's key store."""

    ca_file: Path
    cert_file: Path
    key_file: Path
    tls_crypt_v2_key_file: Path
    crl_file: Path


def read_material(*, files: MaterialFiles, now: datetime | None = None) -> Material:
    """Read and check the files.

    Raises:
        MaterialError: the first thing that is wrong.
    """
    moment = now or datetime.now(UTC)
    authority = _certificate(path=files.ca_file)
    certificate = _certificate(path=files.cert_file)
    _check_certificate(path=files.cert_file, certificate=certificate, authority=authority, ca_file=files.ca_file)
    key_text = _read(path=files.key_file)
    try:
        key = serialization.load_pem_private_key(key_text, password=None)
    except (ValueError, TypeError) as exc:
        raise MaterialError(f"{files.key_file}: no unencrypted private key in PEM form") from exc
    if _public(key.public_key()) != _public(certificate.public_key()):
        raise MaterialError(f"{files.key_file}: this private key does not belong to the certificate {files.cert_file}")
    server_key = _read(path=files.tls_crypt_v2_key_file)
    _check_server_key(path=files.tls_crypt_v2_key_file, text=server_key)
    crl = _crl(path=files.crl_file, authority=authority, ca_file=files.ca_file)
    parts = (_read(path=files.ca_file), _read(path=files.cert_file), key_text, server_key)
    return Material(
        digest=hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16],
        certificate_days=_days_left(path=files.cert_file, until=certificate.not_valid_after_utc, now=moment),
        crl_days=_days_left(path=files.crl_file, until=crl.next_update_utc, now=moment),
        crl_revoked=len(crl),
    )


def _read(*, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise MaterialError(
            f"{path}: {exc.strerror}. A gateway's keys are made on the controller before its role runs; "
            "playbooks/site.yml does both"
        ) from exc


def _certificate(*, path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path=path))
    except ValueError as exc:
        raise MaterialError(f"{path}: no certificate in PEM form") from exc


def _check_certificate(
    *, path: Path, certificate: x509.Certificate, authority: x509.Certificate, ca_file: Path
) -> None:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError) as exc:
        raise MaterialError(f"{path}: not issued by the CA in {ca_file}; sites would refuse this gateway") from exc
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    if ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        raise MaterialError(f"{path}: no server's certificate (extended key usage serverAuth); sites would refuse it")


def _public(key: t.Any) -> bytes:
    return bytes(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def _check_server_key(*, path: Path, text: bytes) -> None:
    lines = text.decode("ascii", errors="replace").split("\n")
    body = [line.strip() for line in lines if line.strip() and not line.startswith("-----")]
    try:
        raw = base64.b64decode("".join(body), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if lines[0].strip() != f"-----BEGIN {SERVER_KEY_LABEL}-----" or len(raw) != SERVER_KEY_BYTES:
        raise MaterialError(f"{path}: no {SERVER_KEY_LABEL} of {SERVER_KEY_BYTES} bytes")


def _crl(*, path: Path, authority: x509.Certificate, ca_file: Path) -> x509.CertificateRevocationList:
    try:
        crl = x509.load_pem_x509_crl(_read(path=path))
    except ValueError as exc:
        raise MaterialError(f"{path}: no CRL in PEM form; with it a gateway would refuse every site") from exc
    if not crl.is_signature_valid(authority.public_key()):  # type: ignore[arg-type] # CA keys are P-256 or Ed25519
        raise MaterialError(f"{path}: not signed by the CA in {ca_file}")
    return crl


def _days_left(*, path: Path, until: datetime | None, now: datetime) -> int:
    if until is None:
        raise MaterialError(f"{path}: no time of its next update; make it anew")
    if until <= now:
        raise MaterialError(f"{path}: ran out at {until.isoformat()}; with it no site would connect. Make it anew")
    return (until - now).days
