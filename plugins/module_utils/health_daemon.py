# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health daemon of a gateway: one thread that looks, judges, and writes one number for keepalived.

Runs on gateways: standard library only, needs root. Every look takes what has arrived and asks the next questions;
nothing waits for an answer. When this process ends, the score stays as it was (see the unit).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import signal
import socket
import sys
import time
import typing as t
from dataclasses import replace
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.module_utils import health_report as reports
from ansible_collections.spokewright.fleet.plugins.module_utils.health_config import (
    FAULT,
    Config,
    HealthConfigError,
    parse,
)
from ansible_collections.spokewright.fleet.plugins.module_utils.health_keepalived import KeepalivedWatch
from ansible_collections.spokewright.fleet.plugins.module_utils.health_network import carrier, own_addresses
from ansible_collections.spokewright.fleet.plugins.module_utils.health_rival import RivalWatch
from ansible_collections.spokewright.fleet.plugins.module_utils.health_rules import (
    Hold,
    Role,
    Score,
    Verdict,
    hold,
    judge,
    role,
    weigh,
)
from ansible_collections.spokewright.fleet.plugins.module_utils.health_storm_watch import StormWatch
from ansible_collections.spokewright.fleet.plugins.module_utils.health_watch import (
    InstanceWatch,
    NetworkWatch,
    RoutingWatch,
    Watch,
    subjects,
)

REPORT_SECONDS = 4.0
# How soon a request to give the addresses away is seen between two turns.
OBEY_SECONDS = 0.05


