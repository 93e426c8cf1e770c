# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A paced release: one held site after the other, each watched until the gateways see its tunnel up.

It has no memory of its own. Killed at any moment, the next run asks the sites who is still held and goes on with those.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.brake import Brake, brake_report
from ansible_collections.spokewright.fleet.plugins.plugin_utils.durations import duration
from ansible_collections.spokewright.fleet.plugins.plugin_utils.evidence import Evidence, collect, vip_addresses
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import SiteResult, fan_out, not_begun
from ansible_collections.spokewright.fleet.plugins.plugin_utils.gate import Passed, judge_sites
from ansible_collections.spokewright.fleet.plugins.plugin_utils.own_run import is_over
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pace import GO, STOP, Pace, Rules, Seen, per_minute

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import Progress
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet

_TICK: Final = 0.05
LOOK_SECONDS: Final = 1.0
SAY_SECONDS: Final = 3.0
# By then who is on has said whether it is held. Who is off is waited for by nobody.
ASK_SECONDS: Final = 3.0
STILL_HELD: Final = "still-held"
NOT_UP: Final = "not-up"
HELD_ANEW: Final = "held-anew"
# What is under way beside the sites that are released; no site has such a name.
LOOK: Final = " look"
ASK: Final = " ask"


@dataclass(frozen=True, kw_only=True)
class Released:
    """What came of it. ``why``: why it stopped before its end; ``rate``: sites a second as measured."""

    results: Mapping[str, SiteResult]
    why: str
    rate: float | None
    waited: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How far it is."""

    released: int
    up: int
    waiting: int
    why: str

    @property
    def said(self) -> str:
        """In a line."""
        text = f"{self.released} released, {self.up} of them up, {self.waiting} still held"
        return text + (f"; waits: {self.why}" if self.why else "")


class Release:
    """One paced release. ``look`` takes a look at the gateways; ``owner``: the run that it belongs to."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        rules: Rules,
        owner: int | None = None,
        look: Callable[..., Evidence] | None = None,
        brake: Callable[..., Any] = Brake,
    ) -> None:
        self._fleet, self._rules, self._owner, self._look = fleet, rules, owner, look or collect
        self._show, self._release = brake(fleet=fleet, verb="show"), brake(fleet=fleet, verb="release")
        self._address = {site.id: str(site.tunnel_address) for site in fleet.sites}
        # Each site with its place.
        self._order: dict[str, int] = {}
        self._queue: list[str] = []
        # The hold that each has named. Somebody may hold it anew before its turn, and that hold is not ours to end.
        self._held: dict[str, str] = {}
        self._results: dict[str, SiteResult] = {}
        # Released at this time of day and not yet up, or told so a moment ago.
        self._flying: dict[str, float] = {}
        self._busy: set[str] = set()
        self._done: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._seen: Seen | None = None
        self._looked = 0.0
        self._stopped = ""

    def carry_out(self, *, sites: Sequence[str], on_step: Callable[[Counts], None] | None = None) -> Released:
        """Release them in this order."""
        began = time.monotonic()
        self._order = {site: place for place, site in enumerate(sites)}
        self._start(ASK, self._ask)
        pace = Pace(rules=self._rules, now=began)
        said = began
        while not self._stopped or self._flying or ASK in self._busy:
            self._take()
            now = time.monotonic()
            if is_over(self._owner):
                self._stop("the run that asked for it has ended")
                break
            late = sum(time.time() - since > self._rules.late_seconds for since in self._flying.values())
            asking = ASK in self._busy
            if not asking and not self._queue and late == len(self._flying):
                break
            if now - self._looked >= LOOK_SECONDS and LOOK not in self._busy:
                self._looked = now
                self._start(LOOK, self._one_look)
            why = ""
            if self._queue and (not asking or now - began >= ASK_SECONDS):
                why = self._go_on(pace=pace, now=now, late=late)
            if on_step is not None and now - said >= SAY_SECONDS:
                said = now
                on_step(self._counts(pace=pace, why=why))
            time.sleep(min(_TICK, 0.2 / self._rules.rate))
        self._finish()
        return Released(
            results={site: self._results[site] for site in sites},
            why=self._stopped,
            rate=pace.measured,
            waited=round(pace.waited, 1),
            seconds=round(time.monotonic() - began, 1),
        )

    def _go_on(self, *, pace: Pace, now: float, late: int) -> str:
        """The next site, if it is its turn; why not, if anything keeps it back."""
        step = pace.step(now=now, in_flight=len(self._flying) - late, late=late, seen=self._seen)
        if step.do == STOP:
            self._stop(step.why)
        elif step.do == GO:
            pace.released(now=now)
            site = self._queue.pop(0)
            self._flying[site] = time.time()
            work = partial(self._release.one, seen=self._held[site])
            self._start(site, lambda: self._told(fan_out(sites=[site], work=work)[site]))
        return step.why

    def _stop(self, why: str) -> None:
        """Nobody else is released. Who is on its way is seen to the end."""
        self._stopped = why
        for site in self._queue:
            self._keep(site)
        self._queue = []

    def _keep(self, site: str) -> None:
        message = f"{site}: still held, the release stopped before its turn: {self._stopped}"
        self._results[site] = SiteResult(site=site, ok=False, reason=STILL_HELD, message=message)

    def _counts(self, *, pace: Pace, why: str) -> Counts:
        up = sum(one.ok and one.changed for one in self._results.values())
        return Counts(released=len(pace.begun), up=up, waiting=len(self._queue), why=why)

    # --- the sites

    def _ask(self) -> Callable[[], None]:
        """Who is held; each is in the queue as soon as it has said so."""

        def on_progress(step: Progress) -> None:
            self._done.put(partial(self._sort, step.last))

        self._show.carry_out(sites=list(self._order), on_progress=on_progress)
        return lambda: self._busy.discard(ASK)

    def _sort(self, one: SiteResult) -> None:
        if not one.ok or not one.receipt.get("held"):
            self._results[one.site] = dataclasses.replace(one, message=one.message if not one.ok else "not held")
        elif self._stopped:
            self._keep(one.site)
        else:
            self._held[one.site] = str(one.receipt.get("hold", ""))
            self._queue.append(one.site)
            self._queue.sort(key=self._order.__getitem__)

    def _told(self, result: SiteResult) -> Callable[[], None]:
        def take() -> None:
            self._busy.discard(result.site)
            if not result.ok or not result.changed:
                # It could not be told, or its time was over meanwhile.
                self._flying.pop(result.site)
                self._results[result.site] = result

        return take

    # --- the gateways

    def _one_look(self) -> Callable[[], None]:
        flying = dict(self._flying)
        evidence = self._look(fleet=self._fleet, echo=[self._address[site] for site in flying])
        passed = judge_sites(fleet=self._fleet, evidence=evidence, sites=list(flying), since=flying)
        vips = set(vip_addresses(self._fleet))
        owner = any(vips <= set(one.vips) for one in evidence.gateways)
        handshakes = sum(one.owner for one in evidence.handshakes)

        def take() -> None:
            self._busy.discard(LOOK)
            if any(not one.error for one in evidence.gateways):
                self._seen = Seen(at=time.monotonic(), owner=owner, handshakes=handshakes)
            for site, one in passed.items():
                self._up(site, one)

        return take

    def _up(self, site: str, one: Passed) -> None:
        if not one.ok or site not in self._flying or site in self._busy:
            return
        self._flying.pop(site)
        after = f" after {duration(one.seconds)}" if one.seconds is not None else ""
        message = f"released, and{after} {one.message}"
        self._results[site] = SiteResult(site=site, ok=True, changed=True, message=message, receipt={"held": 0})

    # --- threads

    def _start(self, name: str, work: Callable[[], Callable[[], None]]) -> None:
        """Do it beside the pace, which waits for nobody; what it found is taken by the one thread that keeps books."""
        self._busy.add(name)

        def serve() -> None:
            try:
                found = work()
            except Exception:  # noqa: BLE001 - a look that failed is a look that is missing, and the pace says so

                def found() -> None:
                    self._busy.discard(name)

            self._done.put(found)

        threading.Thread(target=serve, name="spokewright-release", daemon=True).start()

    def _take(self) -> None:
        while not self._done.empty():
            self._done.get_nowait()()

    def _finish(self) -> None:
        # What is under way is waited for: a site that was told is not to be counted as held.
        end = time.monotonic() + 10
        while self._busy - {LOOK, ASK} and time.monotonic() < end:
            time.sleep(_TICK)
            self._take()
        for site, since in self._flying.items():
            message = f"{site}: released, and not up as planned after {duration(time.time() - since)}"
            self._results[site] = SiteResult(
                site=site, ok=False, changed=True, reason=NOT_UP, message=message, receipt={"held": 0}
            )
        for site in self._order:
            self._results.setdefault(site, not_begun(site, "the release ended before it had answered"))
        self._release.note(self._results)


