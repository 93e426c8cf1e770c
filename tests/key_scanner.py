# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find pieces of known secrets in anything: as bytes, base64 at any shift, PEM lines, hex, or escaped in a text.

A piece of 32 bytes of a secret is found for certain, wherever it begins. Every run of 12 characters of every form of
every secret is known; a haystack is looked at in every eighth place, and 32 bytes are long enough in each form to hold
one.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ansible_collections.spokewright.fleet.plugins.plugin_utils import vault_format

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore

PIECE: Final = 12
STEP: Final = 8

_ESCAPED: Final = re.compile(rb"\\x([0-9a-fA-F]{2})|\\u00([0-9a-fA-F]{2})")
_BODY: Final = re.compile(r"-----BEGIN (.+?)-----\n(.*?)-----END", re.DOTALL)


@dataclass
class Scanner:
    """Knows secrets by name."""

    pieces: dict[bytes, str] = field(default_factory=dict, repr=False)

    def learn(self, *, name: str, secret: bytes) -> None:
        """Know a secret in all its forms."""
        for form in forms(secret):
            for at in range(len(form) - PIECE + 1):
                self.pieces.setdefault(form[at : at + PIECE], name)

    def find(self, haystack: bytes) -> set[str]:
        """The names of the secrets that are in there, in whole or in part."""
        found = self._find(haystack)
        if b"\\x" in haystack or b"\\u00" in haystack:
            found |= self._find(_ESCAPED.sub(lambda match: bytes([int(match[1] or match[2], 16)]), haystack))
        return found

    def _find(self, haystack: bytes) -> set[str]:
        known = self.pieces
        return {
            known[haystack[at : at + PIECE]]
            for at in range(0, len(haystack) - PIECE + 1, STEP)
            if haystack[at : at + PIECE] in known
        }


def forms(secret: bytes) -> Iterator[bytes]:
    """What a secret looks like when it is carried as text."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for shift in range(3):
        whole = secret[shift : len(secret) - (len(secret) - shift) % 3]
        yield base64.b64encode(whole)
        yield base64.urlsafe_b64encode(whole)


def secrets_of(text: str) -> list[bytes]:
    """The secret bytes in a PEM text: not the wrapping, not the public half."""
    found = []
    for kind, body in _BODY.findall(text):
        raw = base64.b64decode("".join(body.split()))
        if kind != "PRIVATE KEY":
            found.append(raw)
            continue
        key = load_pem_private_key(text.encode(), password=None)
        if isinstance(key, ed25519.Ed25519PrivateKey):
            found.append(key.private_bytes_raw())
        elif isinstance(key, ec.EllipticCurvePrivateKey):
            found.append(key.private_numbers().private_value.to_bytes(32, "big"))
    return found


def scanner_of(store: KeyStore) -> Scanner:
    """A scanner that knows everything secret in a store, and the store's own key."""
    scanner = Scanner()
    own = store.key.read()
    scanner.learn(name="the store's own key", secret=own)
    texts = {file.name: vault_format.decrypt(text=file.read_text(), secret=own) for file in store.path.glob("*.vault")}
    for file in (store.path / "gateways").glob("*.vault"):
        texts[file.stem] = store.gateway_key(name=file.stem).private_key.reveal()
    for site in store.index():
        for epoch in store.epochs(site=site):
            key = store.site_key(site=site, epoch=epoch)
            texts[f"{site}/{epoch} key"] = key.private_key.reveal()
            texts[f"{site}/{epoch} psk"] = key.psk.reveal()
            if key.other_psk:
                texts[f"{site}/{epoch} other psk"] = key.other_psk.reveal()
    for name, text in texts.items():
        for secret in secrets_of(text):
            scanner.learn(name=name, secret=secret)
    return scanner


def named(findings: Iterable[tuple[str, set[str]]]) -> list[str]:
    """Findings as lines: where, and which secrets."""
    return [f"{where}: {', '.join(sorted(secrets))}" for where, secrets in findings if secrets]
