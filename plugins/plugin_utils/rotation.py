# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose key is due, whose rotation is under way, and which old keys can go. Pure.

It follows from what is known of each key, never from what an earlier run had in mind: a rotation that was killed is
nothing but sites whose newest key is not confirmed yet, or whose former one is not retired yet.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_states import ENDED, newest_of
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ledger import REASON_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Epochs = Mapping[int, Mapping[str, Any]]

# A key is due when it is older, without anybody giving a reason.
DUE_DAYS: Final = 90
# None is to become older than that.
MOST_DAYS: Final = 365

Kind = Literal["due", "under way", "done", "no key"]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What a rotation has to do with one site, and why.

    ``epoch``: that of its newest key. ``next``: the one that a new key would have.
    """

    site: str
    epoch: int
    next: int
    kind: Kind
    why: str


def reasons_of(lines: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], str]:
    """Why each key was made, by site and epoch, from the lines of the ledger."""
    return {
        (str(line["site"]), int(line["epoch"])): str(line["reason"]) for line in lines if line.get("event") == "issued"
    }


def turns(
    *,
    index: Mapping[str, Epochs],
    reasons: Mapping[tuple[str, int], str],
    sites: Sequence[str],
    reason: str,
    days: int,
    now: dt.datetime,
) -> dict[str, Turn]:
    """Judge each site.

    Args:
        index: what the key store knows of each site's keys.
        reasons: why each key was made.
        sites: ids of the sites that are asked for.
        reason: why they get new keys. It names the rotation: a key that was made for it is not made twice. Empty: only
            keys older than `days` are due.
        days: how old a key may become.
        now: the time, with its zone.
    """
    return {
        site: _turn(site=site, epochs=index.get(site, {}), reasons=reasons, reason=reason, days=days, now=now)
        for site in sites
    }


def retirable(epochs: Epochs) -> list[int]:
    """The epochs that no site is in need of: everything before a newest key that is confirmed."""
    newest = newest_of(epochs)
    if not newest or epochs[newest]["state"] != "confirmed":
        return []
    return [epoch for epoch in sorted(epochs) if epoch < newest and epochs[epoch]["state"] not in ENDED]


def denied(index: Mapping[str, Epochs], *, ending: Mapping[str, Sequence[int]] | None = None) -> list[str]:
    """The ids of all keys that no gateway may let in any more, and of those that are about to end."""
    soon = {(site, epoch) for site, epochs in (ending or {}).items() for epoch in epochs}
    return sorted(
        str(entry["kid"])
        for site, epochs in index.items()
        for epoch, entry in epochs.items()
        if (entry["state"] in ENDED or (site, epoch) in soon) and entry.get("kid")
    )


def named(site: str, entry: Mapping[str, Any]) -> str:
    """A key as a difference shows it, by fingerprint."""
    return f"{site} epoch {entry['epoch']} {entry['kid']} {entry['psk_fingerprint']} {entry['state']}"


def foretold(turn: Turn, *, epochs: Epochs) -> str:
    """What a rotation would do with a site, its keys by fingerprint."""
    if turn.kind not in {"due", "under way"}:
        return turn.why
    newest = turn.next if turn.kind == "due" else turn.epoch
    ends = [epoch for epoch in sorted(epochs) if epoch < newest and epochs[epoch]["state"] not in ENDED]
    end = f"then end {' and '.join(_brief(epochs[epoch]) for epoch in ends)}" if ends else ""
    if turn.kind == "due":
        steps = [f"make its key of epoch {turn.next}", "bring it", end]
    elif epochs[newest]["state"] != "confirmed":
        steps = [f"bring {_brief(epochs[newest])}", end]
    else:
        steps = [end.removeprefix("then ")]
    return f"would {', '.join(step for step in steps if step)}: {turn.why}"


def _brief(entry: Mapping[str, Any]) -> str:
    return f"epoch {entry['epoch']} ({entry['kid']} {entry['psk_fingerprint']})"


def _turn(
    *,
    site: str,
    epochs: Epochs,
    reasons: Mapping[tuple[str, int], str],
    reason: str,
    days: int,
    now: dt.datetime,
) -> Turn:
    newest = newest_of(epochs)

    def turn(kind: Kind, why: str) -> Turn:
        return Turn(site=site, epoch=newest, next=max(epochs, default=0) + 1, kind=kind, why=why)

    if not newest:
        return turn("no key", "it has no key yet: site.yml makes its first one")
    state, former = str(epochs[newest]["state"]), retirable(epochs)
    made_for = reasons.get((site, newest), "") == reason[:REASON_MAX]
    found = turn("done", f"its key of epoch {newest} was made for {reason!r}")
    if state in ENDED:
        found = turn("due", f"its newest key, of epoch {newest}, is {state}")
    # A key that never left the key store is as good as a new one, whatever it was made for.
    elif reason and not made_for and state != "issued":
        found = turn("due", f"{reason} (epoch {newest})")
    elif state != "confirmed":
        found = turn("under way", f"its key of epoch {newest} is {state}")
    elif former:
        found = turn("under way", f"its key of epoch {former[-1]} is not retired yet")
    elif not reason:
        age = (now - issued_at(epochs[newest])).days
        found = turn("due" if age >= days else "done", f"its key of epoch {newest} is {age} days old, due at {days}")
    return found


def issued_at(entry: Mapping[str, Any]) -> dt.datetime:
    """When a key was made."""
    text = str(entry.get("times", {}).get("issued", ""))
    if text:
        return dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
    return dt.datetime.fromtimestamp(int(entry["issued"]), tz=dt.UTC)
