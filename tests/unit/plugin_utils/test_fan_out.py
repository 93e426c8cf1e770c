# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fan-out: a result for everybody, in order, and nobody waits for a stuck one."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils import fan_out as f
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

if TYPE_CHECKING:
    import pytest


def test_results_come_in_the_order_of_the_sites_and_once_each() -> None:
    results = f.fan_out(sites=["c", "a", "b", "a"], work=lambda site: f.SiteResult(site=site, ok=True))
    assert list(results) == ["c", "a", "b"]


def test_nothing_to_do_is_fine() -> None:
    assert f.fan_out(sites=[], work=lambda site: f.SiteResult(site=site, ok=True)) == {}


def test_an_error_is_that_sites_result_and_a_surprise_shows_no_detail() -> None:
    def work(site: str) -> f.SiteResult:
        if site == "known":
            raise FleetError("known: out of paper")
        if site == "surprise":
            raise ValueError("SECRET")
        return f.SiteResult(site=site, ok=True)

    results = f.fan_out(sites=["known", "surprise", "well"], work=work)
    assert (results["known"].reason, results["known"].message) == ("error", "known: out of paper")
    assert results["surprise"].reason == "internal"
    assert "SECRET" not in repr(results)
    assert results["well"].ok


def test_the_pool_is_bounded() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work(site: str) -> f.SiteResult:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return f.SiteResult(site=site, ok=True)

    f.fan_out(sites=[str(n) for n in range(40)], work=work, workers=5)
    assert most <= 5


def test_a_stuck_site_is_given_up_and_its_thread_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f, "GRACE", 0.5)
    release = threading.Event()

    def work(site: str) -> f.SiteResult:
        if site == "stuck":
            release.wait(30)
        return f.SiteResult(site=site, ok=True)

    began = time.monotonic()
    results = f.fan_out(sites=["stuck", "a", "b"], work=work, workers=1, limit=0.5)
    release.set()
    assert time.monotonic() - began < 10
    assert (results["stuck"].ok, results["stuck"].reason) == (False, "timeout")
    assert results["a"].ok
    assert results["b"].ok


def test_progress_counts_to_the_end() -> None:
    seen: list[f.Progress] = []
    f.fan_out(sites=["a", "b", "c"], work=lambda site: f.SiteResult(site=site, ok=site != "b"), on_progress=seen.append)
    assert [one.done for one in seen] == [1, 2, 3]
    assert seen[-1].failed == 1