def foretell(*, fleet: Fleet, sites: Sequence[str], rate: float) -> dict[str, Any]:
    """What a release would do. It only asks."""
    results = Brake(fleet=fleet, verb="release", dry_run=True).carry_out(sites=sites)
    report = brake_report(verb="release", check=True, results=results, rate=per_minute(rate))
    turns = max(0, sum(one.changed for one in results.values()) - 1)
    report["said"] += f"; at {per_minute(rate)} that takes {duration(turns / rate)}"
    return report


def release_report(*, done: Released, rate: float) -> dict[str, Any]:
    """What a release did, with the rate that was asked for and the one that was kept."""
    measured = None if done.rate is None else round(done.rate * 60, 2)
    more = {"rate": per_minute(rate), "measured_per_minute": measured, "waited_seconds": done.waited}
    report = brake_report(
        verb="release", check=False, results=done.results, stopped=done.why, seconds=done.seconds, **more
    )
    kept = f", {per_minute(done.rate)} kept of {per_minute(rate)}" if done.rate else ""
    waited = f", {duration(done.waited)} of it waiting for the gateways" if done.waited else ""
    report["said"] += f", in {duration(done.seconds)}{waited}{kept}"
    report["next"] = _next(done)
    return report


def _next(done: Released) -> list[str]:
    """What an operator does about what is left, one sentence each."""
    reasons = [one.reason for one in done.results.values() if not one.ok]
    lines = []
    if done.why:
        lines.append(
            f"Stopped: {done.why}. Look at the gateways (`tools/fleet status`, `tools/fleet pair`); when they are "
            "well, run the same again. Who is still held stays so until its time is over."
        )
    if NOT_UP in reasons:
        lines.append(f"{reasons.count(NOT_UP)} released sites are not up: `tools/fleet status --oob` tells more.")
    if HELD_ANEW in reasons:
        lines.append(
            f"{reasons.count(HELD_ANEW)} sites were held anew while this went on, and stay held. Ask who did it "
            "(`tools/fleet status`) before you release them."
        )
    off = sum(one not in {NOT_UP, STILL_HELD, HELD_ANEW} for one in reasons)
    if off:
        lines.append(
            f"{off} sites could not be asked or released. Run the same again when they are back, or leave them: a site "
            "starts its client by itself when its time is over."
        )
    return lines
