# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send a daemon's sites away, paced, right before it is restarted, and let it end without lingering.

Runs on gateways: standard library only. docs/decisions/0028 has the measurements behind it.
"""

from __future__ import annotations

import time
import typing as t
from contextlib import suppress

from ansible_collections.spokewright.fleet.plugins.module_utils.management import UNDEF, Management, ManagementError

if t.TYPE_CHECKING:
    from pathlib import Path

Run = t.Callable[[t.Sequence[str]], "tuple[int, str, str]"]
Sleep = t.Callable[[float], None]

TABLE = "inet spokewright_restart"
FIRST_PACKET = "0x50"
"""What a site's first packet begins with: P_CONTROL_HARD_RESET_CLIENT_V3, the only one that force-cookie lets in."""
HOLD_SPARE = 15.0
"""Seconds the packet filter holds a port longer than it takes to send all sites away. It ends by itself."""
LAST_WORDS = 0.3
"""Seconds for what was said to the sites to leave the daemon."""


def send_away(*, socket: Path, port: int, per_second: float, run: Run, sleep: Sleep = time.sleep) -> int:
    """Tell each live session to start anew, then the daemon to end. Returns how many were told.

    Until ``release`` (or a time that the packet filter knows) no new handshake reaches the port: a site that was told
    would otherwise be back on the daemon that is about to go. A daemon without sessions is told to end at once, and one
    that does not answer is left to systemd.
    """
    try:
        with Management(str(socket), 2.0) as daemon:
            sessions = [one.client_id for one in daemon.status().clients if one.common_name not in {"", UNDEF}]
            if sessions:
                _hold(port=port, seconds=len(sessions) / per_second + HOLD_SPARE, run=run)
            for session in sessions:
                # One that is gone by now needs no word.
                with suppress(ManagementError):
                    daemon.client_kill(session)
                sleep(1 / per_second)
            # It lingers for two seconds after this, answering nobody; the signal of systemd's restart ends that.
            daemon.command("signal SIGTERM")
    except (ManagementError, ValueError):
        return 0
    if sessions:
        sleep(LAST_WORDS)
    return len(sessions)


def _hold(*, port: int, seconds: float, run: Run) -> None:
    # Best effort: without it some sites come twice.
    commands = (
        "add table %s" % TABLE,
        "delete table %s" % TABLE,
        "add table %s" % TABLE,
        "add set %s held { type inet_service; flags timeout; }" % TABLE,
        "add element %s held { %d timeout %ds }" % (TABLE, port, round(seconds)),
        "add chain %s input { type filter hook input priority -10; }" % TABLE,
        "add rule %s input udp dport @held @th,64,8 %s drop" % (TABLE, FIRST_PACKET),
    )
    run(["nft", "; ".join(commands)])


def release(*, run: Run) -> None:
    """Let the sites in again."""
    run(["nft", "add table %s; delete table %s" % (TABLE, TABLE)])
