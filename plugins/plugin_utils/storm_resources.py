# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What simulated packets and work wait for: a link, and cores."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable


# Cores; a machine that is full all the time lets everybody have a little all the same.
LEAST_LEFT: Final = 0.1


class Link:
    """One direction of a network: a rate and a queue that drops what does not fit. A rate of 0 is no limit."""

    def __init__(self, *, bits: float, queue: int) -> None:
        self.bits, self.queue = bits, queue
        self.free = self.used = 0.0
        self.dropped = 0

    def leaves(self, *, octets: int, packets: int, now: float) -> float | None:
        """When the last of these packets is through; None when they were dropped."""
        if not self.bits:
            return now
        begins = max(self.free, now)
        if (begins - now) * self.bits / 8 > self.queue:
            self.dropped += packets
            return None
        takes = octets * packets * 8 / self.bits
        self.used += takes
        self.free = begins + takes
        return self.free


class Cores:
    """Cores that work is done on in the order in which it came. With a core for everybody nobody waits.

    A gateway comes first, as in the lab. What others use of the cores all the time (`background`, in cores) makes
    everybody else's work as much longer.
    """

    def __init__(
        self,
        *,
        cores: int,
        workers: int,
        background: float,
        later: Callable[[float, Callable[..., None], Any, Any, Any], None],
    ) -> None:
        self.free = cores
        self.stretch = cores / max(cores - background, LEAST_LEFT)
        self.everybody = workers <= cores
        self.later = later
        self.waiting: deque[tuple[float, Callable[..., None], Any, Any, Any]] = deque()

    def do(
        self, *, now: float, seconds: float, then: Callable[..., None], a: Any, b: Any, c: Any, first: bool = False
    ) -> None:
        """Work, now or when a core is free, and say so afterwards. `first`: before everybody that waits."""
        if not first:
            seconds *= self.stretch
        if self.everybody:
            self.later(now + seconds, then, a, b, c)
        elif self.free:
            self.free -= 1
            self.later(now + seconds, self._done, now + seconds, then, (a, b, c))
        else:
            (self.waiting.appendleft if first else self.waiting.append)((seconds, then, a, b, c))

    def _done(self, now: float, then: Callable[..., None], what: tuple[Any, Any, Any]) -> None:
        if self.waiting:
            seconds, following, a, b, c = self.waiting.popleft()
            self.later(now + seconds, self._done, now + seconds, following, (a, b, c))
        else:
            self.free += 1
        then(*what)
