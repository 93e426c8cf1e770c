# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who was given which key, one small file per site, without secrets. The ledger is what it can be made from again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import KeyStoreError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_states import STATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_storage import Storage
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.ledger import Ledger

DIRECTORY: Final = "index"

_FIELDS: Final = frozenset(("site", "epoch", "event", "kid", "fingerprint", "time"))

# A site's key has now this PSK, for another server key.
SEALED: Final = "sealed"
# A site has confirmed a bundle with these PSKs, while the server key is rotated.
CARRIES: Final = "carries"
BOOKED: Final = frozenset((*STATES, SEALED, CARRIES))

Epochs = dict[int, dict[str, Any]]


class KeyIndex:
    """The index of one key store."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def get(self, site: str) -> Epochs:
        """The epochs known of a site, empty when there are none."""
        name = f"{DIRECTORY}/{site}.json"
        if not self.storage.has(name):
            return {}
        try:
            found = json.loads(self.storage.read(name))
            return {int(epoch): _entry(entry) for epoch, entry in found["epochs"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise KeyStoreError(
                f"{self.storage.root / name} is no index of a site ({exc}). It holds nothing secret: delete it, the "
                "next run makes it again from the ledger."
            ) from exc

    def put(self, site: str, epochs: Mapping[int, Mapping[str, Any]], *, sync: bool = True) -> None:
        """Replace what is known of a site."""
        self.storage.make(DIRECTORY)
        # A line for each epoch. json's own indentation takes ten times as long, and a rollout writes one for each site.
        lines = ",\n".join(f' "{epoch}": {json.dumps(epochs[epoch], sort_keys=True)}' for epoch in sorted(epochs))
        text = f'{{"site": {json.dumps(site)}, "epochs": {{\n{lines}\n}}}}\n'
        self.storage.write(f"{DIRECTORY}/{site}.json", text, sync=sync)

    def sync(self) -> None:
        """Make what `put` wrote survive a power cut."""
        self.storage.sync(DIRECTORY)

    def sites(self) -> list[str]:
        """Every site it knows."""
        return self.storage.names(DIRECTORY, ".json")

    def all(self, sites: Sequence[str] | None = None) -> dict[str, Epochs]:
        """What is known of these sites, or of all."""
        return {site: found for site in (self.sites() if sites is None else sites) if (found := self.get(site))}


def _entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """One epoch, in the shape that everybody relies on."""
    state = entry["state"]
    if state not in STATES:
        raise ValueError(f"no key is {state!r}")
    return {**entry, "epoch": int(entry["epoch"]), "times": dict(entry["times"])}


def misfits(*, index: KeyIndex, ledger: Ledger) -> list[str]:
    """What the index says otherwise than the ledger."""
    said = replay(ledger.entries())
    found = []
    for site in index.sites():
        try:
            epochs = index.get(site)
        except KeyStoreError as exc:
            # One damaged file hides nothing that is wrong with the others.
            found.append(str(exc))
            continue
        for epoch, entry in epochs.items():
            where = f"{index.storage.root / DIRECTORY / site}.json: epoch {epoch}"
            line = said.get(site, {}).get(epoch)
            if line is None:
                found.append(f"{where}: no line of {ledger.path.name} says that it was issued.")
                continue
            found += [
                f"{where}: {field} is {entry.get(field)!r}, but {ledger.path.name} says {line[field]!r}."
                for field in ("kid", "psk_fingerprint", "state")
                if entry.get(field) != line[field]
            ]
    return found


def applied(entry: Mapping[str, Any], *, state: str, time: str) -> dict[str, Any]:
    """An entry after its key came to a state."""
    return {**entry, "state": state, "times": {**entry.get("times", {}), state: time}}


def booked(entry: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    """An entry after what a line of the ledger says."""
    event = str(line["event"])
    if event == SEALED:
        return {**entry, "psk_fingerprint": str(line["fingerprint"])}
    if event == CARRIES:
        return {**entry, "carries": str(line["fingerprint"])}
    return applied(entry, state=event, time=str(line["time"]))


def replay(entries: Iterable[Mapping[str, Any]], *, sites: Iterable[str] | None = None) -> dict[str, Epochs]:
    """What lines of the ledger say about sites."""
    wanted = None if sites is None else set(sites)
    found: dict[str, Epochs] = {}
    for line in entries:
        if not line.keys() >= _FIELDS:
            # It is damaged: `verify` names it.
            continue
        site, epoch, state = str(line["site"]), int(line["epoch"]), str(line["event"])
        if not site or state not in BOOKED or (wanted is not None and site not in wanted):
            continue
        epochs = found.setdefault(site, {})
        if state == "issued":
            epochs[epoch] = {"epoch": epoch, "kid": line["kid"], "psk_fingerprint": line["fingerprint"]}
        if epoch in epochs:
            epochs[epoch] = booked(epochs[epoch], line)
    return found
