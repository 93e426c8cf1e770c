# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a storm in the lab and measure it: every site loses its tunnel at once, and how long until all are back."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import account, holders, hooks, pair, scene, stock, storm_rows
from .measure import HERD, STORM, Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .fleet_view import FleetView
    from .measure import Record

JUNK = Path(__file__).resolve().parent / "junk.py"
JUNK_RATE = 10_000
LEAST_RATE = 0.9
BASE_PORT = 1194
# Entering 400 hosts one after another takes longer than this machine needs for the work itself.
HANDS = 8
STEADY_SECONDS = 180
# The sites' clients start by their own clocks, all at the same moment; so long before it they are told.
ALARM_SECONDS, ALARM_PER_SITE = 14.0, 0.1
LOOKED_BEFORE = 4.0
# To look at every process of the machine, and once more at the clients.
CENSUS_SECONDS = 4.0
RMEM_MAX = Path("/proc/sys/net/core/rmem_max")
END_SECONDS = 1.2
# Microseconds of the clock that time.monotonic() shows as well.
STARTED = "systemctl show --property=ExecMainStartTimestampMonotonic --value {unit}"
ACTIVE = "systemctl show --property=ActiveEnterTimestampMonotonic --value {unit}"


class StormError(Exception):
    """The comparison would be void."""


class Side:
    """The product as the playbooks build it."""

    name = "ours"
    client = "openvpn-client@spokewright"
    timers = "site"
    # Both gateways run daemons all the time.
    warm = True

    def __init__(self, *, view: FleetView, wait: float) -> None:
        self.view = view
        self.wait = wait

    def before(self) -> str:
        """Whole; returns the owner."""
        scene.mend_all()
        pair.wait_whole(self.view, seconds=180)
        return scene.wait_owner(self.view, seconds=30)

    def daemons(self) -> list[str]:
        """Their units."""
        return [f"openvpn-server@{name}" for name in sorted(set(self.view.instances.values()))]

    def serving(self, host: str) -> bool:
        """Whether this gateway has its daemons up after a boot."""
        return scene.on(host, f"systemctl is-active {' '.join(self.daemons())}").status == 0

    def configuration(self, owner: str) -> dict[str, object]:
        """The options that decide how a storm goes, as the owner's daemons have them now."""
        units = self.daemons()
        text = scene.must(owner, f"cat /etc/openvpn/server/{units[0].partition('@')[2]}.conf")
        options = {words[0]: words[1:] for line in text.splitlines() if (words := line.split()) and words[0] != "push"}
        return {
            "name": self.name,
            "sites": len(self.view.lans),
            "daemons": len(units),
            "cores": processors(),
            "keepalive": [int(word) for word in options["keepalive"]],
            "connect_freq": options.get("connect-freq"),
            "connect_freq_initial": options.get("connect-freq-initial", ["100", "10"]),
            "rcvbuf": options.get("rcvbuf", [None])[0],
            "rmem_max": int(RMEM_MAX.read_text(encoding="ascii")),
            "max_clients": int(options.get("max-clients", ["1024"])[0]),
            "hand_window": int(options.get("hand-window", ["60"])[0]),
            "verify": "tls-crypt-v2-verify" in options,
            "timers": self.timers,
        }

    def own_sites(self) -> set[str]:
        """The sites of the daemon that is frozen."""
        first = min(self.view.instances.values())
        return {site for site, instance in self.view.instances.items() if instance == first}


class OtherSide(Side):
    """A configuration that took the product's place."""

    client = stock.CLIENT
    timers = "default"
    # They are started on promotion.
    warm = False

    def __init__(self, *, view: FleetView, wait: float, other: stock.Stock) -> None:
        super().__init__(view=view, wait=wait)
        self.name = other.flavour.name
        self._other = other

    def before(self) -> str:
        """As it was put there, with every client begun anew."""
        self._other.reset()
        return self._other.owner

    def daemons(self) -> list[str]:
        """Their units."""
        return [self._other.unit(name) for name in self._other.daemons]

    def own_sites(self) -> set[str]:
        """Of the story's one daemon: all."""
        return set(self.view.lans) if self._other.flavour.single else super().own_sites()


