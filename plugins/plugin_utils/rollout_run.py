# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a run of a rollout: each reads the record, applies its rules to what was seen, and keeps it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import shown_path
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout import Rollout
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_files import PLAN, RolloutFiles, named
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_lines import (
    DONE,
    GIVEN_UP,
    HALTED,
    OPEN,
    PAUSED,
    SOAKING,
    WAITING,
    Halt,
    WaveLine,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_lock import Process, who
from ansible_collections.spokewright.fleet.plugins.plugin_utils.wave_plan import (
    WavePlan,
    read_wave_plan,
    sites_by_group,
    usual,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.waves import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_files import Claim

    Answers = Mapping[str, Mapping[str, Any]]
    # Told the rollout, what happens to it, and why.
    Book = Callable[[str, str, str], object]


# With ids of up to 63 characters (RFC 1123) and their separators that stays below what the ledger keeps of a reason.
SITES_A_LINE: Final = 14


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What the sites answered when the new generation was put beside what they run."""

    sites: Sequence[str]
    answers: Answers
    unsettled: Sequence[str]

    @property
    def settled(self) -> set[str]:
        """Those that have nothing to change."""
        return {site for site, one in self.answers.items() if one["ok"]} - set(self.unsettled)

    @property
    def away(self) -> bool:
        """Whether anybody could not be served."""
        return any(not one["ok"] for one in self.answers.values())


def plan_of(*, fleet: Fleet, files: RolloutFiles, rollout: str, what: str = "", reason: str = "") -> WavePlan:
    """The plan of a rollout as it was written, else what is usual for what it brings."""
    text = files.plan_text(rollout)
    if text is not None:
        return read_wave_plan(text=text, file=shown_path(files.path(rollout) / PLAN), fleet=fleet)
    record = files.read(rollout)
    if record is None and not what:
        raise files.unknown(rollout)
    kind = record.what if record is not None else what
    why = record.reason if record is not None else reason
    return usual(what="keys" if kind == "keys" else "configuration", reason=why, groups=fleet.plan.groups)


class RolloutRun:
    """One run, of which each step may be a process of its own.

    Every change is booked before it is kept: `book` writes a line of the ledger.
    """

    def __init__(self, *, fleet: Fleet, run: int, book: Book, now: Callable[[], float] = time.time) -> None:
        self.fleet = fleet
        self.files = RolloutFiles(fleet)
        self.process = Process.find(run)
        self.book = book
        self.now = now

    def plan(self, rollout: str, *, what: str = "", reason: str = "") -> WavePlan:
        """Its plan as it was written, else what is usual."""
        return plan_of(fleet=self.fleet, files=self.files, rollout=rollout, what=what, reason=reason)

    def claim(self, *, what: str, reason: str, asked: str = "", dry: bool = False) -> str:
        """Be the one at work, before anything is touched."""
        return self.files.take(what=what, reason=reason, process=self.process, asked=asked, dry=dry)

    def mine(self) -> Claim | None:
        """What this run has claimed."""
        claim = self.files.claim()
        return claim if claim is not None and claim.process == self.process else None

    def release(self) -> None:
        """This run is at work no more."""
        self.files.release(process=self.process)

    def open(
        self, rollout: str, *, stage: Stage, what: str, reason: str, beside: bool = False, dry: bool = False
    ) -> Rollout | None:
        """Enter what every site has answered; nothing when there is nothing to roll out. Dry, nothing is kept."""
        plan = self.plan(rollout, what=what, reason=reason)
        # Cut with all sites of the plan, so that a run with a limit has the waves that a run without one has.
        groups = sites_by_group(plan=plan, fleet=self.fleet)
        asked = {site for sites in groups.values() for site in sites} & set(stage.sites)
        record = self.files.read(rollout)
        begun = record is not None
        if record is None:
            record = Rollout(
                rollout=rollout,
                fleet=self.fleet.plan.name,
                what=plan.what,
                reason=plan.reason,
                by=who(),
                began=self.now(),
                failed=0,
                unreachable=0,
            )
        record.take_stage(
            waves=cut(rules=plan.rules, groups=groups),
            asked=asked,
            found=stage.answers,
            settled=stage.settled,
            now=self.now(),
        )
        if not record.has_work and not begun and not (plan.what == "keys" and stage.away):
            return None
        # A person may have changed the plan since: a budget is what it is now, of all the sites there are.
        total = len({*record.sites, *asked})
        record.failed, record.unreachable = plan.failed.of(total), plan.unreachable.of(total)
        record.outcome, record.ended = OPEN, None
        if not dry:
            waves = ", ".join(self.waves(record)) or "none"
            self.book(rollout, "rollout-opened", f"{named(record.what, record.reason)}; waves to go: {waves}")
            self.files.write(record)
            if not beside:
                self.files.make_current(rollout)
        return record

    def record(self, rollout: str) -> Rollout:
        """The record of a rollout that was opened."""
        record = self.files.read(rollout)
        if record is None:
            raise FleetError(f"rollout {rollout} was not opened. Run the whole playbook.")
        return record

    def waves(self, record: Rollout) -> list[str]:
        """The waves that have anything to do or to wait for, in order."""
        return [one.name for one in record.waves if record.turn(one) or one.soaks]

    def begin(self, record: Rollout, wave: str, *, pair: Callable[[], Sequence[str]]) -> list[str]:
        """The sites whose turn it is; none when the rollout may not go on, and then the record says why.

        `pair` says what is wrong with the gateways; it is asked only when there is a site to change.
        """
        line = _wave(record, wave)
        if record.outcome != OPEN:
            return []
        turn = record.turn(line)
        halt, outcome = self._keeps_back(record, line)
        if halt is None and turn and (problems := pair()):
            halt = Halt(at=self.now(), wave=wave, why=f"the pair is not healthy: {'; '.join(problems)}")
        if halt is not None:
            self._halt(record, halt, outcome=outcome)
            turn = []
        elif turn:
            for line_of in named_sites(wave, turn):
                self.book(record.rollout, "rollout-wave-began", line_of)
            record.begin(line, now=self.now())
        self.files.write(record)
        return turn

    def would_stop(self, record: Rollout) -> str:
        """Why no wave would begin now; nothing when the first that has anything to do may."""
        for wave in self.waves(record)[:1]:
            halt, _outcome = self._keeps_back(record, _wave(record, wave))
            if halt is not None:
                return f"before wave {wave}: {halt.why}"
        return ""

    def _keeps_back(self, record: Rollout, line: WaveLine) -> tuple[Halt | None, str]:
        """What people or the record have against a wave, and what the rollout is then."""
        control, now = self.files.control(record.rollout), self.now()
        if control.aborted_by:
            return Halt(at=now, wave=line.name, why=f"aborted by {control.aborted_by}"), GIVEN_UP
        if control.paused_by:
            why = f"paused by {control.paused_by}; go on with: tools/fleet rollout resume {record.rollout}"
            return Halt(at=now, wave=line.name, why=why), PAUSED
        return record.keeps_back(line, control=control, now=now), HALTED

    def enter(
        self,
        record: Rollout,
        wave: str,
        *,
        activate: Answers,
        gate: Answers,
        confirm: Answers,
        activated: Mapping[str, float],
    ) -> None:
        """Enter what became of the sites of a wave."""
        record.take_wave(
            _wave(record, wave),
            activate=activate,
            gate=gate,
            confirm=confirm,
            activated=activated,
            now=self.now(),
        )
        self.files.write(record)

    def soaks(self, record: Rollout, wave: str) -> tuple[list[str], float]:
        """The sites of a wave that have to stay well, and until when."""
        line = _wave(record, wave)
        known, now = {site.id for site in self.fleet.sites}, self.now()
        well = [site for site in line.sites if site in known and record.is_done(site)]
        # A clock that was put back meanwhile makes no soak longer.
        until = min(line.proven or 0.0, now) + line.soak_seconds
        if not well or not line.soaks or until <= now:
            return [], 0.0
        line.state = SOAKING
        self.files.write(record)
        return well, until

    def end(self, record: Rollout, wave: str, *, lost: Mapping[str, str]) -> str:
        """The wave is over; why the rollout goes no further, or nothing."""
        line = _wave(record, wave)
        if record.outcome != OPEN:
            return record.halts[-1].why
        record.take_soak(line, lost=lost)
        why = record.end(line, now=self.now())
        states = Counter(record.sites[site].state for site in line.sites if site in record.sites)
        self.book(record.rollout, "rollout-wave-ended", f"wave {wave}: {_counted(states)}")
        if why:
            self._halt(record, Halt(at=self.now(), wave=wave, why=why), outcome=HALTED)
        self.files.write(record)
        return why

    def close(self, record: Rollout) -> None:
        """The run is over."""
        record.close(now=self.now())
        counts = {state: number for state, number in record.summary.items() if state != "total"}
        self.book(record.rollout, "rollout-closed", f"{record.outcome}: {_counted(counts)}")
        self.files.write(record)
        self.release()

    def _halt(self, record: Rollout, halt: Halt, *, outcome: str) -> None:
        self.book(record.rollout, f"rollout-{outcome}", halt.why)
        record.halt(halt, outcome=outcome)


def named_sites(wave: str, sites: Sequence[str]) -> Iterator[str]:
    """The sites of a wave as the ledger names them: in as many lines as it takes, because a line's reason is cut."""
    for first in range(0, len(sites), SITES_A_LINE):
        yield f"wave {wave}: {', '.join(sites[first : first + SITES_A_LINE])}"


def book_in(store: KeyStore) -> Book:
    """Where the lines about rollouts go: into the ledger, each under the name of its rollout."""

    def book(rollout: str, event: str, why: str) -> None:
        # The first rollout is planned, and may be approved, before there is any key.
        if store.path.exists():
            store.note(event, reason=why, operation=f"rollout {rollout}")

    return book


def verdicts(record: Rollout, *, since: float) -> dict[str, dict[str, Any]]:
    """Each site of a rollout as the play has to show it: well or failed, and changed in this run or not."""
    halted = f"keeps what it runs: {record.why}" if record.why else ""
    found = {}
    for site, one in record.sites.items():
        waits = one.state == WAITING
        found[site] = {
            "ok": one.state in {DONE, WAITING},
            "changed": one.activated is not None and one.activated >= since,
            "reason": one.reason,
            "message": halted if waits else one.message,
        }
    return found


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in counts.items() if number) or "no site"


def _wave(record: Rollout, name: str) -> WaveLine:
    for wave in record.waves:
        if wave.name == name:
            return wave
    known = ", ".join(wave.name for wave in record.waves)
    raise FleetError(f"rollout {record.rollout} has no wave {name!r}. It has: {known}.")
