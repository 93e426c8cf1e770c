# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server key that the gateways serve with, and while it is rotated the next or the former one. Pure.

server-tls-crypt-v2.vault of the key store holds both, with the word next or former between them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils import tls_crypt_v2
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollover import Events, Phase, There
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tls_crypt_v2 import ServerKey

EVENTS: Final = Events(made="server-key-made", serves="server-key-serves", retired="server-key-retired")
_END: Final = f"-----END {tls_crypt_v2.SERVER_PEM}-----\n"


@dataclass(frozen=True, kw_only=True)
class ServerKeys:
    """`serving` is what gateways are to run with; `other` is the next one or the former one, as `phase` says."""

    serving: ServerKey
    other: ServerKey | None = None
    phase: Phase = "one"

    @classmethod
    def from_text(cls, text: str) -> ServerKeys:
        """Read what `to_text` wrote; a file with one key is as openvpn makes it."""
        first, end, rest = text.partition(_END)
        serving = ServerKey.from_pem(first + end)
        if not rest.strip():
            return cls(serving=serving)
        word, _line, second = rest.partition("\n")
        phases: dict[str, Phase] = {"next": "next", "former": "former"}
        if word not in phases:
            raise tls_crypt_v2.MalformedKeyError("the second server key is called neither next nor former.")
        return cls(serving=serving, other=ServerKey.from_pem(second), phase=phases[word])

    def to_text(self) -> str:
        """The text of the file in the key store."""
        return self.serving.to_pem() + (f"{self.phase}\n{self.other.to_pem()}" if self.other else "")

    def there(self) -> There:
        """By fingerprint."""
        other = fingerprint(self.other) if self.other else ""
        return There(serving=fingerprint(self.serving), other=other, phase=self.phase)

    def with_next(self, key: ServerKey) -> ServerKeys:
        """Another key is to follow."""
        return ServerKeys(serving=self.serving, other=key, phase="next")

    def turned(self) -> ServerKeys:
        """The other key serves, and this one stays beside it: the switch, and the way back from it."""
        if self.other is None:
            return self
        return ServerKeys(serving=self.other, other=self.serving, phase="former" if self.phase == "next" else "next")

    def alone(self) -> ServerKeys:
        """The serving key and no other."""
        return ServerKeys(serving=self.serving)


def fingerprint(key: ServerKey) -> str:
    """A name for a server key that gives nothing of it away."""
    return "SHA256:" + hashlib.sha256(b"spokewright server key\0" + key.raw).hexdigest()[:32]
