# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A soak: sites that are confirmed have to stay well for a while before anybody else has a turn."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

# Seconds between two looks, and how many in a row have to be bad before it is no use to wait longer.
EVERY: Final = 10.0
BAD_LOOKS: Final = 3


def soak(
    *,
    sites: Sequence[str],
    until: float,
    may_lose: int,
    look: Callable[[Sequence[str]], Mapping[str, str]],
    stop: Callable[[], bool] = lambda: False,
    on_look: Callable[[float, Collection[str]], None] | None = None,
    every: float = EVERY,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, str]:
    """Look until the time is over; returns the sites that are not well at the end, and why.

    Args:
        sites: ids of the sites that are to stay well.
        until: Unix time of the end.
        may_lose: so many sites may be unwell without an end before the time.
        look: says of which of the sites what is wrong.
        stop: asked before each look whether to end at once.
        on_look: told the seconds that are left, and who is unwell.
        every: seconds between two looks.
        clock: the time.
        sleep: waits.
    """
    bad = 0
    while True:
        unwell = dict(look(sites))
        bad = bad + 1 if len(unwell) > may_lose else 0
        left = until - clock()
        if on_look is not None:
            on_look(max(0.0, left), unwell)
        if left <= 0 or bad >= BAD_LOOKS or stop():
            return unwell
        sleep(min(every, left))
