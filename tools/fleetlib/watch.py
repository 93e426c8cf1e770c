# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at the fleet again and again: a table that is drawn anew on a terminal, lines for what changed elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
import typing as t

from ansible_collections.spokewright.fleet.plugins.plugin_utils.status_changes import changes, clock_time, first_lines
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import status_table

if t.TYPE_CHECKING:
    from collections.abc import Callable

    Report = t.Mapping[str, t.Any]

CLEAR: t.Final = "\x1b[H\x1b[2J"
# As many changes stay on the screen as one can read at a glance.
KEPT: t.Final = 5


def watch(
    *,
    look: Callable[[], Report],
    seconds: float,
    stream: t.TextIO | None = None,
) -> bool:
    """Look until Ctrl-C; what the last look said of the fleet is the result.

    Raises:
        KeyboardInterrupt: before the first look was done.
    """
    stream = stream or sys.stdout
    show = _Screen(stream, seconds) if stream.isatty() else _Lines(stream)
    last: Report | None = None
    try:
        while True:
            report = look()
            show(report, last)
            stream.flush()
            last = report
            time.sleep(seconds)
    except KeyboardInterrupt:
        if last is None:
            raise
        return bool(last["summary"]["well"])


class _Lines:
    """One line for each change: for a log, a pipe, a service."""

    def __init__(self, stream: t.TextIO) -> None:
        self._stream = stream

    def __call__(self, report: Report, last: Report | None) -> None:
        for line in changes(last, report) if last else first_lines(report):
            self._stream.write(f"{clock_time(report)} {line}\n")


class _Screen:
    """The table as far as it fits, then the last changes. A table that is too long shows what is not well."""

    def __init__(self, stream: t.TextIO, seconds: float) -> None:
        self._stream = stream
        self._every = seconds
        self._changes: list[str] = []

    def __call__(self, report: Report, last: Report | None) -> None:
        if last:
            self._changes += [f"{clock_time(report)} {line}" for line in changes(last, report)]
            del self._changes[:-KEPT]
        width, height = shutil.get_terminal_size()
        room = height - 3 - (len(self._changes) + 1 if self._changes else 0)
        lines = status_table(report).splitlines()
        if len(lines) > room:
            lines = status_table({**report, "sites": [one for one in report["sites"] if not _well(one)]}).splitlines()
        if len(lines) > room:
            lines = [*lines[: max(1, room - 1)], f"... and {len(lines) - max(1, room - 1)} lines more"]
        head = f"every {self._every:g} s, {clock_time(report)}, Ctrl-C ends"
        screen = [head, "", *lines, *(["", *self._changes] if self._changes else [])]
        # A line that the terminal breaks in two would push the first one out.
        self._stream.write(CLEAR + "".join(f"{line[:width]}\n" for line in screen))


def _well(site: t.Mapping[str, t.Any]) -> bool:
    return bool(site["verdict"] == "up" and site["oob"] != "down")
