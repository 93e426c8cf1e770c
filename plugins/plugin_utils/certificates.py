# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's certificate authority and what it issues."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

if TYPE_CHECKING:
    from collections.abc import Iterable

KeyType = Literal["p256", "ed25519"]
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

CA_DAYS: Final = 30 * 365
LEAF_DAYS: Final = 10 * 365
# An expired revocation list locks every site out, so its life is long and `tools/fleet` watches what is left of it.
CRL_DAYS: Final = 10 * 365
CRL_RENEW_DAYS: Final = 365
_PEM_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----\n[^-]+-----END CERTIFICATE-----\n")
_PEM_CRL: Final = re.compile(r"-----BEGIN X509 CRL-----\n[^-]+-----END X509 CRL-----\n")
_PEM_KEY: Final = re.compile(r"-----BEGIN PRIVATE KEY-----\n[^-]+-----END PRIVATE KEY-----\n")
# A remote that lost its clock battery must not refuse a gateway certificate because it was made "tomorrow".
BACKDATE: Final = dt.timedelta(days=2)


class CertificateError(FleetError):
    """A certificate or its key cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A certificate and its private key, both PEM."""

    certificate: str
    private_key: str

    def __repr__(self) -> str:
        return f"Identity({common_name(certificate=self.certificate)!r}, ...)"


def make_ca(*, fleet: str, key_type: KeyType, now: dt.datetime, follows: bool = False) -> Identity:
    """A new self-signed fleet CA. One that `follows` another has a name of its own: revocation lists go by names."""
    key = _new_key(key_type)
    public = key.public_key()
    mark = f" {x509.SubjectKeyIdentifier.from_public_key(public).digest.hex()[:8]}" if follows else ""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{fleet} fleet CA{mark}")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + dt.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    return Identity(certificate=_pem(builder.sign(key, _hash_for(key))), private_key=_private_pem(key))


def issue_gateway(*, ca: Identity, name: str, key_type: KeyType, now: dt.datetime) -> Identity:
    """A server certificate with CN = the gateway's name. Sites insist on its serverAuth purpose."""
    return _issue(ca=ca, name=name, purpose=ExtendedKeyUsageOID.SERVER_AUTH, key_type=key_type, now=now)


def issue_site(*, ca: Identity, site: str, key_type: KeyType, now: dt.datetime) -> Identity:
    """A client certificate with CN = the site id, the name a gateway knows the site by."""
    return _issue(ca=ca, name=site, purpose=ExtendedKeyUsageOID.CLIENT_AUTH, key_type=key_type, now=now)


def make_crl(*, ca: Identity, revoked: Iterable[int], now: dt.datetime, number: int = 1) -> str:
    """A revocation list of the given serial numbers."""
    certificate, key = _load(ca)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(certificate.subject)
        .last_update(now - BACKDATE)
        .next_update(now + dt.timedelta(days=CRL_DAYS))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()),
            critical=False,
        )
    )
    for serial in sorted(set(revoked)):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - BACKDATE).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(key, _hash_for(key)).public_bytes(serialization.Encoding.PEM).decode("ascii")


def renew_crl(*, ca: Identity, crl: str, now: dt.datetime, revoked: Iterable[int] = ()) -> str:
    """The same list with a new life and the next number; nobody on it comes off, `revoked` are added."""
    return make_crl(ca=ca, revoked={*crl_serials(crl=crl), *revoked}, now=now, number=crl_number(crl=crl) + 1)


def crl_days_left(*, crl: str, now: dt.datetime) -> int:
    """Whole days until a list expires and every gateway refuses every site; negative when that has happened."""
    return (min(map(_crl_end, crl_split(text=crl))) - now).days


def split(*, text: str) -> list[str]:
    """Each certificate of a text that may hold several."""
    return _PEM_CERTIFICATE.findall(text)


def crl_split(*, text: str) -> list[str]:
    """Each revocation list of a text that may hold one for each CA."""
    return _PEM_CRL.findall(text) or [text]


def is_of(*, ca: str, certificate: str) -> bool:
    """Whether the certificate was issued by that CA."""
    try:
        _certificate(certificate).verify_directly_issued_by(_certificate(ca))
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def is_crl_of(*, ca: str, crl: str) -> bool:
    """Whether the revocation list is that CA's."""
    # CA keys are P-256 or Ed25519.
    return _crl(crl).is_signature_valid(_certificate(ca).public_key())  # type: ignore[arg-type]


def own_key(*, certificate: str, private_keys: str) -> str:
    """The one of these private keys that belongs to the certificate."""
    wanted = _spki(_certificate(certificate).public_key())
    for text in _PEM_KEY.findall(private_keys):
        _own, key = _load(Identity(certificate=certificate, private_key=text))
        if _spki(key.public_key()) == wanted:
            return str(text)
    raise CertificateError(f"no private key is there for the certificate of {common_name(certificate=certificate)}.")


