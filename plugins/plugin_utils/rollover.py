# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rotation of the server key and a rollover of the CA have in common: one that serves, and another one. Pure.

Both stand in one file of the key store, so that each step is one write, and what is in the file says how far it is. The
ledger is told afterwards; what a crash between the two leaves out is told by the next run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_states import in_force
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ledger import Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# What the other one is to the one that serves.
Phase = Literal["one", "next", "former"]


@dataclass(frozen=True, kw_only=True)
class Events:
    """What the ledger calls the three things that happen to such a key."""

    made: str
    serves: str
    retired: str


@dataclass(frozen=True, kw_only=True)
class There:
    """What is there, by fingerprint."""

    serving: str = ""
    other: str = ""
    phase: Phase = "one"


@dataclass(frozen=True, kw_only=True)
class Books:
    """What the ledger says: the fingerprints of both, and why each one was made."""

    serving: str = ""
    other: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def there(self) -> There:
        """What the ledger says is there. Who was made later of the two is to follow, or has followed."""
        order = list(self.reasons)
        if not self.other:
            return There(serving=self.serving)
        phase: Phase = "next" if order.index(self.other) > order.index(self.serving) else "former"
        return There(serving=self.serving, other=self.other, phase=phase)

    def reason(self, there: There) -> str:
        """Why the newer of the two was made. It names the rotation."""
        return self.reasons.get(there.other if there.phase == "next" else there.serving, "")


def replay(entries: Iterable[Mapping[str, Any]], *, events: Events) -> Books:
    """Read the ledger."""
    serving, other = "", ""
    reasons: dict[str, str] = {}
    for line in entries:
        event, name = line.get("event"), str(line.get("fingerprint", ""))
        if event == events.made:
            serving, other = (serving, name) if serving else (name, "")
            reasons[name] = str(line.get("reason", ""))
        elif event == events.serves:
            serving, other = name, serving
        elif event == events.retired:
            other = ""
    return Books(serving=serving, other=other, reasons=reasons)


def lines(there: There, *, said: Books, events: Events) -> list[Event]:
    """What the ledger lacks to say what is there."""
    found = []
    if there.phase == "next" and there.other not in {said.other, said.serving}:
        found.append(Event(event=events.made, fingerprint=there.other))
    other = said.other
    if other and there.serving == other:
        found.append(Event(event=events.serves, fingerprint=there.serving))
        other = said.serving
    if other and not there.other:
        found.append(Event(event=events.retired, fingerprint=other))
    return found


def not_ready(
    *,
    index: Mapping[str, Mapping[int, Mapping[str, Any]]],
    wanted: Mapping[str, str],
    sites: Sequence[str],
    lacks: str,
) -> dict[str, str]:
    """The sites that have not confirmed what they are to have, by their newest key that has not ended.

    `wanted`: for each site the fingerprint of that; a site that is not in it lacks it.
    """
    found = {}
    for site in sites:
        epochs = index.get(site, {})
        entry = epochs.get(in_force(epochs), {})
        if not entry:
            found[site] = "it has no key"
        elif entry["state"] != "confirmed":
            found[site] = f"its newest key, of epoch {entry['epoch']}, is {entry['state']} and not confirmed"
        elif not wanted.get(site) or wanted[site] not in str(entry.get("carries", "")).split():
            found[site] = lacks
    return found
