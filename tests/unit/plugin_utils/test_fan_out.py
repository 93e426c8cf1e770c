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


class Counter:
    """Work that remembers how many were at it at once."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now, self.most, self.begun = seconds, 0, 0, 0
        self.lock = threading.Lock()

    def work(self, site: str, *, ok: bool = True, reason: str = "") -> f.SiteResult:
        with self.lock:
            self.begun += 1
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.seconds)
        with self.lock:
            self.now -= 1
        return f.SiteResult(site=site, ok=ok, reason=reason, message=f"{site}: said {reason}.")


def test_it_begins_with_few_and_grows_with_success() -> None:
    counter = Counter(0.05)
    began: list[int] = []

    def work(site: str) -> f.SiteResult:
        began.append(counter.now)
        return counter.work(site)

    f.fan_out(sites=[str(n) for n in range(200)], work=work, workers=24, ramp=4)
    assert max(began[:4]) < 4
    assert counter.most == 24


def test_failures_do_not_raise_the_ramp() -> None:
    counter = Counter(0.01)
    f.fan_out(
        sites=[str(n) for n in range(60)],
        work=lambda site: counter.work(site, ok=False, reason="closed"),
        workers=30,
        ramp=3,
    )
    assert counter.most == 3


def test_sites_that_answer_nothing_do_not_keep_the_ramp_low() -> None:
    release = threading.Event()

    def work(site: str) -> f.SiteResult:
        if site.startswith("mute"):
            release.wait(30)
        return f.SiteResult(site=site, ok=True)

    arrived: list[str] = []
    began = time.monotonic()

    def note(progress: f.Progress) -> None:
        arrived.append(progress.last.site)
        if len(arrived) == 20:
            release.set()

    f.fan_out(
        sites=[*(f"mute-{n}" for n in range(4)), *(f"good-{n}" for n in range(20))],
        work=work,
        workers=10,
        ramp=4,
        on_progress=note,
    )
    assert all(site.startswith("good") for site in arrived[:20])
    assert time.monotonic() - began < 10


def test_refused_logins_in_a_row_stop_the_rest() -> None:
    counter = Counter(0.05)
    results = f.fan_out(
        sites=[f"s{n:02}" for n in range(40)],
        work=lambda site: counter.work(site, ok=False, reason="auth-refused"),
        workers=4,
    )
    # Five and those at work meanwhile; a busy machine hears of them late.
    assert counter.begun <= 5 + 4 + 6
    rest = [one for one in results.values() if one.reason == "not-tried"]
    assert len(rest) == 40 - counter.begun
    assert not any(one.ok for one in results.values())
    message = results["s39"].message
    assert message.startswith("s39: not tried, because 5 logins in a row were refused (s")
    assert "said auth-refused. Correct that, or leave these sites out, and run again." in message


def test_a_login_that_worked_between_lets_the_run_go_on() -> None:
    def work(site: str) -> f.SiteResult:
        number = int(site)
        if number % 5 == 4:
            # The login worked, the work did not.
            return f.SiteResult(site=site, ok=False, reason="no-space", receipt={"ok": False})
        return f.SiteResult(site=site, ok=False, reason="auth-refused")

    results = f.fan_out(sites=[str(n) for n in range(40)], work=work, workers=1)
    assert "not-tried" not in {one.reason for one in results.values()}


def test_a_group_that_refuses_us_does_not_cost_the_others_their_run() -> None:
    """Neighbours in the registry, which the last change of the login key has not reached."""
    for bad in (range(12), range(100, 112), range(188, 200)):
        refusing = {str(number) for number in bad}

        def work(site: str, refusing: set[str] = refusing) -> f.SiteResult:
            if site in refusing:
                time.sleep(0.02)
                return f.SiteResult(site=site, ok=False, reason="auth-refused")
            time.sleep(0.06)
            return f.SiteResult(site=site, ok=True)

        results = f.fan_out(sites=[str(n) for n in range(200)], work=work)
        assert {one.site for one in results.values() if not one.ok} == refusing
        assert "not-tried" not in {one.reason for one in results.values()}


def test_refused_logins_stop_the_rest_also_after_some_that_worked() -> None:
    counter = Counter(0.01)
    results = f.fan_out(
        sites=[str(n) for n in range(100)],
        work=lambda site: counter.work(site, ok=int(site) < 10, reason="" if int(site) < 10 else "auth-refused"),
        workers=1,
    )
    reasons = [one.reason for one in results.values()]
    assert reasons.count("") == 10
    assert 10 <= reasons.count("auth-refused") < 40
    assert reasons.count("not-tried") == 90 - reasons.count("auth-refused")


def test_sites_that_fail_one_after_the_other_do_not_keep_the_ramp_low() -> None:
    """Of a fleet without power one wait ends every moment: there is never a quiet tick."""
    counter = Counter(1.0)
    results = f.fan_out(
        sites=[str(n) for n in range(96)],
        work=lambda site: counter.work(site, ok=False, reason="unreachable"),
        workers=32,
    )
    assert len(results) == 96
    assert counter.most > 16


def test_it_can_be_told_never_to_stop() -> None:
    results = f.fan_out(
        sites=[str(n) for n in range(20)],
        work=lambda site: f.SiteResult(site=site, ok=False, reason="auth-refused"),
        stop_after_auth_failures=0,
    )
    assert {one.reason for one in results.values()} == {"auth-refused"}
