# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is gone from the key store and must not be made anew in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import Ensured, KeyStoreError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_storage import CA_CERT, CA_KEY, SERVER_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_index import KeyIndex
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_reader import KeyReader
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_storage import Storage
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.ledger import Ledger


class Losses:
    """Tells lost from never made."""

    def __init__(self, *, storage: Storage, reader: KeyReader, index: KeyIndex, ledger: Ledger) -> None:
        self.storage = storage
        self.reader = reader
        self.index = index
        self.ledger = ledger

    def refuse(self, *, missing: Ensured, sites: Sequence[str]) -> None:
        """Raise when what is missing was there before."""
        self._refuse_partial_loss(missing)
        self._refuse_lost_gateways(missing.made_gateways)
        self._refuse_lost_sites(sites)

    def _refuse_partial_loss(self, missing: Ensured) -> None:
        """A CA or server key that vanished while keys made with it are still there was lost, not never made."""
        root = self.storage.root
        issued = self.storage.has_any("sites") or self.storage.has_any("gateways")
        for gone, name in ((missing.made_ca, CA_CERT), (missing.made_server_key, SERVER_KEY)):
            if gone and issued:
                raise KeyStoreError(
                    f"{root / name} is gone, but keys made with it are still there. A new one would lock every "
                    "site out. Restore it from the backup of the key store."
                )
        if not missing.made_ca and not self.storage.has(CA_KEY):
            raise KeyStoreError(
                f"{root / CA_KEY} is gone, but {CA_CERT} is there. Without it no site or gateway can be given a "
                "key. Restore it from the backup of the key store; do not make it anew."
            )
        if missing.made_store_key and self.storage.holds_secrets:
            self.storage.key.read()

    def _refuse_lost_gateways(self, missing: Sequence[str]) -> None:
        for name in missing:
            if self.storage.has(f"gateways/{name}.pem"):
                raise KeyStoreError(
                    f"{self.storage.root / 'gateways' / name}.vault is gone, but its certificate {name}.pem is there. "
                    f"Restore it from the backup. For a new certificate of {name}, remove {name}.pem too."
                )

    def _refuse_lost_sites(self, sites: Sequence[str]) -> None:
        """A key that is on record and not there was lost, not never made."""
        lost, unheard = [], []
        for site in sites:
            there, known = self.reader.epochs(site), self.index.get(site)
            if not there and not known:
                unheard.append(site)
            newest = max((epoch for epoch, entry in known.items() if entry["state"] != "destroyed"), default=0)
            if newest > max(there, default=0):
                lost.append(site)
        # The index of a site may be lost together with its keys.
        said = self.ledger.issued_to(unheard) if unheard else ()
        lost += [site for site in unheard if site in said]
        if lost:
            raise KeyStoreError(
                f"{self.storage.root / 'sites'}: the keys of {', '.join(lost[:5])}"
                f"{f' and {len(lost) - 5} more' if len(lost) > 5 else ''} are gone, but it is on record that they were "
                "made. Restore sites/ID from the backup of the key store. To give such a site a new key on purpose, "
                "run: tools/fleet key regenerate ID"
            )