def crl_is_due(*, crl: str, now: dt.datetime) -> bool:
    """Whether the list is to be renewed now."""
    return crl_days_left(crl=crl, now=now) < CRL_RENEW_DAYS


def crl_number(*, crl: str) -> int:
    """The number of the list; a newer list has a higher one. 0 when it carries none."""
    try:
        return max(
            _crl(one).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for one in crl_split(text=crl)
        )
    except x509.ExtensionNotFound:
        return 0


def crl_serials(*, crl: str) -> set[int]:
    """The serial numbers of the certificates that are refused."""
    return {entry.serial_number for one in crl_split(text=crl) for entry in _crl(one)}


def common_name(*, certificate: str) -> str:
    """The CN of a PEM certificate."""
    names = _certificate(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def serial(*, certificate: str) -> int:
    """The serial number a revocation list would carry."""
    return _certificate(certificate).serial_number


def expires(*, certificate: str) -> dt.datetime:
    """When the certificate ends, in UTC."""
    return _certificate(certificate).not_valid_after_utc


def good_days(*, certificate: str, authorities: str) -> tuple[dt.date, dt.date]:
    """The first and the last whole day, in UTC, on which it and one of the CAs are valid (RFC 5280 section 4.1.2.5).

    While one CA follows another, that the old one has ended must not keep the new one from a site.
    """
    own, issuers = _certificate(certificate), [_certificate(one) for one in split(text=authorities)]
    first = max(own.not_valid_before_utc, min(one.not_valid_before_utc for one in issuers))
    last = min(own.not_valid_after_utc, max(one.not_valid_after_utc for one in issuers))
    day = dt.timedelta(days=1)
    return first.date() + day, last.date() - day


def fingerprint(*, certificate: str) -> str:
    """SHA256 of the certificate, as `openssl x509 -fingerprint -sha256` counts it."""
    return "SHA256:" + _certificate(certificate).fingerprint(hashes.SHA256()).hex()


def check(*, ca: Identity, issued: Identity, name: str) -> None:
    """Raise unless `issued` was signed by `ca`, is `name`'s, and its private key fits."""
    certificate, key = _load(issued)
    try:
        certificate.verify_directly_issued_by(_certificate(ca.certificate))
    except Exception as exc:
        raise CertificateError(f"the certificate of {name} was not signed by this fleet's CA.") from exc
    if common_name(certificate=issued.certificate) != name:
        found = common_name(certificate=issued.certificate)
        raise CertificateError(f"the certificate kept for {name} carries the name {found}.")
    if _spki(certificate.public_key()) != _spki(key.public_key()):
        raise CertificateError(f"the private key kept for {name} does not belong to its certificate.")


def _issue(*, ca: Identity, name: str, purpose: x509.ObjectIdentifier, key_type: KeyType, now: dt.datetime) -> Identity:
    issuer, issuer_key = _load(ca)
    key = _new_key(key_type)
    public = key.public_key()
    end = min(now + dt.timedelta(days=LEAF_DAYS), issuer.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - BACKDATE, issuer.not_valid_before_utc))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    return Identity(certificate=_pem(builder.sign(issuer_key, _hash_for(issuer_key))), private_key=_private_pem(key))


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _new_key(key_type: KeyType) -> PrivateKey:
    if key_type == "p256":
        return ec.generate_private_key(ec.SECP256R1())
    if key_type == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    raise CertificateError(f"key type {key_type!r} is unknown. Set tunnels.key_type to p256 or ed25519.")


def _hash_for(key: PrivateKey) -> hashes.SHA256 | None:
    # Ed25519 hashes by itself and refuses to be given a hash.
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _certificate(text: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(text.encode())
    except ValueError as exc:
        raise CertificateError("this is no PEM certificate.") from exc


def _crl(text: str) -> x509.CertificateRevocationList:
    try:
        return x509.load_pem_x509_crl(text.encode())
    except ValueError as exc:
        raise CertificateError("this is no PEM revocation list.") from exc


def _crl_end(text: str) -> dt.datetime:
    end = _crl(text).next_update_utc
    if end is None:
        raise CertificateError("the revocation list does not say when it ends; OpenVPN would refuse every site.")
    return end


def _load(identity: Identity) -> tuple[x509.Certificate, PrivateKey]:
    certificate = _certificate(identity.certificate)
    try:
        key = serialization.load_pem_private_key(identity.private_key.encode(), password=None)
    except (ValueError, TypeError) as exc:
        # The parser's own text may quote what it read; a private key must not get into a message.
        raise CertificateError("a private key in the key store is no unencrypted PEM key.") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise CertificateError("a private key in the key store is neither P-256 nor Ed25519.")
    return certificate, key


def _spki(public: object) -> bytes:
    if not isinstance(public, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        return b""
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _private_pem(key: PrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode("ascii")