class Daemon:
    """Looks every interval. ``run`` returns after SIGTERM."""

    def __init__(self, *, config: Config, log: t.Callable[[int, str], None]) -> None:
        self._config, self._log = config, log
        self._directory = Path(config.directory)
        self._subjects = subjects(config=config)
        self._instances = [
            InstanceWatch(instance=one, cure_pause=config.cure_pause, log=log) for one in config.instances
        ]
        self._watches: list[Watch] = [
            *(NetworkWatch(network=network, number=number) for number, network in enumerate(config.networks)),
            *self._instances,
        ]
        if config.routing:
            self._watches.append(RoutingWatch(sockets=config.routing))
        self._keepalived: KeepalivedWatch | None = None
        self._rival: RivalWatch | None = None
        # Both go by the lease: without it nothing says how often keepalived moves, and a frozen one answers for ever.
        if config.lease_seconds:
            self._keepalived = KeepalivedWatch(seconds=config.lease_seconds, cure_pause=config.cure_pause, log=log)
            self._rival = RivalWatch(config=config)
            self._watches += [self._keepalived, self._rival]
        # No watch like the others: it says nothing that is weighed.
        self._storm = StormWatch(config=config)
        self._verdicts: dict[str, Verdict] = {}
        self._since: dict[str, float] = {}
        self._hold: Hold | None = None
        self._report: reports.Report | None = None
        self._stopping = False
        self._remember(now=time.monotonic(), wall=time.time())

    def _remember(self, *, now: float, wall: float) -> None:
        """What an earlier daemon found bad must prove itself: a restart is no reason to move the addresses."""
        known = reports.bad_checks(text=_read(self._directory / "health.json") or "")
        for watch in self._watches:
            for name in watch.checks:
                bad = name in known
                self._since[name] = known.get(name, wall)
                since = now - max(0.0, wall - self._since[name])
                self._verdicts[name] = Verdict(well=False if bad else None, since=since, falls=(since,) if bad else ())

    def stop(self) -> None:
        """Let the loop end after this turn."""
        self._stopping = True

    def run(self) -> None:
        """Look every interval, until told to stop."""
        interval = self._config.interval
        due = time.monotonic()
        with selectors.DefaultSelector() as selector:
            while not self._stopping:
                self._listen(selector)
                for key, _events in selector.select(max(0.0, min(due - time.monotonic(), OBEY_SECONDS))):
                    key.data()
                now = time.monotonic()
                if now < due:
                    self._obey(now=now)
                    continue
                late = now - due > interval
                self.look(now=now, late=late)
                due = now + interval if late else due + interval

    def _listen(self, selector: selectors.BaseSelector) -> None:
        sources = [source for watch in self._watches for source in watch.sources()] + self._storm.sources()
        wanted = {number: call for number, call in sources if number >= 0}
        for key in list(selector.get_map().values()):
            # The number of a closed descriptor may by now be another one's.
            selector.unregister(key.fd)
        for number, call in wanted.items():
            selector.register(number, selectors.EVENT_READ, call)

    def look(self, *, now: float, late: bool) -> None:
        """One turn: take in, judge, write, ask again."""
        wall = time.time()
        self._follow_hold(now=now, wall=wall)
        state = self._role()
        if self._rival:
            self._rival.meet(owner=state == "owner", now=now, late=late)
        details: dict[str, str] = {}
        for watch in self._watches:
            for seen in watch.look(now=now, late=late):
                before = self._verdicts[seen.name]
                after = judge(
                    before=before, good=seen.good, now=now, interval=self._config.interval, owner=state == "owner"
                )
                if after.bad != before.bad:
                    self._since[seen.name] = wall
                self._verdicts[seen.name] = after
                details[seen.name] = seen.detail
        score = weigh(
            subjects=self._subjects,
            verdicts=self._verdicts,
            now=now,
            floor=self._config.floor,
            owner=state == "owner",
        )
        away = self._gives_away()
        if self._decided():
            self._write_score(value=FAULT if away else score.told)
        # After the score, which nobody waits for longer than need be.
        self._storm.look(now=now, wall=wall)
        value = FAULT if away else score.value
        self._tell(wall=wall, value=value, score=score, state=state, details=details)

    def _decided(self) -> bool:
        """Whether every network has been seen long enough. Until then an earlier score stands."""
        names = [name for watch in self._watches if isinstance(watch, NetworkWatch) for name in watch.checks]
        return self._gives_away() or all(self._verdicts[name].well is not None for name in names)

    def _gives_away(self) -> bool:
        """Whether this gateway must not have the addresses, however well it is."""
        return self._hold is not None or (self._rival is not None and self._rival.yielding)

    def _role(self) -> Role:
        try:
            here = own_addresses()
        except OSError:
            return "unknown"
        held = sum((vip.interface, vip.address) in here for vip in self._config.vips)
        cut = any(network.tracked and not carrier(interface=network.interface) for network in self._config.networks)
        return role(held=held, vips=len(self._config.vips), fault=cut or self._gives_away())

    def _follow_hold(self, *, now: float, wall: float) -> None:
        path = self._directory / "hold"
        text = _read(path)
        self._hold = hold(before=self._hold, text=text, wall=wall, now=now)
        if text is not None and self._hold is None:
            path.unlink(missing_ok=True)

    def _obey(self, *, now: float) -> None:
        """A request to give the addresses away is followed at once; all else has time until the next turn."""
        if self._hold is None and (self._directory / "hold").exists():
            self._follow_hold(now=now, wall=time.time())
            if self._hold:
                self._write_score(value=FAULT)

    def _write_score(self, *, value: int) -> None:
        path = Path(self._config.score_file)
        # Also when it was lost, or somebody else wrote it: keepalived takes a missing file for a healthy one.
        if (_read(path) or "").strip() != str(value):
            _write(path, "%d\n" % value)

    def _tell(self, *, wall: float, value: int, score: Score, state: Role, details: t.Mapping[str, str]) -> None:
        checks = tuple(
            reports.Check(
                name=name,
                well=not verdict.bad,
                since=self._since[name],
                penalty=score.penalties.get(name, 0),
                detail=details.get(name, ""),
            )
            for name, verdict in self._verdicts.items()
        )
        cures = {watch.name: watch.cures for watch in (*self._instances, self._keepalived) if watch}
        until = self._hold.until if self._hold else None
        report = reports.Report(
            time=wall,
            score=value,
            role=state,
            hold_until=until,
            checks=checks,
            cures=cures,
            storm=self._storm.storm,
        )
        before = self._report
        for priority, line in reports.lines(before=before, after=report):
            self._log(priority, line)
        # The numbers of a storm change all the time, and have time.
        same = (
            before is not None
            and before.storm.since == report.storm.since
            and replace(before, time=wall, storm=report.storm) == report
        )
        if before is None or not same or not 0 <= wall - before.time < REPORT_SECONDS:
            _write(self._directory / "health.json", reports.document(report=report))
            _write(self._directory / "health.prom", reports.metrics(report=report))
            self._report = report
            _notify("STATUS=%s" % report.summary)
        _notify("READY=1\nWATCHDOG=1")


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _write(path: Path, text: str) -> None:
    """Replace the file; whoever watches it sees the old one or the new one."""
    fresh = path.with_name(".%s.new" % path.name)
    fresh.write_text(text, encoding="utf-8")
    fresh.chmod(0o644)
    fresh.replace(path)


def _notify(text: str) -> None:
    """Tell systemd, when it is there."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as end,
        ):
            end.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)


def _log(priority: int, line: str) -> None:
    """Say one line. A journal that takes none must not stop us: the line is lost."""
    with contextlib.suppress(OSError):
        os.write(1, ("<%d>%s\n" % (priority, line)).encode())


def main(argv: t.Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Judge this gateway's health for keepalived.")
    parser.add_argument("--check", action="store_true", help="only say whether the configuration can be used")
    parser.add_argument("file", type=Path, help="the configuration")
    given = parser.parse_args(argv)
    try:
        config = parse(text=given.file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        sys.stderr.write("%s: %s\n" % (given.file, exc))
        return 1
    except HealthConfigError as exc:
        sys.stderr.write("".join("%s: %s\n" % (given.file, line) for line in str(exc).splitlines()))
        return 1
    if given.check:
        return 0
    os.set_blocking(1, False)
    daemon = Daemon(config=config, log=_log)
    signal.signal(signal.SIGTERM, lambda _number, _frame: daemon.stop())
    daemon.run()
    return 0
