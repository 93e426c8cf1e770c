# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same work on many hosts at once, a result for each, and no host that holds up another."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WORKERS: Final = 32
# So many begin at once, then one more per success: an sshd that all sites are reached through drops logins beyond ten.
RAMP: Final = 8
# A wrong login key is wrong everywhere, and a host that refuses often enough locks the controller out. But
# where it works elsewhere, a few neighbours that refuse it must not cost the others their run.
STOP_AFTER_AUTH_FAILURES: Final = 5
REFUSED: Final = "auth-refused"
CLOSED: Final = "closed"
# Sites that are off must not keep the ramp low: one more begins with every tick, unless somebody hung up in it.
_TICK: Final = 0.25
# What a worker may take beyond its own deadlines before it is given up as stuck.
GRACE: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class SiteResult:
    """What happened with one site. No field ever holds a secret."""

    site: str
    ok: bool
    changed: bool = False
    reason: str = ""
    message: str = ""
    receipt: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a fan-out is."""

    done: int
    failed: int
    total: int
    last: SiteResult


def fan_out(
    *,
    sites: Sequence[str],
    work: Callable[[str], SiteResult],
    workers: int = WORKERS,
    limit: float = 120.0,
    on_progress: Callable[[Progress], None] | None = None,
    ramp: int = RAMP,
    stop_after_auth_failures: int = STOP_AFTER_AUTH_FAILURES,
) -> dict[str, SiteResult]:
    """Do `work` for every site, `workers` at a time; results in the order of `sites`.

    It begins with `ramp` sites at once, and neighbours in the list do not begin together: they often share what is
    wrong. After `stop_after_auth_failures` refused logins in a row (0: never), with no login between that worked, the
    sites that have not begun get the reason `not-tried`. Where more logins have worked before, it takes as many refused
    ones.

    An exception becomes that site's result. A site that is still busy `GRACE` seconds after `limit` is given up, and
    another thread takes its place. The threads are daemons: an interrupted run does not wait for a frozen link.
    """
    workers = max(1, workers)
    crew = _Crew(sites=_mixed(sites=list(dict.fromkeys(sites)), at_once=min(ramp, workers)), work=work)
    for _worker in range(min(ramp, workers, crew.total)):
        crew.hire()
    results: dict[str, SiteResult] = {}
    failed = 0
    worked = 0
    refused: list[str] = []
    grown = time.monotonic()
    while len(results) < crew.total:
        found = crew.next_results(overdue=limit + GRACE, known=results)
        for result in found:
            if result.reason == REFUSED:
                refused.append(result.site)
            elif result.ok or result.receipt:
                worked += 1
                refused.clear()
            if refused and len(refused) == max(stop_after_auth_failures, worked) and stop_after_auth_failures:
                found += [_not_tried(site=site, refused=refused, last=result) for site in crew.dismiss()]
            results[result.site] = result
            failed += not result.ok
            if on_progress is not None:
                on_progress(Progress(done=len(results), failed=failed, total=crew.total, last=result))
            if result.reason == CLOSED:
                grown = time.monotonic()
        if crew.hired < workers and (time.monotonic() - grown >= _TICK or any(result.ok for result in found)):
            crew.hire()
            grown = time.monotonic()
    return {site: results[site] for site in dict.fromkeys(sites)}


def not_begun(site: str, why: str) -> SiteResult:
    """What became of a site when the whole work could not begin, or broke off."""
    return SiteResult(site=site, ok=False, reason="not-begun", message=f"{site}: {why}")


def _mixed(*, sites: list[str], at_once: int) -> list[str]:
    """The sites in an order in which those that are worked on at the same time are no neighbours."""
    step = -(-len(sites) // max(1, at_once))
    return [site for start in range(step) for site in sites[start::step]]


class _Crew:
    """The threads, what they still have to do and what they brought back."""

    def __init__(self, *, sites: Sequence[str], work: Callable[[str], SiteResult]) -> None:
        self._work = work
        self._todo: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[SiteResult] = queue.SimpleQueue()
        self._started: dict[str, float] = {}
        for site in sites:
            self._todo.put(site)
        self.total = self._todo.qsize()
        self.hired = 0

    def hire(self) -> None:
        """Start one more thread, if there is anything left to do."""
        if self._todo.empty():
            return
        self.hired += 1
        threading.Thread(target=self._serve, name="spokewright-fan-out", daemon=True).start()

    def next_results(self, *, overdue: float, known: Mapping[str, SiteResult]) -> list[SiteResult]:
        """Wait for a result, or say who is stuck and hire in its place."""
        try:
            result = self._done.get(timeout=_TICK)
        except queue.Empty:
            late = time.monotonic() - overdue
            stuck = [_stuck(site) for site, when in list(self._started.items()) if site not in known and when < late]
            self.hired -= len(stuck)
            for _site in stuck:
                self.hire()
            return stuck
        # A site given up as stuck may still come back; its verdict stands.
        return [] if result.site in known else [result]

    def dismiss(self) -> list[str]:
        """Take back what nobody has begun."""
        left = []
        with contextlib.suppress(queue.Empty):
            while True:
                left.append(self._todo.get_nowait())
        return left

    def _serve(self) -> None:
        while True:
            try:
                site = self._todo.get_nowait()
            except queue.Empty:
                return
            self._started[site] = time.monotonic()
            self._done.put(_guarded(site=site, work=self._work))


def _guarded(*, site: str, work: Callable[[str], SiteResult]) -> SiteResult:
    began = time.monotonic()
    try:
        result = work(site)
    except FleetError as exc:
        result = SiteResult(site=site, ok=False, reason=str(getattr(exc, "reason", "error")), message=str(exc))
    except Exception as exc:  # noqa: BLE001 - one site's surprise must not cost the others their result
        result = SiteResult(
            site=site,
            ok=False,
            reason="internal",
            message=f"{site}: unexpected {type(exc).__name__} on the controller. Please report it.",
        )
    return replace(result, seconds=round(time.monotonic() - began, 3))


def _stuck(site: str) -> SiteResult:
    return SiteResult(
        site=site, ok=False, reason="timeout", message=f"{site}: did not end in time and was given up. Run again."
    )


def _not_tried(*, site: str, refused: Sequence[str], last: SiteResult) -> SiteResult:
    message = (
        f"{site}: not tried, because {len(refused)} logins in a row were refused ({', '.join(refused)}) and more "
        f"of them could lock us out. The last: {last.message} Correct that, or leave these sites out, and run again."
    )
    return SiteResult(site=site, ok=False, reason="not-tried", message=message)
