# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tls-crypt-v2 keys as the openvpn binary reads and writes them.

A server key is 128 bytes of which two halves of 32 seal client keys; a client key file carries the key itself
followed by the same key sealed together with its metadata (WKc). The gateway needs only the server key to open it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import itertools
import re
import secrets
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

SERVER_PEM: Final = "OpenVPN tls-crypt-v2 server key"
CLIENT_PEM: Final = "OpenVPN tls-crypt-v2 client key"
SERVER_BYTES: Final = 128
KEY_BYTES: Final = 256
TAG_BYTES: Final = 32
LENGTH_BYTES: Final = 2
WKC_MAX: Final = 1024
PAYLOAD_MAX: Final = WKC_MAX - TAG_BYTES - KEY_BYTES - LENGTH_BYTES - 1
TYPE_USER: Final = 0
TYPE_TIMESTAMP: Final = 1
BLOCK: Final = 16
EPOCH_MAX: Final = 10**10 - 1
ISSUED_MAX: Final = 10**15 - 1

_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KID = re.compile(r"[0-9a-f]{16}")
_PAYLOAD = re.compile(
    rf"v=1 site=(?P<site>{_SITE.pattern}) kid=(?P<kid>{_KID.pattern}) epoch=(?P<epoch>[1-9][0-9]{{0,9}}) "
    r"issued=(?P<issued>0|[1-9][0-9]{0,14})"
)


class TlsCryptV2Error(FleetError):
    """A tls-crypt-v2 key cannot be used."""


class MalformedKeyError(TlsCryptV2Error):
    """The text is no tls-crypt-v2 key of the kind asked for."""


class TruncatedKeyError(TlsCryptV2Error):
    """Bytes are missing, or the length inside disagrees with what is there."""


class OversizedKeyError(TlsCryptV2Error):
    """The sealed key or its metadata is longer than OpenVPN accepts."""


class ForeignKeyError(TlsCryptV2Error):
    """The key was sealed with another server key."""


class TamperedKeyError(TlsCryptV2Error):
    """The key was sealed with this server key and has been changed since."""


class MetadataError(TlsCryptV2Error):
    """The metadata is not ours, or not what was expected."""


class WrongSiteError(MetadataError):
    """The key belongs to another site."""


class WrongEpochError(MetadataError):
    """The key is of another epoch."""


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a site's key says about itself. One line of words, so that a POSIX shell can split it."""

    site: str
    kid: str
    epoch: int
    issued: int

    def encode(self) -> bytes:
        """The payload of a USER metadata field."""
        if not _SITE.fullmatch(self.site):
            raise MetadataError(
                f"site id {self.site!r} cannot stand in key metadata. Use at most 64 letters, digits, '.', '_' and '-'."
            )
        if not _KID.fullmatch(self.kid):
            raise MetadataError(f"key id {self.kid!r} is not 16 lower-case hexadecimal digits.")
        if not 1 <= self.epoch <= EPOCH_MAX:
            raise MetadataError(f"epoch {self.epoch} cannot stand in key metadata. Use 1 to {EPOCH_MAX}.")
        if not 0 <= self.issued <= ISSUED_MAX:
            raise MetadataError(f"issue time {self.issued} cannot stand in key metadata. Use seconds since 1970.")
        return f"v=1 site={self.site} kid={self.kid} epoch={self.epoch} issued={self.issued}".encode("ascii")

    @classmethod
    def decode(cls, payload: bytes) -> Metadata:
        """Read a payload made by `encode`; anything else is a MetadataError."""
        found = _PAYLOAD.fullmatch(payload.decode("ascii", "replace"))
        if found is None:
            raise MetadataError(
                "key metadata is not of our form 'v=1 site=... kid=... epoch=... issued=...'. "
                "The key was made by something else; issue a new one."
            )
        return cls(site=found["site"], kid=found["kid"], epoch=int(found["epoch"]), issued=int(found["issued"]))


@dataclass(frozen=True, kw_only=True)
class ServerKey:
    """The key that seals and opens all client keys of a fleet."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != SERVER_BYTES:
            raise TruncatedKeyError(f"a tls-crypt-v2 server key has {SERVER_BYTES} bytes, this one {len(self.raw)}.")

    def __repr__(self) -> str:
        return "ServerKey(...)"

    @classmethod
    def generate(cls) -> ServerKey:
        """A fresh random server key."""
        return cls(raw=secrets.token_bytes(SERVER_BYTES))

    @classmethod
    def from_pem(cls, text: str) -> ServerKey:
        """Read the file `openvpn --genkey tls-crypt-v2-server` makes."""
        return cls(raw=_unpem(name=SERVER_PEM, text=text))

    def to_pem(self) -> str:
        """The file openvpn reads."""
        return _pem(name=SERVER_PEM, raw=self.raw)

    @property
    def _cipher(self) -> bytes:
        return self.raw[0:32]

    @property
    def _hmac(self) -> bytes:
        return self.raw[64:96]


@dataclass(frozen=True, kw_only=True)
class ClientKey:
    """An opened client key: the secret, and what was sealed beside it."""

    secret: bytes
    metadata_type: int
    payload: bytes

    def __repr__(self) -> str:
        return f"ClientKey(metadata_type={self.metadata_type}, payload={self.payload!r})"


def generate_client_key(*, server: ServerKey, metadata: Metadata) -> str:
    """A fresh client key file for one site, sealed with the server key."""
    return wrap(server=server, secret=secrets.token_bytes(KEY_BYTES), payload=metadata.encode())


def wrap(*, server: ServerKey, secret: bytes, payload: bytes, metadata_type: int = TYPE_USER) -> str:
    """The client key file for `secret`, with any metadata up to OpenVPN's limit."""
    if len(secret) != KEY_BYTES:
        raise TruncatedKeyError(f"a client key has {KEY_BYTES} bytes, this one {len(secret)}.")
    if len(payload) > PAYLOAD_MAX:
        raise OversizedKeyError(
            f"metadata of {len(payload)} bytes is too long: OpenVPN takes {PAYLOAD_MAX}. Use a shorter site id."
        )
    plain = secret + bytes([metadata_type]) + payload
    length = struct.pack("!H", TAG_BYTES + len(plain) + LENGTH_BYTES)
    tag = hmac.new(server._hmac, length + plain, hashlib.sha256).digest()  # noqa: SLF001 - same module
    return _pem(name=CLIENT_PEM, raw=secret + tag + _ctr(server=server, tag=tag, data=plain) + length)


