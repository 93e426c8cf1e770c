# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server key that the gateways serve with, and while it is rotated the one that follows or the one before. Pure.

Both stand in one file of the key store, so that each step of a rotation is one write, and what is in the file says how
far the rotation is: one key, the key in use and the next one, or the new key and the former one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from ansible_collections.spokewright.fleet.plugins.plugin_utils import tls_crypt_v2
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import ENDED
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ledger import Event
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tls_crypt_v2 import ServerKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Phase = Literal["one", "next", "former"]
MADE: Final = "server-key-made"
SERVES: Final = "server-key-serves"
RETIRED: Final = "server-key-retired"
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


@dataclass(frozen=True, kw_only=True)
class Books:
    """What the ledger says: the fingerprints of both keys, and why the last one was made that did not go again."""

    serving: str = ""
    other: str = ""
    reasons: Mapping[str, str]


def replay(entries: Iterable[Mapping[str, Any]]) -> Books:
    """Read the ledger's lines about server keys. Those of the first versions carry no fingerprint."""
    serving, other = "", ""
    made = False
    reasons: dict[str, str] = {}
    for line in entries:
        event, name = line.get("event"), str(line.get("fingerprint", ""))
        if event == MADE:
            reasons[name] = str(line.get("reason", ""))
            serving, other = (serving, name) if made else (name, "")
            made = True
        elif event == SERVES:
            serving, other = name, serving
        elif event == RETIRED:
            other = ""
    return Books(serving=serving, other=other, reasons=reasons)


def lines(servers: ServerKeys, *, said: Books) -> list[Event]:
    """The lines that the ledger lacks to say what is there: what a crash between a file and its line leaves."""
    serving = fingerprint(servers.serving)
    other = fingerprint(servers.other) if servers.other else ""
    found = []
    if servers.phase == "next" and other not in {said.other, said.serving}:
        found.append(Event(event=MADE, fingerprint=other))
    if said.other and serving == said.other:
        found.append(Event(event=SERVES, fingerprint=serving))
        said = Books(serving=serving, other=said.serving, reasons=said.reasons)
    if not other and said.other:
        found.append(Event(event=RETIRED, fingerprint=said.other))
    return found


def not_ready(
    *, index: Mapping[str, Mapping[int, Mapping[str, Any]]], psks: Mapping[str, str], sites: Sequence[str]
) -> dict[str, str]:
    """The sites that the next server key would shut out, each with the reason.

    `psks`: the fingerprint of each site's PSK for the next server key, of its newest key that has not ended.
    """
    return {site: why for site in sites if (why := _lacks(epochs=index.get(site, {}), psk=psks.get(site, "")))}


def newest(epochs: Mapping[int, Mapping[str, Any]]) -> int:
    """The newest epoch that has not ended, 0 when there is none."""
    return max((epoch for epoch, entry in epochs.items() if entry["state"] not in ENDED), default=0)


def _lacks(*, epochs: Mapping[int, Mapping[str, Any]], psk: str) -> str:
    epoch = newest(epochs)
    if not epoch:
        return "it has no key"
    entry = epochs[epoch]
    if entry["state"] != "confirmed":
        return f"its newest key, of epoch {epoch}, is {entry['state']} and not confirmed"
    if not psk or psk not in str(entry.get("carries", "")).split():
        return "it has not confirmed its PSK for the next server key"
    return ""
