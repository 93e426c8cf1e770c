# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finishing what a crash interrupted: a whole key that is in no book is entered, a removal is carried through."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_index import BOOKED, booked, replay
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_maker import (
    THREADS,
    ca_event,
    gateway_event,
    issue_event,
    server_key_event,
    state_event,
    store_key_event,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_storage import CA_CERT, CRL, SERVER_KEY
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ledger import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_index import Epochs, KeyIndex
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_reader import KeyReader
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_storage import Storage
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.ledger import Ledger
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.operation import Operation

# Stands before the name of a file that an operation was about to remove.
REMOVE: Final = "-"
# Stands for the store's own key, which lies elsewhere.
STORE_KEY: Final = "key of the store"


class Recovery:
    """Brings files, ledger and index in line after an operation that did not end."""

    def __init__(
        self,
        *,
        storage: Storage,
        reader: KeyReader,
        index: KeyIndex,
        ledger: Ledger,
        log: Callable[[Sequence[Event]], list[dict[str, Any]]],
    ) -> None:
        self.storage = storage
        self.reader = reader
        self.index = index
        self.ledger = ledger
        self.log = log

    def finish(self, left: Operation) -> None:
        """Finish one operation."""
        self._clean(left)
        lines = self.ledger.of(left.name)
        for name in left.pending:
            if name.startswith(REMOVE):
                site, epoch = _site_and_epoch(name)
                self.finish_removal(site=site, epoch=epoch, reason=left.reason, lines=lines)
            elif name == STORE_KEY:
                self.storage.key.clean()
                if self.storage.key.exists and not any(line["event"] == "store-key-made" for line in lines):
                    self.log([store_key_event(self.storage.key)])
            elif self.storage.has(name):
                self._enter(name, lines=lines, reason=left.reason)
        self.apply(lines)
        self.log([Event(event="recovered", reason=f"{left.name} by {left.who} since {left.since} did not end")])

    def apply(self, lines: Sequence[Mapping[str, Any]], *, known: Mapping[str, Epochs] | None = None) -> None:
        """Bring the index in line with lines of the ledger. `known` is what it was seen to say under the same lock."""
        of: dict[str, list[Mapping[str, Any]]] = {}
        for line in lines:
            if line["site"] and line["event"] in BOOKED:
                of.setdefault(str(line["site"]), []).append(line)
        if of:
            self.storage.make("index")
            with ThreadPoolExecutor(max_workers=THREADS) as pool:
                list(pool.map(partial(self._apply, known=known or {}), of.items()))
            self.index.sync()

    def _apply(self, of: tuple[str, list[Mapping[str, Any]]], *, known: Mapping[str, Epochs]) -> None:
        site, lines = of
        before = known[site] if site in known else self.index.get(site)
        epochs = dict(before)
        for line in lines:
            epoch = int(line["epoch"])
            if epoch not in epochs and self.storage.has(f"sites/{site}/{epoch}.vault"):
                epochs[epoch] = self.reader.site(site=site, epoch=epoch).public()
            if epoch in epochs:
                epochs[epoch] = booked(epochs[epoch], line)
        if epochs != before:
            self.index.put(site, epochs, sync=False)

    def rebuild(self, sites: Sequence[str]) -> None:
        """Make the index of sites again from the ledger and from the files."""
        said = replay(self.ledger.entries(), sites=sites)
        for site in sites:
            epochs = said.get(site, {})
            for epoch in self.reader.epochs(site):
                key = self.reader.site(site=site, epoch=epoch)
                if epochs.get(epoch, {}).get("kid") != key.kid:
                    lines = self.log([issue_event(key, reason="found in the store without a line in the ledger")])
                    epochs[epoch] = replay(lines)[site][epoch]
                epochs[epoch] = {**epochs[epoch], **key.public()}
            if epochs:
                self.index.put(site, epochs)

    def _clean(self, left: Operation) -> None:
        for under in ("gateways", "index"):
            self.storage.clean(under)
        for under in {name.removeprefix(REMOVE).rpartition("/")[0] for name in left.pending} - {"", "gateways"}:
            self.storage.clean(under)

    def _enter(self, name: str, *, lines: Sequence[Mapping[str, Any]], reason: str) -> None:
        events = {str(line["event"]) for line in lines}
        kind, _slash, rest = name.partition("/")
        if kind == "sites":
            site, epoch = _site_and_epoch(name)
            if not any((line["event"], line["site"], line["epoch"]) == ("issued", site, epoch) for line in lines):
                key = self.reader.site(site=site, epoch=epoch)
                self.apply(self.log([issue_event(key, reason=reason)]))
        elif kind == "gateways":
            gateway = rest.removesuffix(".vault")
            certificate = self.reader.gateway_certificate(name=gateway)
            if not self.storage.has(f"gateways/{gateway}.pem"):
                self.storage.write(f"gateways/{gateway}.pem", certificate)
            if not any((line["event"], line["reason"]) == ("gateway-issued", gateway) for line in lines):
                self.log([gateway_event(name=gateway, certificate=certificate)])
        elif name == CA_CERT and "ca-made" not in events:
            self.log([ca_event(self.reader.ca())])
        elif name == SERVER_KEY and "server-key-made" not in events:
            self.log([server_key_event(self.reader.server())])
        elif name == CRL and "crl-made" not in events:
            self.log([Event(event="crl-made")])

    def finish_removal(self, *, site: str, epoch: int, reason: str, lines: Sequence[Mapping[str, Any]] = ()) -> None:
        """Remove an old key and enter that it is gone."""
        self.storage.remove(f"sites/{site}/{epoch}.vault")
        if not any((line["event"], line["site"], line["epoch"]) == ("destroyed", site, epoch) for line in lines):
            entry = self.index.get(site).get(epoch, {})
            self.apply(self.log([state_event(site=site, epoch=epoch, state="destroyed", entry=entry, reason=reason)]))


def _site_and_epoch(name: str) -> tuple[str, int]:
    _kind, site, file = name.split("/")
    return site, int(file.removesuffix(".vault"))
