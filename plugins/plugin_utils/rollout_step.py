# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each step of a rollout as a task asks for it, and what the task is answered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import shown_path
from ansible_collections.spokewright.fleet.plugins.plugin_utils.gate import wait_for_sites
from ansible_collections.spokewright.fleet.plugins.plugin_utils.holds import holds_file, read_holds
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_states import newest_of
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_problem import FORBID_CHANGE, said
from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_report import look_at_pair
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_files import named, new_id
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_lines import FAILED, OPEN, PARKED, WAITING
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_report import write_rollout_report
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_run import Stage, verdicts
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_view import rollout_data
from ansible_collections.spokewright.fleet.plugins.plugin_utils.soak import soak
from ansible_collections.spokewright.fleet.plugins.plugin_utils.wave_plan import sites_by_group

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout import Rollout
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_files import RolloutFiles
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_run import RolloutRun


def report_of(*, fleet: Fleet, store: KeyStore, files: RolloutFiles, record: Rollout) -> Path:
    """Write the report of a rollout; the path of its page."""
    keys = store.index(sites=list(record.sites))
    data = rollout_data(record=record, control=files.control(record.rollout), keys=keys)
    return write_rollout_report(directory=fleet.plan_file.parent / "reports" / record.rollout, data=data)


class Step:
    """One step, with the arguments of its task."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        store: KeyStore,
        run: RolloutRun,
        args: Mapping[str, Any],
        dry: bool,
        say: Callable[[str], object],
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._run = run
        self._args = args
        self._dry = dry
        self._say = say

    def planned(self) -> dict[str, Any]:
        """What a rollout is about, and for whom."""
        rollout, files = self._args["rollout"], self._run.files
        plan = self._run.plan(rollout)
        sites = [site for group in sites_by_group(plan=plan, fleet=self._fleet).values() for site in group]
        record = files.read(rollout)
        if record is not None and files.plan_text(rollout) is None:
            # Begun without a plan, maybe for one group: to go on with it is to change nobody else.
            sites = [site for site in sites if site in record.sites]
        return {"what": plan.what, "reason": plan.reason, "sites": sites, "msg": f"{plan.what} of {len(sites)} sites"}

    def claimed(self) -> dict[str, Any]:
        """Before anything is touched."""
        asked, what, reason = (self._args[name] for name in ("rollout", "what", "reason"))
        if asked:
            plan = self._run.plan(asked, what=what, reason=reason)
            if plan.what != what or (what == "keys" and plan.reason != reason):
                raise FleetError(
                    f"rollout {asked} brings {named(plan.what, plan.reason)}, and not {named(what, reason)}. Run it "
                    f"with ansible-playbook playbooks/rollout.yml -e rollout={asked}. Nothing was changed."
                )
        rollout = self._take()
        return {"rollout": rollout, "what": what, "reason": reason, "msg": f"rollout {rollout}"}

    def opened(self) -> dict[str, Any]:
        """Sort the sites into waves by what they answered."""
        found, rollout = self._args["stage"], self._claim()
        beside = {site: {"ok": True, "reason": "", "message": ""} for site in self._confirmed_beside(rollout)}
        stage = Stage(
            sites=[*self._args["sites"], *beside],
            answers={**found["sites"], **beside},
            unsettled=found["unsettled_sites"],
        )
        record = self._run.open(
            rollout,
            stage=stage,
            what=self._args["what"],
            reason=self._args["reason"],
            beside=self._args["beside"],
            dry=self._dry,
        )
        if record is None:
            if not self._dry:
                self._run.release()
            return {"rollout": "", "waves": [], "msg": "nothing to roll out"}
        waves = self._run.waves(record)
        if self._dry and (stop := self._run.would_stop(record)):
            self._say(f"  rollout {rollout}: it would stop {stop}")
        return {
            "rollout": rollout,
            "waves": waves,
            "event": _event("opened", record=record),
            "msg": f"rollout {rollout}: {record.summary['waiting']} sites in waves {', '.join(waves) or 'none'}",
        }

    def begun(self) -> dict[str, Any]:
        """Who has a turn in this wave."""
        record, wave = self._run.record(self._args["rollout"]), self._args["wave"]
        sites = self._run.begin(record, wave, pair=self._pair)
        if record.outcome != OPEN:
            why = record.halts[-1].why
            return {"sites": [], "stopped": why, "msg": f"no site of wave {wave} is touched: {why}"}
        event = {"event": _event("wave_began", record=record, wave=wave, sites=len(sites))} if sites else {}
        return {"sites": sites, "stopped": "", "msg": f"wave {wave}: {len(sites)} sites", **event}

    def ended(self) -> dict[str, Any]:
        """What became of them, also after a while, and whether the next wave may begin."""
        record, wave = self._run.record(self._args["rollout"]), self._args["wave"]
        activate, gate, confirm = (self._args[name] for name in ("activate", "gate", "confirm"))
        tried = activate.get("sites", {})
        if tried:
            self._run.enter(
                record,
                wave,
                activate=tried,
                gate=gate.get("sites", {}),
                confirm=confirm.get("sites", {}),
                activated=activate.get("activated", {}),
            )
        lost = self._soak(record, wave) if record.outcome == OPEN else {}
        stopped = self._run.end(record, wave, lost=lost)
        event = _event("wave_ended", record=record, wave=wave, sites=len(tried))
        return {"stopped": stopped, "event": event, "msg": f"after wave {wave}: {stopped or 'well'}"}

    def closed(self) -> dict[str, Any]:
        """The run is over: what became of each site."""
        record = self._run.record(self._args["rollout"])
        claim = self._run.mine()
        said, report = "", ""
        try:
            self._run.close(record)
        except FleetError as exc:
            # The sites still want their verdicts.
            said = f". {exc}"
        why = f", {record.outcome}: {record.why}" if record.why else ""
        counts = ", ".join(f"{number} {state}" for state, number in record.summary.items() if number)
        said = f"rollout {record.rollout}: {counts}{why}{said}"
        try:
            report = shown_path(report_of(fleet=self._fleet, store=self._store, files=self._run.files, record=record))
            said += f". Report: {report}"
        except FleetError as exc:
            said += f". {exc}"
        return {
            "waiting_sites": [site for site, one in record.sites.items() if one.state == WAITING],
            "sites": verdicts(record, since=claim.began if claim else 0.0),
            "exit_code": record.exit_code,
            "event": {**_event("closed", record=record), "report": report},
            "msg": said,
        }

    def _claim(self) -> str:
        """The rollout that this run has claimed for what it brings now; it may have claimed one for something else."""
        claim, brings = self._run.mine(), (self._args["what"], self._args["reason"])
        return claim.rollout if claim is not None and (claim.what, claim.reason) == brings else self._take()

    def _take(self) -> str:
        if self._args["beside"]:
            return str(self._args["rollout"] or new_id(self._args["what"]))
        return self._run.claim(
            what=self._args["what"], reason=self._args["reason"], asked=self._args["rollout"], dry=self._dry
        )

    def _confirmed_beside(self, rollout: str) -> list[str]:
        """Who has confirmed its new key beside this rollout: it is due no more, so no run would be asked for it."""
        record = self._run.files.read(rollout)
        if record is None or record.what != "keys":
            return []
        here = set(self._args["sites"])
        left = [site for site, one in record.sites.items() if one.state in {WAITING, PARKED} and site not in here]
        known = self._store.index(sites=left).items()
        return [site for site, epochs in known if epochs and epochs[newest_of(epochs)]["state"] == "confirmed"]

    def _pair(self) -> list[str]:
        if self._args["any_pair"]:
            return []
        return said(look_at_pair(fleet=self._fleet).problems, *FORBID_CHANGE)

    def _soak(self, record: Rollout, wave: str) -> dict[str, str]:
        sites, until = self._run.soaks(record, wave)
        if not sites:
            return {}
        keys = self._store.index(sites=sites)

        def look(some: Sequence[str], seconds: float = 0.0) -> dict[str, str]:
            # Whoever was put on hold meanwhile is silent because somebody wanted it, not because of the change.
            held = read_holds(holds_file(self._fleet), now=time.time())
            judged = [site for site in some if site not in held]
            passed = wait_for_sites(fleet=self._fleet, sites=judged, seconds=seconds, keys=keys)
            return {site: one.message for site, one in passed.items() if not one.ok}

        def stop() -> bool:
            return bool(self._run.files.control(record.rollout).aborted_by)

        def on_look(left: float, unwell: Collection[str]) -> None:
            self._say(f"  soak of wave {wave}: {left:.0f} s left, {len(unwell)} of {len(sites)} sites not well")

        may_lose = max(0, record.failed - record.count(FAILED))
        unwell = soak(sites=sites, until=until, may_lose=may_lose, look=look, stop=stop, on_look=on_look)
        # A site may just be between two sessions: it gets the time that every site has at a gate.
        return look(list(unwell), self._args["gate_seconds"]) if unwell else {}


def _event(name: str, *, record: Rollout, wave: str = "", sites: int = 0) -> dict[str, Any]:
    """For whoever shows how far it is."""
    names, summary = [one.name for one in record.part], record.summary
    return {
        "event": name,
        "rollout": record.rollout,
        "wave": wave,
        "number": names.index(wave) + 1 if wave else 0,
        "waves": len(names),
        "sites": sites,
        "done": summary["done"],
        "failed": summary["failed"] + summary["aborted"],
        "parked": summary["parked"],
        "total": summary["total"],
        "exit_code": record.exit_code if name == "closed" else 0,
    }
