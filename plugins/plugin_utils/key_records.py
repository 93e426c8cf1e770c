# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the key store hands out and takes, and the errors it raises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates, tls_crypt_v2
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError, LockedError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_states import STATES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.secret import Secret


class KeyStoreError(FleetError):
    """The key store cannot be used as it is."""


class KeyStoreLockedError(KeyStoreError, LockedError):
    """Somebody else changes the key store at this moment."""


class NoKeyError(KeyStoreError):
    """The key asked for was never made."""


class StoreKeyError(KeyStoreError):
    """The store's own key is missing, wrong, or open to others."""


class LedgerError(KeyStoreError):
    """The ledger is damaged, so nothing may be added to it."""


@dataclass(frozen=True, kw_only=True)
class SiteKey:
    """Everything secret one site needs."""

    site: str
    epoch: int
    kid: str
    issued: int
    ca: str
    certificate: str
    private_key: Secret
    psk: Secret
    # The same key of the site for the next server key, or for the former one, while that is rotated.
    other_psk: Secret | None = None

    def __repr__(self) -> str:
        return f"SiteKey(site={self.site!r}, epoch={self.epoch}, kid={self.kid!r})"

    @property
    def psk_fingerprints(self) -> tuple[str, ...]:
        """Of its PSK, and of the one for the other server key."""
        psks = [self.psk, self.other_psk] if self.other_psk else [self.psk]
        return tuple(tls_crypt_v2.fingerprint(text=psk.reveal()) for psk in psks)

    def public(self) -> dict[str, Any]:
        """What may be written anywhere: names and fingerprints."""
        return {
            "epoch": self.epoch,
            "kid": self.kid,
            "psk_fingerprint": tls_crypt_v2.fingerprint(text=self.psk.reveal()),
            "certificate_fingerprint": certificates.fingerprint(certificate=self.certificate),
            "certificate_serial": format(certificates.serial(certificate=self.certificate), "x"),
            "certificate_expires": certificates.expires(certificate=self.certificate).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "issued": self.issued,
        }


@dataclass(frozen=True, kw_only=True)
class GatewayKey:
    """Everything one gateway needs to identify itself and to let sites in."""

    name: str
    ca: str
    crl: str
    certificate: str
    private_key: Secret
    server_key: Secret

    def __repr__(self) -> str:
        return f"GatewayKey(name={self.name!r})"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a site was seen to hold. Without `back` a state only moves on: "staged" is no news of an active key.

    `carries`: what it has confirmed beside its PSK, the fingerprint of the one for the other server key.
    """

    site: str
    epoch: int
    state: str
    back: bool = False
    carries: str = ""

    def entered(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is known of the key once this is entered."""
        state = self.state if self.is_news(str(entry["state"])) else entry["state"]
        return {**entry, "state": state, "carries": self.carries or entry.get("carries", "")}

    def is_news(self, state: str) -> bool:
        """Whether it says more of a key than that it is in that state."""
        if state in {self.state, "revoked", "destroyed"}:
            return False
        return self.back or STATES.index(self.state) > STATES.index(state)


@dataclass(frozen=True, kw_only=True)
class Ensured:
    """What `ensure` made, or in a dry run would make."""

    made_ca: bool
    made_crl: bool
    made_server_key: bool
    made_gateways: tuple[str, ...]
    made_sites: tuple[str, ...]
    made_store_key: Path | None = None

    @property
    def changed(self) -> bool:
        """Whether anything at all is new."""
        return any(
            (
                self.made_ca,
                self.made_crl,
                self.made_server_key,
                self.made_gateways,
                self.made_sites,
                self.made_store_key,
            )
        )
