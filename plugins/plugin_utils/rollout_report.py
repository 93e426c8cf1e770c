# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout did, kept as JSON, as JUnit for a CI system and as one page for people. It holds no secret."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import sync_directory, write_atomic
from ansible_collections.spokewright.fleet.plugins.plugin_utils.durations import duration
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_figures import (
    EXIT_CODES,
    IN_ORDER,
    STATES,
    TITLES,
    completed,
    tamed,
    verdict,
    waves_of,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_timeline import histogram, timeline
from ansible_collections.spokewright.fleet.plugins.plugin_utils.run_report import MODE, ReportError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import table

if TYPE_CHECKING:
    from collections.abc import Mapping

JSON: Final = "report.json"
JUNIT: Final = "report.xml"
PAGE: Final = "report.html"
TEMPLATES: Final = Path(__file__).resolve().parent / "templates"
# In a larger rollout the list of a wave's sites is folded; whoever needs a look is listed above it in any case.
UNFOLDED: Final = 100
# The end of a run in a terminal names this many sites, the report all.
NAMED: Final = 20
WAVE_HEAD: Final = ("WAVE", "STATE", "SITES", *(state.upper() for state in STATES), "BEGAN", "ENDED")


def write_rollout_report(*, directory: Path, data: Mapping[str, Any]) -> Path:
    """Write report.json, report.xml and report.html into `directory`, each whole or not at all; the path of the page.

    Raises:
        ReportError: it could not be written.
    """
    text = json.dumps(completed(data), indent=2) + "\n"
    shown = tamed(completed(data))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # The page names the digest of the JSON, so it comes last.
        for name, content in (
            (JSON, text),
            (JUNIT, _junit(shown)),
            (PAGE, _page(shown, digest=hashlib.sha256(text.encode()).hexdigest())),
        ):
            write_atomic(directory / name, content.encode(), MODE, sync_parent=False)
        sync_directory(directory)
    except (OSError, FleetError) as exc:
        reason = exc.strerror or exc if isinstance(exc, OSError) else exc
        raise ReportError(
            f"the report {directory} could not be written: {reason}. What was done at the sites stands."
        ) from exc
    return directory / PAGE


def rollout_text(data: Mapping[str, Any]) -> str:
    """The end of a run for a person at a terminal: the verdict, the waves, then who needs a look and why."""
    shown = tamed(completed(data))
    offline = shown["offline"]
    lines = [
        shown["verdict"],
        f"{TITLES.get(shown['what'], 'Rollout')} {shown['rollout']} on fleet {shown['fleet']} by {shown['by']}",
        f"From {shown['began']} to {shown['ended']}, {duration(shown['seconds'])}",
        *([f"Reason: {shown['reason']}"] if shown["reason"] else []),
    ]
    if offline["sites"]:
        lines.append(
            f"Offline: {duration(offline['median'])} in the median,"
            f" {duration(offline['worst'])} at worst ({offline['worst_site']})"
        )
    lines += [f"Halted at {halt['at']}{_gate(halt)}: {halt['why']}" for halt in shown["halts"]]
    rows = [
        [
            wave.name,
            str(wave.facts["state"]) or "-",
            str(len(wave.sites)),
            *(str(wave.counts[state]) for state in STATES),
            str(wave.facts["began"]) or "-",
            str(wave.facts["ended"]) or "-",
        ]
        for wave in waves_of(shown)
    ]
    lines += ["", table(head=WAVE_HEAD, rows=rows)]
    looked = [(site, one) for site, one in shown["sites"].items() if one["state"] not in IN_ORDER]
    if looked:
        cells = [[site, one["state"], one["wave"] or "-", _says(one)] for site, one in looked[:NAMED]]
        lines += ["", table(head=("SITE", "STATE", "WAVE", "MESSAGE"), rows=cells)]
    if len(looked) > NAMED:
        lines.append(f"and {len(looked) - NAMED} more, in the report")
    return "\n".join([*lines, ""])


def _gate(halt: Mapping[str, Any]) -> str:
    return f" by the gate of wave {halt['wave']}" if halt["wave"] else ""


def _says(one: Mapping[str, Any]) -> str:
    return ": ".join(text for text in (one["reason"], one["message"]) if text) or "-"


def _junit(shown: Mapping[str, Any]) -> str:
    waves = waves_of(shown)
    return _templates().get_template("rollout_report.xml.j2").render(data=shown, waves=waves)


def _page(shown: Mapping[str, Any], *, digest: str) -> str:
    waves = waves_of(shown)
    seconds = [one["seconds"] for one in shown["sites"].values() if one["seconds"] is not None]
    return (
        _templates()
        .get_template("rollout_report.html.j2")
        .render(
            data=shown,
            verdict=verdict(shown),
            waves=waves,
            looked=[(site, one) for site, one in shown["sites"].items() if one["state"] not in IN_ORDER],
            timeline=timeline(data=shown, waves=waves),
            histogram=histogram(seconds=seconds, median=shown["offline"]["median"] or 0.0),
            states=STATES,
            titles=TITLES,
            exit_codes=EXIT_CODES,
            unfolded=len(shown["sites"]) <= UNFOLDED,
            json_name=JSON,
            digest=digest,
        )
    )


@lru_cache(maxsize=1)
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        # What a site says came over the wire. The endings of the files do not decide: all of them are escaped.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["duration"] = duration
    environment.filters["moment"] = _moment
    return environment


def _moment(text: str) -> str:
    """A moment as a page shows it; reports keep everything in UTC."""
    return text.replace("T", " ").removesuffix("Z")
