# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage for a fault: a whole pair, probes running, and afterwards a judgement of all that was seen."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from faultlib import holders, pair, ready, scene
from faultlib.measure import Measurement, Record
from integration.labtools import PLAN, forget_fleet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from faultlib.fleet_view import FleetView
    from faultlib.holes import Figures

SITES = int(os.environ.get("SPOKEWRIGHT_FAULT_SITES", "4"))
# A test asks for the right outcome in good time; how fast it can be is bench/failover's question, on a quiet machine.
VIP_SECONDS = 3.0
SITE_SECONDS = 20.0
PUSHED_SECONDS = 8.0
OVERLAP_SECONDS = 0.3
SPLIT_SECONDS = 0.5
UNMOVED_HOLE_SECONDS = 1.0
LAST_SECONDS = 1.0


@dataclass(kw_only=True)
class Trial:
    """One fault: when it was, and what was seen."""

    view: FleetView
    owner: str
    measurement: Measurement
    fault: float = 0.0
    record: Record | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def standby(self) -> str:
        """The gateway that stands by when the trial begins."""
        return scene.other(self.owner)

    def settle(self, *, seconds: float = SITE_SECONDS + 10, after: float = 2.0) -> None:
        """Wait until every site answers again in both directions."""
        if not self.measurement.wait_steady(seconds=seconds, after=after):
            silent = self.measurement.silent()
            self.notes.append(f"still without an answer: {', '.join(silent) or 'on and off'}")

    def kill(self, host: str) -> float:
        """A power cut of a gateway."""
        when = scene.kill(host)
        self.measurement.power_lost(host, at=when)
        return when

    def boot(self, host: str) -> float:
        """Power is back; returns when the host is up."""
        when = scene.boot(host)
        self.measurement.power_back(host, at=when)
        return when

    @property
    def seen(self) -> Record:
        """The record, once the trial has ended."""
        assert self.record is not None, "the trial has not ended"
        return self.record

    def figures(self, *, since: float | None = None) -> list[Figures]:
        """Every stream, judged from the fault on."""
        return self.seen.figures(fault=self.fault if since is None else since)

    def moved(self, *, to: str) -> float:
        """When the last of the virtual addresses came to that gateway, in seconds after the fault."""
        times = [
            holders.moved_at(self.seen.events, vip=vip, to=to, after=self.fault) for vip in self.view.vips.values()
        ]
        return max(times) - self.fault

    def report(self) -> str:
        """All that was seen, for a person."""
        lines = list(self.notes)
        for gateway in scene.GATEWAYS:
            for network, vip in self.view.vips.items():
                events = [one for one in self.seen.events if one.vip == vip and one.gateway == gateway]
                changes = ", ".join(f"{'got' if one.held else 'lost'} {one.time - self.fault:+.2f}" for one in events)
                lines.append(f"{gateway} {network} {vip}: {changes or 'never'}")
        for network, vip in self.view.vips.items():
            answers = self.seen.answering(vip, begin=self.fault - 5, end=self.seen.ended)
            said = ", ".join(f"{self.view.gateway_of(mac)} {count} times" for mac, count in answers.items())
            lines.append(f"ARP for {network} {vip}: {said or 'nobody'}")
        lines += [one.line() for one in self.figures()]
        return "\n".join(lines)

    # Assertions.

    def assert_one_owner(
        self,
        gateway: str,
        *,
        unheard: Sequence[str] = (),
        overlap: float = OVERLAP_SECONDS,
        split: float = SPLIT_SECONDS,
    ) -> None:
        """In the end that gateway has all addresses, alone, and what was before stayed within bounds.

        `unheard`: networks that it is cut off from, where nobody answers for it.
        """
        begin, end = self.seen.streams[0]["sent"][0], self.seen.ended
        for network, vip in self.view.vips.items():
            assert self.seen.holders(vip) == {gateway}, f"{network} {vip}"
            double = holders.overlaps(self.seen.events, vip=vip, begin=begin, end=end)
            assert sum(one.seconds for one in double) <= overlap, f"{network} {vip} had two holders: {double}"
            answers = self.seen.answering(vip, begin=end - LAST_SECONDS, end=end)
            who = {self.view.gateway_of(mac) for mac in answers}
            wanted = set() if network in unheard else {gateway}
            assert who == wanted, f"{network} {vip} is answered for by {sorted(who) or 'nobody'}"
        parted = holders.splits(self.seen.events, vips=list(self.view.vips.values()), begin=begin, end=end)
        assert sum(one.seconds for one in parted) <= max(split, overlap), f"parted: {parted}"

    def assert_moved(
        self, *, within: float = VIP_SECONDS, overlap: float = OVERLAP_SECONDS, split: float = SPLIT_SECONDS
    ) -> None:
        """The other gateway has taken over everything."""
        self.assert_one_owner(self.standby, overlap=overlap, split=split)
        assert self.moved(to=self.standby) <= within

    def assert_unmoved(self, *, hole: float = UNMOVED_HOLE_SECONDS) -> None:
        """Nothing changed hands, and no site missed anything."""
        self.assert_one_owner(self.owner)
        for vip in self.view.vips.values():
            assert self.role_changes(vip) == 0
            assert holders.gaps(self.seen.events, vip=vip, begin=self.fault - 1, end=self.seen.ended) == []
        self.assert_sites(within=hole, longest=hole)

    def role_changes(self, vip: str) -> int:
        """How often the address went to the other gateway since the fault."""
        return holders.role_changes(self.seen.events, vip=vip, begin=self.fault, end=self.seen.ended)

    def assert_sites(self, *, within: float = SITE_SECONDS, longest: float | None = None) -> None:
        """Every site works again, from the core and towards it, and goes on doing so."""
        found = self.figures()
        assert {one.direction for one in found} == {"core->site", "site->core"}
        assert {one.site for one in found} == set(self.view.lans)
        stopped = [one.line() for one in found if not one.goes_on]
        assert stopped == []
        late = [one.line() for one in found if one.again > within or (longest and one.longest > longest)]
        assert late == []


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The lab with a working fleet."""

    view: FleetView
    logs: Path
    vrrp_ids: dict[str, int]
    routing: str

    @contextlib.contextmanager
    def trial(self, *, owner: str, name: str) -> Iterator[Trial]:
        """Probes run and are answered when this begins; when it ends, they are judged and the lab is mended."""
        pair.wait_whole(self.view)
        scene.make_owner(self.view, owner)
        pair.wait_whole(self.view)
        self.logs.mkdir(parents=True, exist_ok=True)
        out = self.logs / f"{name}-{owner}.json"
        with scene.everything_back(), Measurement(view=self.view, out=out) as measurement:
            trial = Trial(view=self.view, owner=owner, measurement=measurement)
            if not measurement.wait_steady(seconds=40):
                raise scene.SceneError(f"before the fault there is no answer: {', '.join(measurement.silent())}")
            try:
                yield trial
                # The end of the record shows who answers when all is over.
                time.sleep(LAST_SECONDS + 0.2)
            finally:
                trial.record = measurement.stop()
                trial.fault = trial.fault or trial.record.ended
                report = trial.report()
                (self.logs / f"{name}-{owner}.log").write_text(f"{report}\n", encoding="utf-8")
                sys.stdout.write(f"{report}\n")


@contextlib.contextmanager
def stage_for_tests(*, root: Path) -> Iterator[Stage]:
    """Use the working fleet that is there, or make one."""
    logs = root / ".cache" / "faults"
    view = ready.make_ready(sites=SITES, logs=logs, at_least=True)
    plan = load_fleet(plan_file=PLAN).plan
    ids = {one.name: one.vrrp_id for one in plan.transports}
    yield Stage(view=view, logs=logs, vrrp_ids=ids, routing=str(plan.routing.protocol))
    if os.environ.get("SPOKEWRIGHT_KEEP_LAB") is None:
        forget_fleet()
