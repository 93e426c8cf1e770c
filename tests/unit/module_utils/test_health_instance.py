# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which instance is asked, which is taken for frozen and ended; never one that lives, or that is just starting."""

from __future__ import annotations

from ansible_collections.spokewright.fleet.plugins.module_utils.health_instance import (
    ASK_SECONDS,
    PROVEN,
    SPIN_SECONDS,
    Answer,
    Instance,
    Look,
    Step,
    step,
)
from ansible_collections.spokewright.fleet.plugins.module_utils.health_rules import MISSES

INTERVAL = 0.3
PAUSE = 60.0


class World:
    """An instance seen at the interval."""

    def __init__(self) -> None:
        self.state, self.now, self.wakes, self.pid = Instance(), 0.0, 0, 100
        self.done: list[Step] = []

    def see(
        self,
        *,
        times: int = 1,
        answer: Answer = "free",
        wakes: int = 1,
        running: bool = True,
        late: bool = False,
        busy: bool = False,
    ) -> Step:
        for _ in range(times):
            self.now += INTERVAL
            self.wakes += wakes
            seen = {"pid": self.pid, "wakes": self.wakes} if running else {"pid": None, "wakes": None}
            look = Look(answer=answer, busy=busy, **seen)
            done = step(before=self.state, look=look, now=self.now, late=late, cure_pause=PAUSE)
            self.state = done.state
            self.done.append(done)
        return self.done[-1]

    def living(self) -> World:
        self.see(answer="free", running=False)
        self.see(answer="answered")
        self.see(times=5)
        return self

    @property
    def cures(self) -> int:
        return sum(done.cure for done in self.done)


def test_a_daemon_that_is_not_known_yet_is_asked() -> None:
    assert World().see(running=False).ask


def test_one_that_wakes_up_is_left_in_peace_for_a_minute() -> None:
    world = World().living()
    before = len(world.done)
    world.see(times=int(ASK_SECONDS / INTERVAL) - 10)
    assert not any(done.ask for done in world.done[before:])

    world.see(times=10)
    assert world.done[-1].ask
    assert all(done.good for done in world.done[before:])


def test_one_that_stands_still_is_asked_at_once_and_ended_at_the_third_miss() -> None:
    world = World().living()
    first = world.see(wakes=0)
    assert (first.ask, first.cure, first.good) == (True, False, False)
    world.see(answer="waiting", wakes=0, times=MISSES - 2)
    assert world.cures == 0

    last = world.see(answer="waiting", wakes=0)
    assert last.cure
    assert last.detail == "pid 100 neither moves nor answers"


def test_one_whose_socket_somebody_holds_lives_and_the_holder_is_told_after_two_minutes() -> None:
    world = World().living()
    done = world.see(answer="waiting", times=int(3 * ASK_SECONDS / INTERVAL))

    assert (done.good, done.ask, world.cures) == (True, False, 0)
    assert "somebody has held its management socket" in done.detail


def test_a_daemon_too_busy_to_sleep_that_greets_lives() -> None:
    world = World().living()
    for _ in range(20):
        world.see(wakes=0)
        assert world.see(answer="answered", wakes=0).good
    assert world.cures == 0


def test_one_that_is_kept_from_running_is_left_alone_and_a_frozen_one_after_it_is_not() -> None:
    world = World().living()
    done = world.see(answer="waiting", wakes=0, busy=True, times=int(SPIN_SECONDS / INTERVAL) - 1)
    assert (done.good, world.cures) == (None, 0)

    world.see(answer="waiting", wakes=0, times=MISSES)
    assert world.cures == 1


def test_one_that_is_busy_now_and_then_is_not_taken_for_an_endless_loop() -> None:
    world = World().living()
    for _ in range(10):
        world.see(answer="waiting", wakes=0, busy=True, times=int(SPIN_SECONDS / INTERVAL) - 1)
        assert world.see(busy=True).good
    assert world.cures == 0


def test_an_endless_loop_is_ended() -> None:
    world = World().living()
    done = world.see(answer="waiting", wakes=0, busy=True, times=int(SPIN_SECONDS / INTERVAL) + MISSES + 1)
    assert world.cures == 1
    assert done.detail == "pid 100 has been busy for 10 s and answers nobody"


def test_it_is_ended_once_in_a_minute_and_again_after_it() -> None:
    world = World().living()
    world.see(answer="waiting", wakes=0, times=MISSES)
    assert world.cures == 1
    # It came back, and froze again at once.
    world.pid = 101
    world.see(answer="answered")
    world.see(answer="waiting", wakes=0, times=20)
    assert world.cures == 1

    world.see(answer="waiting", wakes=0, times=int(PAUSE / INTERVAL))
    assert world.cures == 2


def test_what_systemd_is_just_starting_is_left_alone() -> None:
    world = World().living()
    # Killed by somebody: nobody listens, then a new process that has not yet said anything.
    assert not world.see(answer="refused", running=False, times=4).good
    world.pid = 101
    world.see(answer="waiting", wakes=0, times=50)

    assert world.cures == 0


def test_one_that_froze_in_its_first_second_is_left_to_systemd_too() -> None:
    world = World()
    world.see(answer="waiting", times=PROVEN - 2)
    world.see(answer="waiting", wakes=0, times=50)

    assert world.cures == 0


def test_a_look_that_comes_late_blames_nobody() -> None:
    world = World().living()
    done = world.see(answer="waiting", wakes=0, times=50, late=True)

    assert (done.good, world.cures) == (None, 0)