class Storm:
    """One fleet, one side, scene after scene."""

    def __init__(self, *, view: FleetView, folder: Path) -> None:
        self.view = view
        self.folder = folder
        self.owner = scene.GATEWAYS[0]
        # What a simulation of the scene has to be told, in seconds: how it came about, and not how it ended.
        self._made: dict[str, float] = {}

    def lap(self, *, side: Side, row: storm_rows.Scene) -> storm_rows.Result:
        """Make one scene and see it through."""
        owner = self.owner = side.before()
        self._steady(side)
        self._made = {}
        out = self.folder / f"{side.name}-{row.name}.raw.json"
        with (
            scene.everything_back(),
            account.Account(gateways=scene.GATEWAYS, network="fr0") as costs,
            hooks.kept(scene.GATEWAYS) as books,
        ):
            early = self._prepare(side=side, row=row, owner=owner)
            pace = HERD if row.kind == "clients-restarted" else STORM
            with Measurement(view=self.view, out=out, pace=pace) as measurement, self._flood(row) as flood:
                self._made["background"] = self._background(costs)
                census = account.census()
                clients = account.clients_cpu(self.view.lans)
                before, used = costs.daemons_cpu(), account.busy()
                if early and time.monotonic() > early:
                    raise StormError("the clients began to start before everything was counted")
                fault = self._make(side=side, row=row, owner=owner, alarm=early, measurement=measurement)
                measurement.wait_steady(seconds=side.wait, after=2.0)
                spent = account.clients_cpu(self.view.lans) - clients
                used = account.busy() - used
                programs = account.census().spent(census)
                time.sleep(END_SECONDS)
                record = measurement.stop()
            out.unlink()
            self._look_back(side=side, row=row, owner=owner, fault=fault)
        note = ""
        if row.kind == "owner-dead":
            self._made["address_moves"] = moved(record, self.view, owner, fault)
            note = f"VIP after {self._made['address_moves']:.2f} s"
        if row.flood:
            rate = flood["sent"] / flood["seconds"] if flood else 0.0
            if rate < LEAST_RATE * JUNK_RATE:
                raise StormError(f"{row.title}: only {rate:.0f} packets were sent in a second, so it was no flood")
            note = f"{rate:.0f} first packets/s"
        cpu = (costs.daemons_cpu() - before, spent)
        result = self._judge(side=side, row=row, record=record, fault=fault, costs=costs, cpu=cpu, note=note)
        return replace(result, hook_ms=sum(books, hooks.Waits()).ms, programs={"all": used} | programs)

    @staticmethod
    def _background(costs: account.Account) -> float:
        """How many processors are used before the fault, by anybody but the daemons."""
        used, theirs = account.busy(), costs.daemons_cpu()
        time.sleep(LOOKED_BEFORE)
        return max(0.0, account.busy() - used - costs.daemons_cpu() + theirs) / LOOKED_BEFORE

    def _steady(self, side: Side) -> None:
        """Nothing is measured before every site answers."""
        with Measurement(view=self.view, out=self.folder / "steady.json", pace=STORM) as measurement:
            if not measurement.wait_steady(seconds=max(side.wait, STEADY_SECONDS)):
                raise StormError(f"{side.name}: before it there is no answer: {measurement.silent()[:10]}")

    def _prepare(self, *, side: Side, row: storm_rows.Scene, owner: str) -> float:
        """What takes long and comes before the looking: outages, and sleeping clients. Returns the alarm's time."""
        if row.kind == "outage":
            scene.kill(scene.other(owner))
            self._made["away"] = -scene.kill(owner)
            time.sleep(row.seconds)
        if row.kind == "all-start":
            self._each_site(f"systemctl stop {side.client}")
            told = ALARM_SECONDS + ALARM_PER_SITE * len(self.view.lans)
            wall = math.ceil(time.time() + told)
            when = time.monotonic() + wall - time.time()
            self._each_site(
                f"systemd-run --quiet --unit={side.client}.service --on-calendar=@{wall} "
                "--timer-property=AccuracySec=1ms"
            )
            if time.monotonic() > when - LOOKED_BEFORE - CENSUS_SECONDS:
                raise StormError(f"telling the sites took longer than {told:.0f} s: their clients start apart")
            time.sleep(when - time.monotonic() - LOOKED_BEFORE - CENSUS_SECONDS)
            return when
        return 0.0

    def _make(self, *, side: Side, row: storm_rows.Scene, owner: str, alarm: float, measurement: Measurement) -> float:
        """The fault itself; returns when it was, or, after an outage, when the gateway that returned could serve."""
        if row.kind == "owner-dead":
            when = scene.kill(owner)
            measurement.power_lost(owner, at=when)
            return when
        if row.kind == "outage":
            if answering := len(self.view.lans) - len(measurement.silent()):
                raise StormError(f"{answering} sites answer although both gateways are without power")
            when = self._returned(side=side, owner=owner, measurement=measurement)
            self._made["away"] += when
            return when
        if row.kind == "all-start":
            return alarm
        if row.kind == "clients-restarted":
            clients = [pid for init in account.inits(self.view.lans) for pid in account.daemons(init)]
            when = time.monotonic()
            for pid in clients:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGUSR1)
            return when
        if row.kind == "frozen":
            unit = side.daemons()[0]
            when = scene.signal_instance(owner, "STOP", unit.partition("@")[2])
            time.sleep(row.seconds)
            # A daemon that was ended and started meanwhile is another process and is not frozen.
            scene.on(owner, "pkill -CONT -x openvpn")
            return when
        hosts = scene.GATEWAYS if side.warm else (owner,)
        line = f"pkill -KILL -x openvpn; systemctl start {' '.join(side.daemons())}"
        when = time.monotonic()
        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(lambda host: scene.must(host, line), hosts))
        # systemd calls a daemon started when the daemon says that it is ready.
        self._made["daemon_start"] = time.monotonic() - when
        return when

    def _look_back(self, *, side: Side, row: storm_rows.Scene, owner: str, fault: float) -> None:
        """What the hosts themselves know of when their processes began; asked after the looking."""
        if row.kind == "all-start":
            began = sorted(int(said) / 1e6 for said in self._each_site(STARTED.format(unit=side.client)))
            self._made["first_start"], self._made["spread"] = began[0] - fault, began[-1] - began[0]
        if row.kind == "frozen":
            replaced = int(scene.must(owner, STARTED.format(unit=side.daemons()[0]))) / 1e6 - fault
            if replaced > 0:
                self._made["replaced"] = replaced

    def _returned(self, *, side: Side, owner: str, measurement: Measurement) -> float:
        """Give the gateway its power back; the moment from which on it could serve a site, by its own books.

        On a machine that is busy with a boot a look takes so long that it does not tell when.
        """
        began = time.monotonic()
        scene.boot(owner)
        while not (all(measurement.holders_now(vip) for vip in self.view.vips.values()) and side.serving(owner)):
            if time.monotonic() - began > side.wait:
                raise StormError(f"{owner} has power and does not serve after {side.wait:.0f} s")
            time.sleep(0.1)
        moments = [measurement.moved_at(vip, to=owner, after=began) for vip in self.view.vips.values()]
        said = (scene.must(owner, ACTIVE.format(unit=unit)) for unit in side.daemons())
        return max(*moments, *(int(one) / 1e6 for one in said))

    @contextlib.contextmanager
    def _flood(self, row: storm_rows.Scene) -> Iterator[dict[str, float]]:
        """First packets of nobody while the scene lasts; what was really sent is filled in at the end."""
        told: dict[str, float] = {}
        if not row.flood:
            yield told
            return
        ports = [BASE_PORT + number for number in range(len(set(self.view.instances.values())))]
        plan = {
            "host": max(self.view.lans),
            "target": self.view.outside_vip,
            "ports": ports,
            "kind": row.flood,
            "rate": JUNK_RATE,
        }
        sender = subprocess.Popen([sys.executable, str(JUNK)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert sender.stdin is not None  # noqa: S101 - it was asked for
            sender.stdin.write(json.dumps(plan))
            sender.stdin.close()
            sender.stdin = None
            yield told
        finally:
            sender.terminate()
            said, _nothing = sender.communicate(timeout=30)
            told.update(json.loads(said or "{}"))

    def _judge(
        self,
        *,
        side: Side,
        row: storm_rows.Scene,
        record: Record,
        fault: float,
        costs: account.Account,
        cpu: tuple[float, float],
        note: str,
    ) -> storm_rows.Result:
        wanted = side.own_sites() if row.kind == "frozen" else set(self.view.lans)
        back = {
            one.site: one.again if one.goes_on else math.inf
            for one in record.figures(fault=fault)
            if one.site in wanted
        }
        end = fault + max((when for when in back.values() if when < math.inf), default=0.0)
        during = [one for one in costs.samples if fault - 2 <= one.when <= end + 2]
        first, last = during[0], during[-1]
        seconds = max(last.when - first.when, 0.001)
        return storm_rows.Result(
            side=side.name,
            scene=row.name,
            back=back,
            waited=record.ended - fault,
            half_open=max(one.half_open for one in during),
            drops=max(0, max(one.drops for one in during) - first.drops),
            packets=max(0, max(one.packets for one in during) - first.packets),
            cpu_daemons=cpu[0],
            cpu_clients=cpu[1],
            cpu_machine=last.busy - first.busy,
            busy=(last.busy - first.busy) / seconds / processors(),
            note=note,
            made=self._made,
        )

    def _each_site(self, script: str) -> list[str]:
        with ThreadPoolExecutor(max_workers=HANDS) as pool:
            return list(pool.map(lambda site: scene.must(site, script), self.view.lans))


def moved(record: Record, view: FleetView, owner: str, fault: float) -> float:
    """Seconds until the last virtual address was with the other gateway."""
    to = scene.other(owner)
    return max(holders.moved_at(record.events, vip=vip, to=to, after=fault) for vip in view.vips.values()) - fault


def processors() -> int:
    """How many this machine has."""
    text = Path("/proc/stat").read_text(encoding="ascii")
    return sum(line.startswith("cpu") for line in text.splitlines()) - 1
