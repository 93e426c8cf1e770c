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
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[SiteResult] = queue.SimpleQueue()
    started: dict[str, float] = {}
    for site in dict.fromkeys(sites):
        todo.put(site)
    total = todo.qsize()

    def serve() -> None:
        while True:
            try:
                site = todo.get_nowait()
            except queue.Empty:
                return
            started[site] = time.monotonic()
            done.put(_guarded(site=site, work=work))

    def hire() -> None:
        threading.Thread(target=serve, name="spokewright-fan-out", daemon=True).start()

    for _ in range(min(workers, total)):
        hire()
    results: dict[str, SiteResult] = {}
    failed = 0
    while len(results) < total:
        try:
            arrived = [done.get(timeout=1.0)]
        except queue.Empty:
            late = time.monotonic() - limit - GRACE
            arrived = [_stuck(site) for site, when in list(started.items()) if site not in results and when < late]
            for _ in arrived:
                hire()
        for result in arrived:
            if result.site in results:
                continue
            results[result.site] = result
            failed += not result.ok
            if on_progress is not None:
                on_progress(Progress(done=len(results), failed=failed, total=total, last=result))
    return {site: results[site] for site in dict.fromkeys(sites)}


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
