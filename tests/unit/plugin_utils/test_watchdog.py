# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one thread that ends waits: in time, in order, and only those that are not over."""

from __future__ import annotations

import threading
import time

from ansible_collections.spokewright.fleet.plugins.plugin_utils import watchdog as w


def test_what_is_not_over_in_time_is_called_and_what_is_over_is_not() -> None:
    dog, called = w.Watchdog(), []
    with dog.watching(time.monotonic() + 0.05, lambda: called.append("over")):
        pass
    with dog.watching(time.monotonic() + 0.05, lambda: called.append("late")):
        time.sleep(0.3)
    assert called == ["late"]


def test_a_later_wait_that_ends_sooner_is_not_held_up() -> None:
    dog, called = w.Watchdog(), threading.Event()
    with dog.watching(time.monotonic() + 60, lambda: None), dog.watching(time.monotonic() + 0.05, called.set):
        assert called.wait(2)


def test_a_call_that_hangs_holds_up_no_other() -> None:
    dog, release, called = w.Watchdog(), threading.Event(), threading.Event()
    now = time.monotonic()

    def hang() -> None:
        release.wait(10)

    with dog.watching(now + 0.02, hang), dog.watching(now + 0.05, called.set):
        assert called.wait(2)
    release.set()


def test_waits_that_are_over_do_not_pile_up() -> None:
    dog = w.Watchdog()
    before = threading.active_count()
    for _number in range(5000):
        with dog.watching(time.monotonic() + 3600, lambda: None):
            pass
    assert len(dog._heap) <= 2 * w._SWEEP + 2
    assert threading.active_count() <= before + 1
