# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One daemon of a simulated storm: its receive buffer, its limiters and the instances it keeps.

It reads one packet at a time. As long as another one waits it does nothing else: timers run, and the tun device is
read, only when the socket has nothing (mudp.c, 2.1_beta1 and v2.6.14 alike). So a flooded daemon ends no half-open
instance and sends no ping.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_model import Setup

JUNK: Final = -1
_ATTEMPTS: Final = 1 << 24


class Daemon:
    """State of a daemon. Times are seconds of the simulation; OpenVPN's own clock shows whole ones."""

    def __init__(self, *, setup: Setup) -> None:
        self.costs = setup.costs
        self.legs = setup.generation.legs
        self.instance_leg = setup.generation.instance_leg
        self.last_leg = len(self.legs) - 1
        self.buffer, self.used = setup.receive_buffer, 0
        self.queue: deque[tuple[int, int, int, int]] = deque()
        self.busy = self.listening = self.frozen = False
        self.first_packet: float | None = None
        self.cpu = self.last_idle = 0.0
        # Half-open instances, oldest first, and what is known of each site's newest.
        self.undef: dict[int, float] = {}
        self.undef_peak = 0
        self.newest: dict[int, int] = {}
        self.reached: dict[int, int] = {}
        self.live: dict[int, int] = {}
        self.hand_window, self.max_clients = setup.hand_window, setup.max_clients
        self._frequency, self._initial = setup.connect_freq, setup.connect_freq_initial
        self._frequency_reset = self._frequency_count = 0
        self._initial_reset = self._initial_count = 0
        self.dropped = {"receive_buffer": 0, "connect_freq_initial": 0, "connect_freq": 0, "max_clients": 0}
        # Up clients in the order in which they came up, for those that fall out again.
        self.up: deque[tuple[float, int]] = deque()

    def take(self, *, site: int, attempt: int, leg: int, space: int, packets: int, now: float) -> bool:
        """Put a burst into the receive buffer; false when there is no room."""
        if self.first_packet is None:
            self.first_packet = now
        if self.used + space > self.buffer:
            self.dropped["receive_buffer"] += packets
            return False
        self.used += space
        self.queue.append((site, attempt, leg, space))
        return True

    def decide(self, *, site: int, attempt: int, leg: int, now: float) -> tuple[float, bool]:
        """Read a burst; return milliseconds of CPU and whether there is an answer."""
        if site == JUNK:
            return attempt * self.costs.junk, False
        if leg < self.instance_leg:
            return self.costs.reset, self._initial_allowed(int(now))
        if self.newest.get(site) == attempt:
            return self._go_on(site=site, attempt=attempt, leg=leg)
        if leg != self.instance_leg:
            return self.costs.packet, False
        if not self._create(site=site, attempt=attempt, now=now):
            return self.costs.reset, False
        return self._work(leg), True

    def expire(self, now: float) -> None:
        """End half-open instances whose time has come; the caller knows that timers run."""
        while self.undef:
            key = next(iter(self.undef))
            if self.undef[key] + self.hand_window > now:
                return
            del self.undef[key]

    def _go_on(self, *, site: int, attempt: int, leg: int) -> tuple[float, bool]:
        key = site * _ATTEMPTS + attempt
        if key not in self.undef and self.live.get(site) != attempt:
            # The instance has had its time.
            return self.costs.packet, False
        if leg <= self.reached[site]:
            return self.legs[leg].packets * self.costs.packet, True
        self.reached[site] = leg
        if leg == self.last_leg:
            del self.undef[key]
            self.live[site] = attempt
        return self._work(leg), True

    def _work(self, leg: int) -> float:
        one = self.legs[leg]
        return one.share * self.costs.handshake + one.packets * self.costs.packet

    def _create(self, *, site: int, attempt: int, now: float) -> bool:
        if not self._frequency_allowed(int(now)):
            return False
        if self._initial_count > 0:
            self._initial_count -= 1
        if len(self.undef) + len(self.live) >= self.max_clients:
            self.dropped["max_clients"] += 1
            return False
        self.undef[site * _ATTEMPTS + attempt] = now
        self.newest[site], self.reached[site] = attempt, self.instance_leg
        self.undef_peak = max(self.undef_peak, len(self.undef))
        return True

    def _frequency_allowed(self, now: int) -> bool:
        """frequency_limit_event_allowed, otime.c v2.6.14."""
        if self._frequency is None:
            return True
        most, period = self._frequency
        if now >= self._frequency_reset + period:
            self._frequency_reset, self._frequency_count = now, 0
        self._frequency_count += 1
        if self._frequency_count <= most:
            return True
        self.dropped["connect_freq"] += 1
        return False

    def _initial_allowed(self, now: int) -> bool:
        """reflect_filter_rate_limit_check, reflect_filter.c v2.6.14."""
        if self._initial is None:
            return True
        most, period = self._initial
        if now > self._initial_reset + period:
            self._initial_reset, self._initial_count = now, 0
        self._initial_count += 1
        if self._initial_count <= most:
            return True
        self.dropped["connect_freq_initial"] += 1
        return False
