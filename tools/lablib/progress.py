# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress: one line rewritten in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

LOG_SECONDS = 5.0


class Progress:
    """Says on stderr what the lab is doing, so that stdout stays for results."""

    def __init__(self) -> None:
        self._tty = sys.stderr.isatty()
        self._open_line = False
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._close_line()
        print(text, file=sys.stderr, flush=True)

    def count(self, *, what: str, done: int, total: int) -> None:
        """Show how far something is; off a terminal only every few seconds and at the end."""
        now = time.monotonic()
        if self._tty:
            sys.stderr.write(f"\r\033[K{what}: {done}/{total}")
            sys.stderr.flush()
            self._open_line = True
            if done == total:
                self._close_line()
        elif done == total or now - self._last > LOG_SECONDS:
            self._last = now
            print(f"{what}: {done}/{total}", file=sys.stderr, flush=True)

    def _close_line(self) -> None:
        if self._open_line:
            sys.stderr.write("\n")
            self._open_line = False
