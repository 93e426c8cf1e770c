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
_ED25519_BYTES = 51


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
    length = int.from_bytes(blob[:_LENGTH_BYTES], "big")
    inner = blob[_LENGTH_BYTES : _LENGTH_BYTES + length]
    if inner != kind.encode():
        return f"is damaged: it says '{kind}' but holds something else"
    if kind == "ssh-ed25519" and len(blob) != _ED25519_BYTES:
        return "is damaged: it is not as long as an ed25519 key"
    return None
