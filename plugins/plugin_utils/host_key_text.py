# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge the text of an SSH host key, as `known_hosts` writes it: TYPE BASE64 [COMMENT]."""

from __future__ import annotations

import base64
import binascii

KNOWN_TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
)
_LENGTH_BYTES = 4
# Bytes of the fields behind the type; 0 is any length but none.
_ED25519 = (32,)
_RSA = (0, 0)
_POINTS = {"nistp256": 65, "nistp384": 97, "nistp521": 133}


def host_key_fault(*, text: str) -> str | None:
    """Return what is wrong with a host key, in words that fit behind "host key", or None."""
    words = text.split()
    if len(words) < 2:
        return "has no two words, a type and a key"
    kind, encoded = words[0], words[1]
    if kind not in KNOWN_TYPES:
        return f"has the type '{kind}', known are {', '.join(KNOWN_TYPES)}"
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return "is damaged: its second word is no base64"
    fields, whole = _fields(blob)
    curve = kind.rpartition("-")[2]
    family, shape = {"ssh-ed25519": ("ed25519", _ED25519), "ssh-rsa": ("rsa", _RSA)}.get(
        kind, ("ecdsa", (len(curve), _POINTS.get(curve, 0)))
    )
    holds_curve = family != "ecdsa" or fields[1:2] in ([], [curve.encode()])
    if fields[:1] != [kind.encode()] or not holds_curve:
        return f"is damaged: it says '{kind}' but holds something else"
    lengths = [len(field) for field in fields[1:]]
    fits = len(lengths) == len(shape) and all(
        got == wanted if wanted else got > 0 for got, wanted in zip(lengths, shape, strict=True)
    )
    return None if whole and fits else f"is damaged: it is not as long as an {family} key"


def _fields(blob: bytes) -> tuple[list[bytes], bool]:
    """The length-prefixed fields, and whether they end exactly where the key does."""
    found: list[bytes] = []
    at = 0
    while at + _LENGTH_BYTES <= len(blob):
        end = at + _LENGTH_BYTES + int.from_bytes(blob[at : at + _LENGTH_BYTES], "big")
        if end > len(blob):
            return found, False
        found.append(blob[at + _LENGTH_BYTES : end])
        at = end
    return found, at == len(blob)
