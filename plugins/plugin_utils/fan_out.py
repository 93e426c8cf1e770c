# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same work on many hosts at once, a result for each, and no host that holds up another."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WORKERS: Final = 32
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
) -> dict[str, SiteResult]:
    """Do `work` for every site, `workers` at a time; results in the order of `sites`.

    An exception becomes that site's result. A site that is still busy `GRACE` seconds after `limit` is given up, and
    another thread takes its place. The threads are daemons: an interrupted run does not wait for a frozen link.
    """
    crew = _Crew(sites=sites, work=work)
    for _worker in range(min(workers, crew.total)):
        crew.hire()
    results: dict[str, SiteResult] = {}
    failed = 0
    while len(results) < crew.total:
        for result in crew.next_results(overdue=limit + GRACE, known=results):
            results[result.site] = result
            failed += not result.ok
            if on_progress is not None:
                on_progress(Progress(done=len(results), failed=failed, total=crew.total, last=result))
    return {site: results[site] for site in dict.fromkeys(sites)}


class _Crew:
    """The threads, what they still have to do and what they brought back."""

    def __init__(self, *, sites: Sequence[str], work: Callable[[str], SiteResult]) -> None:
        self._work = work
        self._todo: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[SiteResult] = queue.SimpleQueue()
        self._started: dict[str, float] = {}
        for site in dict.fromkeys(sites):
            self._todo.put(site)
        self.total = self._todo.qsize()

    def hire(self) -> None:
        """Start one more thread."""
        threading.Thread(target=self._serve, name="spokewright-fan-out", daemon=True).start()

    def next_results(self, *, overdue: float, known: Mapping[str, SiteResult]) -> list[SiteResult]:
        """Wait for a result, or say who is stuck and hire in its place."""
        try:
            result = self._done.get(timeout=1.0)
        except queue.Empty:
            late = time.monotonic() - overdue
            stuck = [_stuck(site) for site, when in list(self._started.items()) if site not in known and when < late]
            for _site in stuck:
                self.hire()
            return stuck
        # A site given up as stuck may still come back; its verdict stands.
        return [] if result.site in known else [result]

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
