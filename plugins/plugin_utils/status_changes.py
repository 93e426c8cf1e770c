# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is different between two looks at the fleet, one line each."""

from __future__ import annotations

import datetime as dt
import typing as t

from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import oob_line, status_sum

if t.TYPE_CHECKING:
    Report = t.Mapping[str, t.Any]


def clock_time(report: Report) -> str:
    """When the look was taken, as the clock on the wall has it."""
    return dt.datetime.fromisoformat(report["time"]).astimezone().strftime("%H:%M:%S")


def first_lines(report: Report) -> list[str]:
    """Where a watch begins: the sum, who holds the addresses, and all that is not well."""
    return [
        status_sum(report),
        *_holders(report),
        *(f"problem: {problem}" for problem in report["problems"]),
        *(f"{one['id']} {one['verdict']}: {one['why']}" for one in report["sites"] if one["verdict"] != "up"),
        *(f"{one['id']} {oob_line(one)}" for one in report["sites"] if one["oob_reason"]),
    ]


def changes(before: Report, after: Report) -> list[str]:
    """What a look found that the one before it did not; the new sum at the end when a verdict changed."""
    old = {one["id"]: one for one in before["sites"]}
    lines = [line for line in _holders(after) if line not in _holders(before)]
    lines += [f"problem: {problem}" for problem in after["problems"] if problem not in before["problems"]]
    lines += [f"over: {problem}" for problem in before["problems"] if problem not in after["problems"]]
    verdicts = [
        f"{one['id']} {old[one['id']]['verdict']} -> {one['verdict']}: {one['why']}"
        for one in after["sites"]
        if one["verdict"] != old[one["id"]]["verdict"]
    ]
    links = [
        f"{one['id']} {oob_line(one) if one['oob_reason'] else 'out-of-band link up'}"
        for one in after["sites"]
        if one["oob"] != old[one["id"]]["oob"]
    ]
    return [*lines, *verdicts, *links, *([status_sum(after)] if verdicts else [])]


def _holders(report: Report) -> list[str]:
    return [f"{one['name']} holds {', '.join(one['vips'])}" for one in report["gateways"] if one["vips"]]
