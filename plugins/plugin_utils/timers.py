# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Per-site client timers.

OpenVPN has no jitter in any version: 400 clients that lost the same gateway come back in step. Values derived from the
site's name spread them, and stay the same from run to run, so that nothing is rewritten without need.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

SPREAD: Final = 4


@dataclass(frozen=True, slots=True)
class Timers:
    """Seconds, as the client's options of the same names take them."""

    connect_retry: int
    connect_retry_max: int
    server_poll_timeout: int
    hand_window: int


def site_timers(*, site_id: str, spread: int = SPREAD) -> Timers:
    """Return the timers of a site: always the same for the same id, on every controller.

    `spread` is over how many seconds sites come back that all were refused at the same moment: as long as their
    instance works on them.
    """
    digest = hashlib.sha256(site_id.encode()).digest()
    return Timers(
        connect_retry=1,
        connect_retry_max=5 + digest[0] % spread,
        # A first packet that was lost is sent again after 2 s. What comes after that comes sooner from a new attempt.
        server_poll_timeout=3 + digest[1] % max(1, spread - 2),
        hand_window=15 + digest[2] % (spread + 2),
    )
