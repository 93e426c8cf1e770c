# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hold is: a site's client stays stopped for a stated time, because somebody said so. Pure."""

from __future__ import annotations

import datetime as dt
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.durations import DAY, HOUR, MINUTE, duration
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

if TYPE_CHECKING:
    from collections.abc import Mapping

USUAL: Final = 2 * HOUR
USUAL_RATE: Final = "60/min"
# The site refuses more, whoever asks.
LONGEST: Final = DAY
# To say it twice within a twentieth of the time is to say it once; the site has the last word.
NEAR: Final = 20
MOST_REASON: Final = 200
_SPAN: Final = re.compile(r"(?:(\d{1,5})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s)?")
_RATE: Final = re.compile(r"(\d{1,5}(?:\.\d{1,3})?)/(s|min|h)")
_PER: Final = {"s": 1, "min": MINUTE, "h": HOUR}


class HoldError(FleetError):
    """What was said of a hold or a release makes no sense."""


@dataclass(frozen=True, kw_only=True)
class Hold:
    """For how long, who says so, and why. ``now``: the controller's clock, which a site's may be behind."""

    seconds: int
    by: str
    reason: str = ""
    now: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        if not 1 <= self.seconds <= LONGEST:
            raise HoldError(
                f"a hold of {duration(self.seconds)} is not possible: a site is held for 1 s to {duration(LONGEST)}, "
                "and may be held again before that is over."
            )

    @property
    def words(self) -> tuple[str, ...]:
        """As the site is told."""
        return ("hold", str(self.seconds), str(int(self.now)), one_line(self.by), one_line(self.reason))

    @property
    def until(self) -> str:
        """Its end in UTC, by the controller's clock."""
        return dt.datetime.fromtimestamp(self.now + self.seconds, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def one_line(text: str) -> str:
    """What somebody typed, on one line and no longer than one reads."""
    return "".join(one for one in " ".join(text.split()) if one.isprintable())[:MOST_REASON].strip()


def read_span(text: str) -> int:
    """Seconds of 2h, 90m, 1h30m, 45s.

    Raises:
        HoldError: it is no time.
    """
    found = _SPAN.fullmatch(text.strip())
    if found is None or not any(found.groups()):
        raise HoldError(f"{text!r} is no time. Write hours, minutes and seconds as 2h, 90m, 1h30m or 45s.")
    hours, minutes, seconds = (int(one or 0) for one in found.groups())
    return hours * HOUR + minutes * MINUTE + seconds


def read_rate(text: str) -> float:
    """Sites a second of 20/min, 2/s, 600/h.

    Raises:
        HoldError: it is no rate.
    """
    found = _RATE.fullmatch(text.strip())
    if found is None or not float(found[1]):
        raise HoldError(f"{text!r} is no rate. Write how many sites in which time, as 20/min, 2/s or 600/h.")
    return float(found[1]) / _PER[found[2]]


def hold_of(shown: Mapping[str, Any]) -> str:
    """What a site says of its hold, in words; nothing when it is not held."""
    left = int(shown.get("held") or 0)
    why = f": {shown['held_reason']}" if left and shown.get("held_reason") else ""
    return f"held for another {duration(left)} by {shown.get('held_by', '')}{why}" if left else ""


def foretell_hold(*, hold: Hold | None, shown: Mapping[str, Any]) -> dict[str, Any]:
    """What a site would answer to a hold, or without one to a release: changed, reason and message."""
    left = int(shown.get("held", 0))
    if hold is None:
        said = f"would be released, {duration(left)} before its time is over" if left else "not held"
        return {"changed": bool(left), "reason": "", "message": said}
    if refused := _refusal(shown):
        return refused
    same = (shown.get("held_by"), shown.get("held_reason")) == hold.words[3:]
    if left and abs(hold.seconds - left) * NEAR <= hold.seconds and same and shown.get("service") != "active":
        return {"changed": False, "reason": "", "message": f"held for another {duration(left)}"}
    return {"changed": True, "reason": "", "message": f"would be held for {duration(hold.seconds)}"}


def _refusal(shown: Mapping[str, Any]) -> dict[str, Any] | None:
    """What keeps a site from being held."""
    if shown.get("init") == "none":
        return _refused("no-service-manager", "no init system that could keep the client stopped was found")
    if not shown["current"]:
        return _refused("no-generation", "nothing runs here that could be held")
    if shown["pending"]:
        said = f"generation {shown['pending']} is on probation, and would go back by itself; hold it when that is over"
        return _refused("on-probation", said)
    if not shown.get("holds"):
        said = (
            f"generation {shown['current']} knows no holds and would start its client again; bring the site up to date"
        )
        return _refused("too-old", f"{said} first (playbooks/sites.yml)")
    return None


def _refused(reason: str, message: str) -> dict[str, Any]:
    return {"changed": False, "reason": reason, "message": message}
