# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the record of a rollout consists of: its sites, its waves, its halts, and what people said of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.typed_reader import KNOWN

# Its turn has not come; runs the new generation, and the gateways have seen it; was changed, and was lost or did not
# come back; could not be changed, and was not; was never reached.
WAITING, DONE, FAILED, ABORTED, PARKED = "waiting", "done", "failed", "aborted", "parked"
SITE_STATES: Final = (DONE, FAILED, ABORTED, PARKED, WAITING)
OPEN, FINISHED, HALTED, PAUSED, GIVEN_UP = "open", "finished", "halted", "paused", "aborted"
# A wave that is at work; one of which no site could be tried, and which the budget for that lets pass.
RUNNING, PASSED_OVER = "running", "passed over"
SOAKING: Final = "soaking"
WAVE_STATES: Final = (WAITING, RUNNING, SOAKING, DONE, HALTED, PASSED_OVER)
OUTCOMES: Final = (OPEN, FINISHED, HALTED, PAUSED, GIVEN_UP)
# What ansible-playbook ends with.
ALL_WELL, SITES_FAILED, HELD_UP, LOCKED = 0, 2, 3, 4


@dataclass(kw_only=True)
class SiteLine:
    """One site in a rollout. ``seconds``: from its activation until it was seen to work, so it was away for less.

    ``asked``: it is part of the run that is at work, or was the last. No run touches a site that it was not asked for.
    """

    group: str
    wave: str
    asked: bool = True
    state: str = field(default=WAITING, metadata={KNOWN: SITE_STATES})
    reason: str = ""
    message: str = ""
    activated: float | None = None
    seconds: float | None = None


@dataclass(kw_only=True)
class WaveLine:
    """One wave. ``settled``: sites of it that had nothing to change. ``proven``: when its last site was confirmed."""

    name: str
    group: str
    sites: list[str]
    soak_seconds: int = 0
    approval: bool = False
    success_percent: int = 0
    settled: int = 0
    state: str = field(default=WAITING, metadata={KNOWN: WAVE_STATES})
    began: float | None = None
    proven: float | None = None
    ended: float | None = None

    @property
    def soaks(self) -> bool:
        """Whether its sites have to stay well for a while yet."""
        return self.proven is not None and self.ended is None


@dataclass(kw_only=True)
class Halt:
    """Why a rollout went no further at some time."""

    at: float
    wave: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Approval:
    """Somebody has said that these sites of a wave may be changed. It is for nobody who comes to the wave later."""

    by: str
    sites: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Control:
    """What people have said of a rollout: a run reads it before every step, and never writes it."""

    paused_by: str = ""
    aborted_by: str = ""
    approved: dict[str, Approval] = field(default_factory=dict)