def unwrap(*, server: ServerKey, text: str) -> ClientKey:
    """Open a client key file and prove that it is whole and sealed with `server`."""
    raw = _unpem(name=CLIENT_PEM, text=text)
    shortest = KEY_BYTES + TAG_BYTES + KEY_BYTES + 1 + LENGTH_BYTES
    if len(raw) < shortest:
        raise TruncatedKeyError(f"the client key has {len(raw)} bytes; the shortest possible has {shortest}.")
    secret, wkc = raw[:KEY_BYTES], raw[KEY_BYTES:]
    if len(wkc) > WKC_MAX:
        raise OversizedKeyError(f"the sealed part of the client key has {len(wkc)} bytes; OpenVPN takes {WKC_MAX}.")
    (declared,) = struct.unpack("!H", wkc[-LENGTH_BYTES:])
    if declared != len(wkc):
        raise TruncatedKeyError(
            f"the sealed part of the client key says it has {declared} bytes and has {len(wkc)}: it was cut or padded."
        )
    tag, sealed = wkc[:TAG_BYTES], wkc[TAG_BYTES:-LENGTH_BYTES]
    plain = _ctr(server=server, tag=tag, data=sealed)
    expected = hmac.new(server._hmac, wkc[-LENGTH_BYTES:] + plain, hashlib.sha256).digest()  # noqa: SLF001
    if not hmac.compare_digest(expected, tag):
        if _sealed_by(server=server, secret=secret, sealed=sealed):
            raise TamperedKeyError("the client key was sealed with this server key and has been changed since.")
        raise ForeignKeyError("the client key was sealed with another tls-crypt-v2 server key than this fleet's.")
    if not hmac.compare_digest(plain[:KEY_BYTES], secret):
        raise TamperedKeyError("the key in the file differs from the key sealed inside it: the file was changed.")
    return ClientKey(secret=secret, metadata_type=plain[KEY_BYTES], payload=plain[KEY_BYTES + 1 :])


def verify(*, server: ServerKey, text: str, site: str, epoch: int | None = None) -> Metadata:
    """Open an issued key and prove that it is that site's (and of that epoch)."""
    opened = unwrap(server=server, text=text)
    if opened.metadata_type != TYPE_USER:
        raise MetadataError(
            f"the client key carries metadata of type {opened.metadata_type}, not USER (0): it was not issued by us."
        )
    found = Metadata.decode(opened.payload)
    if found.site != site:
        raise WrongSiteError(f"the client key was issued to site {found.site}, not to {site}.")
    if epoch is not None and found.epoch != epoch:
        raise WrongEpochError(f"the client key of {site} is of epoch {found.epoch}, not {epoch}.")
    return found


def fingerprint(*, text: str) -> str:
    """A name for a key file that gives nothing of it away."""
    return "SHA256:" + hashlib.sha256(b"spokewright psk\0" + _unpem(name=CLIENT_PEM, text=text)).hexdigest()[:32]


def _ctr(*, server: ServerKey, tag: bytes, data: bytes) -> bytes:
    context = Cipher(algorithms.AES(server._cipher), modes.CTR(tag[:BLOCK])).encryptor()  # noqa: SLF001
    return context.update(data) + context.finalize()


def _sealed_by(*, server: ServerKey, secret: bytes, sealed: bytes) -> bool:
    """Whether this server key made the seal, though the tag no longer fits.

    The file holds the key in the clear beside its sealed form, so each whole block gives away its counter under
    the right server key. Two neighbours that count up are no accident under a wrong one.
    """
    context = Cipher(algorithms.AES(server._cipher), modes.ECB()).decryptor()  # noqa: SLF001, S305 - one block each
    stream = bytes(a ^ b for a, b in zip(secret, sealed, strict=False))
    counters = [
        int.from_bytes(context.update(stream[at : at + BLOCK]), "big")
        for at in range(0, len(stream) - BLOCK + 1, BLOCK)
    ]
    wrap_at = 1 << (8 * BLOCK)
    return any((first + 1) % wrap_at == second for first, second in itertools.pairwise(counters))


def _pem(*, name: str, raw: bytes) -> str:
    body = base64.b64encode(raw).decode("ascii")
    lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    return f"-----BEGIN {name}-----\n{lines}\n-----END {name}-----\n"


def _unpem(*, name: str, text: str) -> bytes:
    begin, end = f"-----BEGIN {name}-----", f"-----END {name}-----"
    if begin not in text:
        raise MalformedKeyError(f"no '{begin}' line: this is no {name}.")
    body = text.split(begin, 1)[1]
    if end not in body:
        raise TruncatedKeyError(f"no '{end}' line: the file was cut.")
    try:
        return base64.b64decode("".join(body.split(end, 1)[0].split()), validate=True)
    except binascii.Error as exc:
        raise MalformedKeyError(
            f"the text between the lines of the {name} is no base64: the file was damaged."
        ) from exc
