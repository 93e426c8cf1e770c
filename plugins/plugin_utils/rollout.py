# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout and its rules: whose turn it is, what became of each site, and when nobody else may be touched. Pure.

It is a record of what was seen and said, for people and for the budgets. What a site runs is asked of the site, every
time: a record that is lost or wrong costs its soak times and approvals, and no site.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_lines import (
    ABORTED,
    ALL_WELL,
    DONE,
    FAILED,
    FINISHED,
    GIVEN_UP,
    HALTED,
    HELD_UP,
    OPEN,
    OUTCOMES,
    PARKED,
    PASSED_OVER,
    PAUSED,
    RUNNING,
    SITE_STATES,
    SITES_FAILED,
    WAITING,
    Control,
    Halt,
    SiteLine,
    WaveLine,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.typed_reader import KNOWN
from ansible_collections.spokewright.fleet.plugins.plugin_utils.waves import PERCENT

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.waves import Wave

# A site that somebody holds refuses to start its client on anything.
HELD: Final = "held"
# A site that says so was not reached, or refused, so nothing was changed there.
NOT_REACHED: Final = frozenset(("unreachable", "bastion-unreachable", "not-tried", "run-ended", HELD))
# Whether the site has done what it was told is not known: the answer is missing.
NO_ANSWER: Final = frozenset(("timeout", "closed", "no-receipt"))
LEFT: Final = "it had failed in this run before its turn came"
NOT_KEPT: Final = "it was activated, and what became of it could not be kept; the next run asks it"


@dataclass(kw_only=True)
class Rollout:
    """One rollout, from its first run to its last. ``failed``, ``unreachable``: so many sites may be, of all in it."""

    rollout: str
    fleet: str
    what: str
    reason: str
    by: str
    began: float
    failed: int
    unreachable: int
    waves: list[WaveLine] = field(default_factory=list)
    sites: dict[str, SiteLine] = field(default_factory=dict)
    halts: list[Halt] = field(default_factory=list)
    ended: float | None = None
    outcome: str = field(default=OPEN, metadata={KNOWN: OUTCOMES})

    # --- what a run finds

    def take_stage(
        self,
        *,
        waves: Sequence[Wave],
        asked: Collection[str],
        found: Mapping[str, Mapping[str, Any]],
        settled: Collection[str],
        now: float,
    ) -> None:
        """Enter what every site answered when the new generation was put beside what it runs.

        Args:
            waves: the waves of the plan as it is now, with all its sites, whoever is part of this run.
            asked: the sites of this run. Another one is what it was.
            found: what each site answered, with ``ok``, ``reason`` and ``message``. None of a site: it failed before.
            settled: sites that run the new generation, confirmed.
            now: the time.
        """
        self._cut_anew(waves)
        for site, line in self.sites.items():
            line.asked = site in asked
        for wave in self.waves:
            mine = [site for site in wave.sites if site in asked]
            if any(site not in self.sites for site in mine):
                wave.settled = sum(site in settled and site not in self.sites for site in mine)
            for site in mine:
                answer = found.get(site)
                if site in settled:
                    if site in self.sites and self.sites[site].state != DONE:
                        self._set(wave, site, state=DONE, message="runs it, confirmed")
                        # Confirmed by a run that did not live to say so: its soak begins now.
                        wave.proven, wave.ended = now, None
                elif answer is None:
                    self._set(wave, site, state=ABORTED, reason="left", message=LEFT)
                elif answer["ok"]:
                    self._set(wave, site, state=WAITING)
                    wave.state, wave.proven, wave.ended = WAITING, None, None
                else:
                    away = answer["reason"] in NOT_REACHED | NO_ANSWER
                    self._set(wave, site, state=PARKED if away else ABORTED, answer=answer)

    def _cut_anew(self, waves: Sequence[Wave]) -> None:
        """Give every site the wave that the plan has for it by now; a person may have changed it since.

        Who is done keeps the wave it was done in. Who takes part no more is dropped, unless it is done.
        """
        takes_part = {site for wave in waves for site in wave.sites}
        self.sites = {site: one for site, one in self.sites.items() if one.state == DONE or site in takes_part}
        done = {site: one.wave for site, one in self.sites.items() if one.state == DONE}
        former = {wave.name: wave for wave in self.waves}
        found = []
        for wave in waves:
            line = former.pop(wave.name, None) or WaveLine(name=wave.name, group=wave.group, sites=[])
            line.sites = [
                *(site for site in line.sites if done.get(site) == wave.name),
                *(site for site in wave.sites if site not in done),
            ]
            line.soak_seconds, line.approval = wave.soak_seconds, wave.approval
            line.success_percent = wave.success_percent
            found.append(line)
        for line in former.values():
            line.sites = [site for site in line.sites if done.get(site) == line.name]
            if line.sites:
                # What was done in it comes before the rest of its group.
                place = next((place for place, other in enumerate(found) if other.group == line.group), 0)
                found.insert(place, line)
        self.waves = found
        for line in found:
            for site in line.sites:
                if site in self.sites:
                    self.sites[site].group, self.sites[site].wave = line.group, line.name

    @property
    def has_work(self) -> bool:
        """Whether this run has any site to change, or a wave has to stay well for a while yet."""
        return any(self.turn(wave) or wave.soaks for wave in self.waves)

    @property
    def part(self) -> list[WaveLine]:
        """The waves that have a part in it: a plan names sites that no run was asked for yet."""
        return [wave for wave in self.waves if wave.settled or any(site in self.sites for site in wave.sites)]

    # --- a wave

    def turn(self, wave: WaveLine) -> list[str]:
        """The sites of a wave that are to be changed now."""
        return [site for site in self._waiting(wave) if self.sites[site].asked]

    def _waiting(self, wave: WaveLine) -> list[str]:
        return [site for site in wave.sites if site in self.sites and self.sites[site].state == WAITING]

    def keeps_back(self, wave: WaveLine, *, control: Control, now: float) -> Halt | None:
        """Why a wave must not begin; nothing when it may. Without a site to change it needs nobody's leave."""
        turn = self.turn(wave)
        for earlier in self.part:
            if earlier is wave:
                break
            if earlier.state in {DONE, PASSED_OVER}:
                continue
            why = self._comes_first(earlier) if turn and self._waiting(earlier) else self.end(earlier, now=now)
            if why:
                return Halt(at=now, wave=earlier.name, why=why)
        why = self._too_many_parked() if turn else ""
        if wave.approval and not why:
            why = self._wants_approval(wave, turn, control=control)
        return Halt(at=now, wave=wave.name, why=why) if why else None

    def _comes_first(self, wave: WaveLine) -> str:
        if self.turn(wave):
            return f"what became of wave {wave.name} could not be kept"
        return f"wave {wave.name} comes first, and who waits there is not in this run: {_some(self._waiting(wave))}"

    def _wants_approval(self, wave: WaveLine, turn: Sequence[str], *, control: Control) -> str:
        given = control.approved.get(wave.name)
        more = [site for site in turn if given is None or site not in given.sites]
        if not more:
            return ""
        how = f"tools/fleet rollout approve {self.rollout} '{wave.name}'"
        if given is None:
            return f"wave {wave.name} wants an approval: {how}"
        return f"wave {wave.name} wants another approval, {given.by} has approved it without {_some(more)}: {how}"

    def approved_by(self, wave: WaveLine, *, control: Control) -> str:
        """Who has approved all that is still to be changed in a wave; nothing when nobody has."""
        given = control.approved.get(wave.name)
        to_do = [site for site in wave.sites if not self.is_done(site)]
        return given.by if given is not None and set(to_do) <= set(given.sites) else ""

    def begin(self, wave: WaveLine, *, now: float) -> None:
        """The wave begins, or goes on."""
        wave.state = RUNNING
        wave.began = wave.began or now

    def take_wave(
        self,
        wave: WaveLine,
        *,
        activate: Mapping[str, Mapping[str, Any]],
        gate: Mapping[str, Mapping[str, Any]],
        confirm: Mapping[str, Mapping[str, Any]],
        activated: Mapping[str, float],
        now: float,
    ) -> None:
        """Enter what became of the wave's sites: the last word counts."""
        for site, first in activate.items():
            line = self.sites[site]
            line.activated = activated.get(site, line.activated)
            passed, kept = gate.get(site), confirm.get(site)
            if not first["ok"]:
                self._set(wave, site, state=_without_change(first), answer=first)
            elif passed is None or not passed["ok"]:
                self._set(wave, site, state=FAILED, reason="gate", answer=passed)
            elif kept is None or not kept["ok"]:
                self._set(wave, site, state=FAILED, reason="confirm", answer=kept)
            else:
                self._set(wave, site, state=DONE, answer=passed)
                line.seconds = passed.get("seconds")
        wave.proven = now

    def take_soak(self, wave: WaveLine, *, lost: Mapping[str, str]) -> None:
        """Enter which sites did not stay well, and why."""
        for site, why in lost.items():
            if site in self.sites:
                self._set(wave, site, state=FAILED, reason="soak", message=f"lost after it was confirmed: {why}")

    def end(self, wave: WaveLine, *, now: float) -> str:
        """The wave is over; why nothing else may be touched, or nothing."""
        why = self._stops(wave)
        wave.ended = None if why else now
        wave.state = HALTED if why else WAITING if self._waiting(wave) else self._over(wave)
        return why

    def _over(self, wave: WaveLine) -> str:
        """What a wave is in which nobody waits any more."""
        states = {self.sites[site].state for site in wave.sites if site in self.sites}
        return PASSED_OVER if states == {PARKED} and not wave.settled else DONE

    def _stops(self, wave: WaveLine) -> str:
        states = [self.sites[site].state for site in wave.sites if site in self.sites]
        well, tried = states.count(DONE), states.count(DONE) + states.count(FAILED)
        if why := self._too_many_failed():
            return why
        if tried * wave.success_percent > well * PERCENT:
            return f"{well} of {_sites(tried)} passed, and {wave.success_percent}% have to"
        if states and not well and not wave.settled:
            # Nobody is there to show that the change is sound. One dead site among others keeps nobody back.
            if set(states) != {PARKED}:
                return "none of its sites is well"
            if not self._shown_before(wave):
                return (
                    f"no site of wave {wave.name} could be {self._tried}, and none before it has shown a sound change"
                )
        return self._too_many_parked()

    def _shown_before(self, wave: WaveLine) -> bool:
        """Whether a site of an earlier wave works with the change: then one that cannot be tried need not show it."""
        earlier = self.waves[: self.waves.index(wave)]
        return any(one.settled or any(self.is_done(site) for site in one.sites) for one in earlier)

    def _too_many_failed(self) -> str:
        failed = self.count(FAILED)
        return f"{_sites(failed)} failed, the budget for that is {self.failed}" if failed > self.failed else ""

    def _too_many_parked(self) -> str:
        away, budget = self.count(PARKED), self.unreachable
        return f"{_sites(away)} could not be {self._tried}, the budget for that is {budget}" if away > budget else ""

    @property
    def _tried(self) -> str:
        """What parked sites could not be; one that is held was reached."""
        held = any(one.state == PARKED and one.reason == HELD for one in self.sites.values())
        return "tried" if held else "reached"

    # --- the end of a run

    def halt(self, halt: Halt, *, outcome: str = HALTED) -> None:
        """Go no further."""
        self.halts.append(halt)
        self.outcome = outcome

    def close(self, *, now: float) -> None:
        """The run is over. What nothing stopped and nobody waits in is finished, whatever it could not reach."""
        for wave in self.waves:
            if wave.state == RUNNING:
                wave.state = HALTED
                for site in self.turn(wave):
                    self._set(wave, site, state=FAILED, reason="unknown", message=NOT_KEPT)
        # Where no wave had a turn, no wave was judged.
        if self.outcome == OPEN and (why := self._too_many_failed() or self._too_many_parked()):
            self.halt(
                Halt(
                    at=now, wave=next(one.wave for one in self.sites.values() if one.state in {FAILED, PARKED}), why=why
                )
            )
        if self.outcome == OPEN and not self.count(WAITING):
            self.outcome = FINISHED
        self.ended = now

    @property
    def why(self) -> str:
        """Why it is not finished; nothing when it is."""
        if self.outcome == OPEN:
            to_go = f"{_sites(self.count(WAITING))} to go"
            return f"its last run was cut off, {to_go}" if self.ended is None else f"{to_go}, not in this run"
        return self.halts[-1].why if self.outcome != FINISHED and self.halts else ""

    def is_done(self, site: str) -> bool:
        """Whether a site of it runs the new generation, as far as is known."""
        return site in self.sites and self.sites[site].state == DONE

    def count(self, state: str) -> int:
        """How many sites are in a state."""
        return sum(one.state == state for one in self.sites.values())

    @property
    def is_over(self) -> bool:
        """Whether another rollout may begin."""
        return self.outcome in {FINISHED, GIVEN_UP}

    @property
    def exit_code(self) -> int:
        """What the run ends with: 0, 2 or 3."""
        if self.outcome in {HALTED, PAUSED, GIVEN_UP} or self.count(WAITING):
            return HELD_UP
        return SITES_FAILED if self.count(DONE) < len(self.sites) else ALL_WELL

    @property
    def summary(self) -> dict[str, int]:
        """Sites by what became of them."""
        return {"total": len(self.sites), **{state: self.count(state) for state in SITE_STATES}}

    def _set(
        self,
        wave: WaveLine,
        site: str,
        *,
        state: str,
        reason: str = "",
        message: str = "",
        answer: Mapping[str, Any] | None = None,
    ) -> None:
        line = self.sites.setdefault(site, SiteLine(group=wave.group, wave=wave.name))
        line.state = state
        line.reason = reason or ("" if state == DONE else str((answer or {}).get("reason") or ""))
        line.message = message or str((answer or {}).get("message") or "")


def _without_change(answer: Mapping[str, Any]) -> str:
    """What a site is that was not activated: never reached, reached and left as it was, or nobody knows."""
    reason = str(answer.get("reason") or "")
    if reason in NOT_REACHED:
        return PARKED
    return FAILED if reason in NO_ANSWER else ABORTED


def _sites(number: int) -> str:
    return f"{number} site{'' if number == 1 else 's'}"


def _some(sites: Sequence[str]) -> str:
    return ", ".join(sites[:3]) + (f" and {len(sites) - 3} more" if len(sites) > 3 else "")
