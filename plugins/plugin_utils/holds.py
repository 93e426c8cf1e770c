# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which sites may be held, as far as this controller was told: whom a status asks. The site has the last word.

A line for each site. It is safe to lose: a site knows its own hold, and ends it by itself.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import typing as t
from dataclasses import asdict, dataclass

from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import WriteError, write_atomic

if t.TYPE_CHECKING:
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet

ISO: t.Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, kw_only=True)
class HoldNote:
    """One site's hold. ``until``: its end in UTC, by the controller's clock."""

    until: str
    by: str
    reason: str = ""

    @property
    def end(self) -> float:
        """Unix seconds."""
        return dt.datetime.strptime(self.until, ISO).replace(tzinfo=dt.UTC).timestamp()

    @property
    def said(self) -> str:
        """As a person says it: until 2026-11-27T14:05:00Z by NAME: REASON."""
        return f"until {self.until} by {self.by}" + (f": {self.reason}" if self.reason else "")


def note_of(receipt: t.Mapping[str, t.Any], *, now: float) -> HoldNote | None:
    """What a site says of its hold; nothing when it is not held."""
    left = int(receipt.get("held") or 0)
    if not left:
        return None
    until = dt.datetime.fromtimestamp(now + left, tz=dt.UTC).strftime(ISO)
    return HoldNote(until=until, by=str(receipt.get("held_by", "")), reason=str(receipt.get("held_reason", "")))


def holds_file(fleet: Fleet) -> Path:
    """Where it is: beside the plan."""
    return fleet.plan_file.parent / "state" / f"{fleet.plan.name}.holds.json"


def read_holds(path: Path, *, now: float) -> dict[str, HoldNote]:
    """The holds that are not over; a file that is missing or cannot be read only means that none is known."""
    try:
        found = {
            str(site): HoldNote(**{name: str(value) for name, value in entry.items()})
            for site, entry in json.loads(path.read_text(encoding="utf-8")).items()
        }
        return {site: one for site, one in found.items() if one.end > now}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def enter_holds(path: Path, *, found: t.Mapping[str, HoldNote | None], now: float) -> None:
    """Enter what is known of these sites, and drop what is over. A brake works also where no file can be written."""
    if not path.exists() and not any(found.values()):
        return
    with contextlib.suppress(OSError, WriteError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            before = read_holds(path, now=now)
            kept = {site: one for site, one in {**before, **found}.items() if one is not None}
            if kept != before:
                lines = [f"{json.dumps(site)}: {json.dumps(asdict(one))}" for site, one in sorted(kept.items())]
                write_atomic(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode(), mode=0o644)


@contextlib.contextmanager
def _locked(path: Path) -> t.Iterator[None]:
    """Two commands at a time must not lose each other's lines."""
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
