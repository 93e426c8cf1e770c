# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is kept out by another run is told apart from who met a fault: that run is waited for, not mended. Pure."""

from __future__ import annotations

from typing import Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError, LockedError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_lines import LOCKED

REFUSED: Final = "refused"


def refused(rollout: str = "") -> dict[str, Any]:
    """The event of a run that was kept out, by its rollout if it has one."""
    return {"event": REFUSED, "rollout": rollout, "exit_code": LOCKED}


def refusal(exc: FleetError) -> dict[str, Any]:
    """What a failed task's result says beside its message, for the exit code of the run; of a fault, nothing."""
    return {"event": refused()} if isinstance(exc, LockedError) else {}
