# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fleet tools raise, and how a fault in an input file is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class FleetError(Exception):
    """Base of every error this project raises on purpose."""


class LockedError(FleetError):
    """Another operator or run is at work with what is asked for; nothing was changed, and waiting helps."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One fault in an input file: where it is, what is wrong, what to do next.

    `line` 0 means the file as a whole, `field` '' the line as a whole.
    """

    file: str
    line: int
    field: str
    value: str
    message: str
    remedy: str

    def __str__(self) -> str:
        """Return the one line an operator reads."""
        place = f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        field = f"{self.field}: " if self.field else ""
        line = f"{place}{field}{self.message} {self.remedy}".rstrip()
        # YAML and JSON can hold half of a character (a lone surrogate), which no terminal takes.
        return line.encode("utf-8", "backslashreplace").decode()


class InputErrors(FleetError):
    """Everything that is wrong with plan, registry and lock, at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(problems))
        count = len(self.problems)
        lines = [str(problem) for problem in self.problems]
        lines.append(f"{count} problem{'' if count == 1 else 's'} found, nothing was touched.")
        super().__init__("\n".join(lines))
