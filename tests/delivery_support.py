# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of keys and delivery share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGqO4U1iFqOB4lRbM0uqJMtbWABlJWrfDicYAYgfJUL1"


def site_of(
    *,
    site: str = "site-0001",
    remotes: Sequence[tuple[str, str, int]] = (("frame_relay", "198.19.0.1", 1194), ("internet", "198.19.128.1", 1194)),
) -> Any:
    """A site with just what a bundle reads of it."""
    return SimpleNamespace(
        id=site,
        timers=SimpleNamespace(connect_retry=1, connect_retry_max=6, server_poll_timeout=4, hand_window=16),
        remotes=tuple(SimpleNamespace(transport=t, address=a, port=p) for t, a, p in remotes),
    )
