# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One measurement: the watcher runs from before the fault until after the recovery, then its record is judged."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from . import holders, holes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .fleet_view import FleetView

WATCHER = Path(__file__).resolve().parent / "watcher.py"
# Probes that begin at the sites, too, are as dense in a small lab; in a large one they would cost more than they tell.
DENSE_SITES = 16
SPARSE_INTERVAL = 0.2
STEADY_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often every site is probed, in seconds; one that answers at least every `calm` seconds.

    `back` says whether probes begin at the sites as well.
    """

    interval: float
    calm: float = 0.0
    back: bool = True


FINE = Pace(interval=0.02)
# Holes of seconds at hundreds of sites: what is measured shares its processors with the measuring.
STEADY = Pace(interval=0.1, back=False)
# A storm: sites that answer are hardly asked.
STORM = Pace(interval=0.1, calm=1.0, back=False)
# A client that begins anew is away for little more than a second.
HERD = Pace(interval=0.1, calm=0.4, back=False)


class MeasureError(Exception):
    """There is nothing to measure, or the measuring itself failed."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What was seen, on the machine's monotonic clock."""

    ended: float
    streams: list[dict[str, Any]]
    events: list[holders.Event]
    arp: list[tuple[float, str, str]]
    dead: dict[str, list[holders.Span]] = field(default_factory=dict)

    def figures(self, *, fault: float, end: float | None = None) -> list[holes.Figures]:
        """Every stream, judged."""
        until = self.ended if end is None else end
        return [
            holes.figures(
                site=one["site"],
                direction=one["direction"],
                sent=one["sent"],
                rtt=one["rtt"],
                fault=fault,
                end=until,
            )
            for one in self.streams
        ]

    def holders(self, vip: str, *, at: float | None = None) -> set[str]:
        """Who holds the address at that time, or at the end."""
        return holders.holders(self.events, vip=vip, at=self.ended if at is None else at)

    def answering(self, vip: str, *, begin: float, end: float) -> dict[str, int]:
        """How often each MAC answered for the address."""
        found: dict[str, int] = {}
        for when, address, mac in self.arp:
            if address == vip and begin <= when < end:
                found[mac] = found.get(mac, 0) + 1
        return found


class Measurement:
    """Runs the watcher; leave it as a context and nothing of it is left."""

    def __init__(self, *, view: FleetView, out: Path, sites: Sequence[str] | None = None, pace: Pace = FINE) -> None:
        self.out = out
        self.dead: dict[str, list[list[float]]] = {}
        self._view = view
        wanted = list(view.lans) if sites is None else list(sites)
        core = view.core_address
        self._plan = {
            "out": str(out),
            "interval": pace.interval,
            "back_interval": max(pace.interval, 0.0 if len(wanted) <= DENSE_SITES else SPARSE_INTERVAL),
            "calm": pace.calm,
            "forward": [{"site": site, "host": "core1", "source": core, "target": view.lans[site]} for site in wanted],
            "backward": [
                {"site": site, "host": site, "source": view.lans[site], "target": core}
                for site in (wanted if pace.back else ())
            ],
            "gateways": list(view.macs),
            "vips": list(view.vips.values()),
            "askers": view.askers(sites=wanted),
        }
        self._process: subprocess.Popen[str] | None = None
        self._status: dict[str, Any] = {}
        self._changed = threading.Condition()
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, str(WATCHER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        self._process.stdin.write(json.dumps(self._plan))
        self._process.stdin.close()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._end()

    def _read(self) -> None:
        process = self._process
        assert process is not None  # noqa: S101 - started before the thread
        assert process.stdout is not None  # noqa: S101 - it was asked for
        for line in process.stdout:
            with self._changed:
                self._status = json.loads(line)
                self._changed.notify_all()
        with self._changed:
            self._status = {"ended": True}
            self._changed.notify_all()

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._reader is not None:
            self._reader.join(timeout=10)
        if process.stdout is not None:
            process.stdout.close()
        self._process = None

    def status(self) -> dict[str, Any]:
        """The next line the watcher says."""
        with self._changed:
            before = self._status
            self._changed.wait_for(lambda: self._status is not before, timeout=30)
            now = self._status
        if now is before or now.get("ended"):
            raise MeasureError("the watcher has ended or says nothing; its words are above")
        return now

    def wait_steady(self, *, seconds: float, after: float = 0.0) -> bool:
        """Wait until every stream has been answered for a while without a pause; False when that did not come."""
        deadline = time.monotonic() + seconds
        if after:
            time.sleep(after)
        since: float | None = None
        while time.monotonic() < deadline:
            status = self.status()
            if status["silent"]:
                since = None
            elif since is None:
                since = status["now"]
            elif status["now"] - since >= STEADY_SECONDS:
                return True
        return False

    def silent(self) -> list[str]:
        """The streams that get no answer now."""
        return list(self.status()["silent"])

    def holders_now(self, vip: str) -> set[str]:
        """Who holds the address now."""
        return holders.holders(self._events(self.status()["events"]), vip=vip, at=float("inf"))

    def moved_at(self, vip: str, *, to: str, after: float) -> float:
        """When that gateway got the address, after that moment; infinite when it has not."""
        return holders.moved_at(self._events(self.status()["events"]), vip=vip, to=to, after=after)

    def power_lost(self, gateway: str, *, at: float) -> None:
        """From then on the gateway's kernel is not there to say that its addresses are gone."""
        self.dead.setdefault(gateway, []).append([at, float("inf")])

    def power_back(self, gateway: str, *, at: float) -> None:
        """It boots."""
        if self.dead.get(gateway):
            self.dead[gateway][-1][1] = at

    @staticmethod
    def _events(rows: Sequence[Sequence[Any]]) -> list[holders.Event]:
        return [holders.Event(time=when, gateway=gateway, vip=vip, held=held) for when, gateway, vip, held in rows]

    def stop(self) -> Record:
        """End it and return what was seen."""
        if self._process is None:
            raise MeasureError("the measurement has ended already")
        self._end()
        try:
            raw: Mapping[str, Any] = json.loads(self.out.read_text(encoding="ascii"))
        except FileNotFoundError as exc:
            raise MeasureError(f"the watcher left no record at {self.out}") from exc
        dead = {
            gateway: [holders.Span(begin=begin, end=min(end, raw["ended"])) for begin, end in spans]
            for gateway, spans in self.dead.items()
        }
        return Record(
            ended=raw["ended"],
            streams=raw["streams"],
            events=holders.without_power(self._events(raw["events"]), dead=dead),
            arp=[(when, vip, mac) for when, vip, mac in raw["arp"]],
            dead=dead,
        )
