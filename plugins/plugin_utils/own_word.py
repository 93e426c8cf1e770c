# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What sites say of themselves over their out-of-band links, beside what the gateways say of them."""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass

from ansible_collections.spokewright.fleet.plugins.plugin_utils.holds import HoldNote, note_of

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import SiteResult
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet

NOT_TRIED: t.Final = "not-tried"


@dataclass(frozen=True, kw_only=True)
class OwnWord:
    """One site's answer. ``generation`` and ``epoch`` are what it runs; 0 where it did not say.

    ``asked`` is false where the look was given up before its turn: then nothing is known of its link. ``hold``: its
    client is kept stopped.
    """

    asked: bool = True
    up: bool
    reason: str = ""
    message: str = ""
    generation: int = 0
    epoch: int = 0
    hold: HoldNote | None = None


def ask_sites(*, fleet: Fleet, sites: t.Sequence[str]) -> dict[str, OwnWord]:
    """Ask these sites, many at a time. A site that cannot be asked is part of the answer, never an exception."""
    # A look at the gateways alone needs none of this.
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.brake import Brake  # noqa: PLC0415

    return {site: own_word(one) for site, one in Brake(fleet=fleet, verb="show").carry_out(sites=sites).items()}


def own_word(result: SiteResult) -> OwnWord:
    """What a receipt says, or why there is none."""
    if not result.ok:
        return OwnWord(
            asked=result.reason != NOT_TRIED, up=False, reason=result.reason or "error", message=result.message
        )
    current = result.receipt.get("current") or 0
    epochs = [
        one.get("facts", {}).get("epoch")
        for one in result.receipt.get("generations", ())
        if one["generation"] == current
    ]
    return OwnWord(
        up=True,
        generation=int(current),
        epoch=int(epochs[0] or 0) if epochs else 0,
        hold=note_of(result.receipt, now=time.time()),
    )
