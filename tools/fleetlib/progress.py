# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a long command says how far it is: one line that is written over on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
import typing as t

EVERY_SECONDS: t.Final = 3.0
ON_A_TERMINAL: t.Final = 0.1


class Progress:
    """Counts on standard error, so that standard output stays what was asked for."""

    def __init__(self, *, what: str, stream: t.TextIO | None = None) -> None:
        self._what = what
        self._stream = stream or sys.stderr
        self._over = self._stream.isatty()
        self._every = ON_A_TERMINAL if self._over else EVERY_SECONDS
        self._next = time.monotonic() + self._every
        self._width = 0

    def __call__(self, done: int, total: int, more: str = "") -> None:
        """Say it when it is time to; the last step always on a terminal."""
        now = time.monotonic()
        if now < self._next and not (self._over and done == total):
            return
        self._next = now + self._every
        text = f"{self._what}: {done} of {total}{more}"
        if self._over:
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def note(self, text: str) -> None:
        """A line of its own, at once."""
        self.end()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def end(self) -> None:
        """Give the line back to the terminal."""
        if self._over and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
        self._width = 0
