# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the health daemon tells others: a document, the same as metrics, and a line in the journal for each change.

Runs on gateways: standard library only. Times are Unix seconds.
"""

from __future__ import annotations

import json
import typing as t
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from ansible_collections.spokewright.fleet.plugins.module_utils.health_storm import Storm

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.module_utils.health_rules import Role

NOTICE, WARNING = 5, 4
"""Priorities of the journal."""


@dataclass(frozen=True)
class Check:
    """One thing that is looked at."""

    name: str
    well: bool
    since: float
    penalty: int
    detail: str


@dataclass(frozen=True)
class Report:
    """All that is known at one moment."""

    time: float
    score: int
    role: Role
    hold_until: float | None
    checks: tuple[Check, ...]
    cures: t.Mapping[str, int] = field(default_factory=dict)
    storm: Storm = field(default_factory=Storm)

    @property
    def summary(self) -> str:
        """One line for people: the score, and why."""
        bad = ", ".join(check.name for check in self.checks if not check.well) or "all well"
        bad += "" if self.storm.since is None else "; in a storm"
        return "%s, score %d: %s" % (self.role, self.score, bad if self.hold_until is None else "held back")


def document(*, report: Report) -> str:
    """The report as JSON."""
    return json.dumps(asdict(report)) + "\n"


def bad_checks(*, text: str) -> dict[str, float]:
    """The checks that an earlier document calls bad, and since when; nothing when it cannot be read."""
    try:
        return {str(row["name"]): float(row["since"]) for row in json.loads(text)["checks"] if row["well"] is False}
    except (ValueError, KeyError, TypeError):
        return {}


def metrics(*, report: Report) -> str:
    """The report as Prometheus reads it."""
    lines = [
        *_metric(
            "score", "gauge", "What keepalived is told; 0 is well, -254 gives the addresses away.", {"": report.score}
        ),
        *_metric("role", "gauge", "1 for what this gateway is.", {_label("role", report.role): 1}),
        *_metric(
            "hold",
            "gauge",
            "Whether the addresses are given away in a planned way.",
            {"": report.hold_until is not None},
        ),
        *_metric("time_seconds", "gauge", "When this was written.", {"": report.time}),
    ]
    for name, text in (("well", "Whether a check is well."), ("penalty", "What it takes off the score.")):
        values = {_label("check", check.name): getattr(check, name) for check in report.checks}
        lines += _metric("check_%s" % name, "gauge", text, values)
    since = {_label("check", check.name): check.since for check in report.checks}
    lines += _metric("check_since_seconds", "gauge", "Since when a check is as it is.", since)
    cures = {_label("instance", name): count for name, count in report.cures.items()}
    lines += _metric("cures_total", "counter", "Frozen instances, or keepalived, ended so that they start anew.", cures)
    storm = report.storm
    for name, kind, text, value in (
        ("storm", "gauge", "Whether sites come back in a storm that does not end by itself.", storm.since is not None),
        ("sessions", "gauge", "Sessions of all instances, half-open ones included.", storm.sessions),
        ("half_open_sessions", "gauge", "Sessions whose handshake is not done.", storm.half_open),
        ("handshakes_per_second", "gauge", "Sessions that begin in a second.", storm.handshakes_per_second),
        ("storm_drops", "gauge", "Packets of this storm that full receive buffers dropped.", storm.drops),
        ("storm_limited", "gauge", "Handshakes of this storm that limits refused.", storm.limited),
    ):
        lines += _metric(name, kind, text, {"": value})
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, text: str, values: t.Mapping[str, float]) -> list[str]:
    full = "spokewright_health_%s" % name
    if not values:
        return []
    rows = ["%s%s %s" % (full, label, _number(value)) for label, value in values.items()]
    return ["# HELP %s %s" % (full, text), "# TYPE %s %s" % (full, kind), *rows]


def _number(value: float) -> str:
    return "%.3f" % value if isinstance(value, float) else "%d" % value


def _label(name: str, value: str) -> str:
    return '{%s="%s"}' % (name, value)


def lines(*, before: Report | None, after: Report) -> list[tuple[int, str]]:
    """One line for each change from one report to the next, each with its priority for the journal."""
    scores = "score_before=%s score_after=%d" % ("none" if before is None else before.score, after.score)
    said: list[tuple[int, str]] = []
    known = {check.name: check for check in before.checks} if before else {}
    for check in after.checks:
        then = known.get(check.name)
        changed = (then.well, then.penalty) != (check.well, check.penalty) if then else not check.well
        if changed:
            said.append(
                (
                    NOTICE if check.well else WARNING,
                    'check="%s" well=%s since=%s penalty=%d %s detail="%s"'
                    % (check.name, _yes(check.well), stamp(check.since), check.penalty, scores, check.detail),
                )
            )
    if before is None or before.role != after.role:
        said.append((NOTICE, "role=%s since=%s %s" % (after.role, stamp(after.time), scores)))
    held = None if before is None else before.hold_until
    if held != after.hold_until:
        until = "none" if after.hold_until is None else stamp(after.hold_until)
        said.append((NOTICE, "hold_until=%s since=%s %s" % (until, stamp(after.time), scores)))
    return said + _storm_lines(before=before.storm if before else Storm(), after=after.storm, now=after.time)


def _storm_lines(*, before: Storm, after: Storm, now: float) -> list[tuple[int, str]]:
    """One line when a storm begins, one when it is over."""
    if before.since is None and after.since is not None:
        text = 'storm=yes since=%s sessions=%d half_open=%d drops=%d limited=%d command="%s" detail="%s"'
        numbers = (after.sessions, after.half_open, after.drops, after.limited)
        return [(WARNING, text % (stamp(after.since), *numbers, after.command, "; ".join(after.signs)))]
    if before.since is not None and after.since is None:
        text = "storm=no since=%s seconds=%.0f sessions=%d half_open_peak=%d drops=%d limited=%d"
        numbers = (after.sessions, after.half_open_peak, after.drops, after.limited)
        return [(NOTICE, text % (stamp(now), now - before.since, *numbers))]
    return []


def stamp(seconds: float) -> str:
    """A moment, as people read it."""
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _yes(value: object) -> str:
    return "yes" if value else "no"
