# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of each site in a fan-out, kept as JSON for programs and as text for people. It holds no secret."""

from __future__ import annotations

import datetime as dt
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import sync_directory, write_atomic
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_states import newest_of
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LATEST: Final = "latest"
MODE: Final = 0o644
# What a key is known by outside of the key store.
KEY_FACTS: Final = ("epoch", "kid", "psk_fingerprint", "certificate_fingerprint", "state")
HEAD: Final = ("SITE", "RESULT", "EPOCH", "KEY", "GENERATION", "BUNDLE", "SECONDS", "MESSAGE")


class ReportError(FleetError):
    """The report could not be written; what was done at the sites stands."""


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """Who did what, when."""

    fleet: str
    verb: str
    by: str
    began: float
    ended: float


def report(
    *,
    circumstances: Circumstances,
    sites: Mapping[str, Mapping[str, Any]],
    keys: Mapping[str, Mapping[int, Mapping[str, Any]]],
) -> dict[str, Any]:
    """All of it as data. `sites` is what the fan-out found, `keys` the key store's index."""
    entries = {site: {**found, **_key(keys.get(site, {}))} for site, found in sorted(sites.items())}
    failed = [site for site, one in entries.items() if not one["ok"]]
    changed = [site for site, one in entries.items() if one["ok"] and one["changed"]]
    reasons: dict[str, list[str]] = {}
    for site in failed:
        reasons.setdefault(str(entries[site].get("reason") or "error"), []).append(site)
    return {
        "fleet": circumstances.fleet,
        "verb": circumstances.verb,
        "by": circumstances.by,
        "began": iso(circumstances.began),
        "ended": iso(circumstances.ended),
        "seconds": round(circumstances.ended - circumstances.began, 1),
        "summary": {
            "total": len(entries),
            "changed": len(changed),
            "as_they_should_be": len(entries) - len(changed) - len(failed),
            "failed": len(failed),
        },
        "failed_by_reason": reasons,
        "sites": entries,
    }


def report_text(data: Mapping[str, Any]) -> str:
    """The same for a person: the sum, then who failed and why, then every site."""
    total = data["summary"]
    lines = [
        f"{data['verb']} on fleet {data['fleet']} by {data['by']}, {data['began']} to {data['ended']}",
        ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in total.items()),
    ]
    for reason, sites in data["failed_by_reason"].items():
        lines += ["", f"{reason}: {len(sites)}", *(f"  {data['sites'][site]['message']}" for site in sites)]
    if data["failed_by_reason"]:
        lines += ["", "Run the same again when this is mended: only what is missing is sent."]
    rows = [
        [
            site,
            "failed" if not one["ok"] else "changed" if one["changed"] else "ok",
            str(one.get("epoch", "-")),
            str(one.get("kid", "-")),
            str(one.get("generation") or "-"),
            str(one.get("digest", "-"))[:12] or "-",
            f"{one.get('seconds', 0.0):.1f}",
            str(one.get("reason", "")) if not one["ok"] else str(one.get("message", "")),
        ]
        for site, one in data["sites"].items()
    ]
    return "\n".join([*lines, "", table(head=HEAD, rows=rows), ""])


def write_report(*, base: Path, data: Mapping[str, Any]) -> Path:
    """Write BASE-TIME.json and BASE-TIME.txt, and let BASE-latest.* lead to them. Returns the path of the text."""
    stamp = str(data["ended"]).replace("-", "").replace(":", "")
    texts = {"json": json.dumps(data, indent=2) + "\n", "txt": report_text(data)}
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        for ending, text in texts.items():
            path = base.with_name(f"{base.name}-{stamp}.{ending}")
            write_atomic(path, text.encode(), MODE)
            point_latest(base.with_name(f"{base.name}-{LATEST}.{ending}"), to=path.name)
        sync_directory(base.parent)
    except (OSError, FleetError) as exc:
        reason = exc.strerror or exc if isinstance(exc, OSError) else exc
        raise ReportError(
            f"the report {base}-{stamp} could not be written: {reason}. What was done at the sites stands."
        ) from exc
    return base.with_name(f"{base.name}-{stamp}.txt")


def point_latest(link: Path, *, to: str) -> None:
    """Point a link at a file beside it; a reader sees the old or the new one, never none."""
    temporary = link.with_name(f".{link.name}.{secrets.token_hex(4)}.tmp")
    temporary.symlink_to(to)
    try:
        temporary.replace(link)
    except OSError:
        temporary.unlink()
        raise


def _key(epochs: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    newest = epochs.get(newest_of(epochs), {})
    return {fact: newest[fact] for fact in KEY_FACTS if fact in newest}


def iso(moment: float) -> str:
    """A moment as reports name it."""
    return dt.datetime.fromtimestamp(moment, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
