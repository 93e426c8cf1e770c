# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E501 - lines as they were recorded
"""When the health daemon speaks of a storm, and when not: with what a real OpenVPN wrote, and by stories of a fleet."""

from __future__ import annotations

import os
import random
import typing as t
from dataclasses import replace

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils import health_storm_watch as watching
from ansible_collections.spokewright.fleet.plugins.module_utils.health_config import Instance
from ansible_collections.spokewright.fleet.plugins.module_utils.health_report import NOTICE, WARNING, Report
from ansible_collections.spokewright.fleet.plugins.module_utils.health_report import lines as report_lines
from ansible_collections.spokewright.fleet.plugins.module_utils.health_storm import (
    HELD,
    Count,
    Rules,
    State,
    Storm,
    count,
    signs,
    step,
)
from ansible_collections.spokewright.fleet.plugins.module_utils.management import parse_status

if t.TYPE_CHECKING:
    from pathlib import Path

RULES = Rules(share=0.3, sessions=20, seconds=20, drops=10)
EVERY = watching.EVERY

# Recorded from OpenVPN 2.6.14: two sites, and clients that do not believe the gateway's certificate.
RECORDED = """\
TITLE\tOpenVPN 2.6.14 x86_64-pc-linux-gnu [SSL (OpenSSL)] [LZO] [LZ4] [EPOLL] [PKCS11] [MH/PKTINFO] [AEAD] [DCO]
TIME\t2026-11-27 05:25:19\t1795757119
HEADER\tCLIENT_LIST\tCommon Name\tReal Address\tVirtual Address\tVirtual IPv6 Address\tBytes Received\tBytes Sent\
\tConnected Since\tConnected Since (time_t)\tUsername\tClient ID\tPeer ID\tData Channel Cipher
CLIENT_LIST\tUNDEF\t127.0.0.1:46863\t\t\t778\t1706\t2026-11-27 05:25:15\t1795757115\tUNDEF\t7\t7\tBF-CBC
CLIENT_LIST\tUNDEF\t127.0.0.1:44422\t\t\t778\t1953\t2026-11-27 05:25:11\t1795757111\tUNDEF\t2\t2\tBF-CBC
CLIENT_LIST\tsite-0001\t127.0.0.1:59548\t10.255.0.3\t\t2801\t2407\t2026-11-27 05:25:09\t1795757109\tUNDEF\t1\t1\tAES-256-GCM
CLIENT_LIST\tUNDEF\t127.0.0.1:47823\t\t\t778\t1959\t2026-11-27 05:25:12\t1795757112\tUNDEF\t3\t3\tBF-CBC
CLIENT_LIST\tsite-0002\t127.0.0.1:48419\t10.255.0.2\t\t2801\t2407\t2026-11-27 05:25:09\t1795757109\tUNDEF\t0\t0\tAES-256-GCM
CLIENT_LIST\tUNDEF\t127.0.0.1:53533\t\t\t778\t1457\t2026-11-27 05:25:18\t1795757118\tUNDEF\t13\t13\tBF-CBC
HEADER\tROUTING_TABLE\tVirtual Address\tCommon Name\tReal Address\tLast Ref\tLast Ref (time_t)
ROUTING_TABLE\t10.255.0.3\tsite-0001\t127.0.0.1:59548\t2026-11-27 05:25:09\t1795757109
GLOBAL_STATS\tMax bcast/mcast queue length\t0
GLOBAL_STATS\tdco_enabled\t0
END
"""
# Recorded: one socket on every address, one on the loopback device at port 11195.
PROC_NET_UDP = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
   81: 00000000:B348 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 21536371 2 00000000a9c398c6 3
14532: 0100007F:2BBB 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 21534357 2 0000000099f00f2f 466
"""
RECORDED_LINES = (
    b"Connection Attempt MULTI: Connection from 127.0.0.1:39504 would exceed new connection frequency limit as controlled "
    b"by --connect-freq\n"
    b"Connection Attempt Note: --connect-freq-initial 6 10 rate limit exceeded, dropping initial handshake packets for the "
    b"next 8 seconds\n"
)


class Story:
    """What is counted every two seconds, and what became of it."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.rules, self.now, self.state = rules, 1000.0, State()
        self.storms: list[tuple[float, Storm]] = []

    def go(self, seconds: float, counted: Count) -> Story:
        for _each in range(round(seconds / EVERY)):
            self.now += EVERY
            before = self.state.storm.since
            self.state = step(
                before=self.state,
                counted=replace(counted, span=EVERY),
                rules=self.rules,
                now=self.now,
                wall=1795757000 + self.now,
            )
            if (before is None) != (self.state.storm.since is None):
                self.storms.append((self.now - 1000.0, self.state.storm))
        return self


UP = Count(sessions=400)
ALL_HALF_OPEN = Count(sessions=400, half_open=380, young=100)


def test_half_open_and_young_sessions_are_counted_in_what_a_daemon_wrote() -> None:
    status = parse_status(lines=RECORDED.splitlines())

    # Those that began at 15 and 18 are less than 5 s old at 19.
    assert count(clients=status.clients, now=status.time) == Count(sessions=6, half_open=4, young=2)


def test_drops_are_those_of_the_instances_sockets() -> None:
    assert watching.drops(text=PROC_NET_UDP, ports={11195}) == {11195: 466}
    assert watching.drops(text="", ports={11195}) == {}
    assert watching.drops(text="head\ngarbage\n", ports={11195}) == {}


@pytest.mark.parametrize(
    ("counted", "names"),
    [
        (UP, []),
        (Count(sessions=400, half_open=119), []),
        (Count(sessions=400, half_open=120), ["half open"]),
        # A share of a few says nothing.
        (Count(sessions=10, half_open=10, young=10), []),
        (Count(sessions=400, young=200), ["handshakes"]),
        (Count(sessions=400, drops=19, span=2.0), []),
        (Count(sessions=400, drops=20, span=2.0), ["drops"]),
        (Count(sessions=400, limited=50), []),
        (Count(sessions=400, young=19, half_open=19, limited=1), []),
        (Count(sessions=400, young=20, limited=1), ["limited"]),
        (Count(sessions=400, half_open=20, limited=1), ["limited"]),
        (Count(sessions=400, drops=20, span=2.0, limited=1), ["drops", "limited"]),
    ],
)
def test_signs(counted: Count, names: list[str]) -> None:
    assert sorted(signs(counted=counted, rules=RULES)) == names


def test_a_storm_is_told_once_and_so_is_its_end() -> None:
    story = Story().go(60, UP).go(120, ALL_HALF_OPEN).go(120, UP)

    (begun, storm), (ended, after) = story.storms
    assert 60 + RULES.seconds <= begun <= 60 + RULES.seconds + 2 * EVERY
    assert storm.signs == ("380 of 400 sessions are half open",)
    assert 180 + RULES.seconds <= ended <= 180 + RULES.seconds + HELD + 2 * EVERY
    assert (after.since, after.half_open_peak) == (None, 380)


@pytest.mark.parametrize(
    ("story", "what"),
    [
        # Of 400 sites 100 are on the instance; they are back within 9 s, the file is 10 s old at most.
        (lambda: Story().go(60, UP).go(9, Count(sessions=400, half_open=100)).go(60, UP), "a restart of one instance"),
        (
            lambda: Story().go(60, Count()).go(8, Count(sessions=400, half_open=200, young=400)).go(60, UP),
            "a switchover",
        ),
        (lambda: Story().go(300, Count(sessions=6, half_open=6, young=6)), "a fleet of six with a wrong key"),
        (lambda: Story().go(60, UP).go(2, Count(sessions=400, drops=5000)).go(60, UP), "one burst of drops"),
        (lambda: Story().go(60, UP).go(2, Count(sessions=400, limited=3)).go(60, UP), "the limiter once"),
        (lambda: Story().go(600, Count(sessions=400, half_open=30)), "revoked sites that try for ever"),
        (lambda: Story().go(600, Count(sessions=400, limited=9)), "a flood that only the limits see"),
    ],
)
def test_no_false_alarm(story: t.Callable[[], Story], what: str) -> None:
    assert story().storms == [], what


@pytest.mark.parametrize("seconds", [0.5, 3.0, 8.0])
@pytest.mark.parametrize("instances", [1, 2, 4, 16])
def test_sites_that_come_back_in_time_are_no_storm_whenever_the_daemons_write(instances: int, seconds: float) -> None:
    """Each daemon writes every 10 or 11 s in its own rhythm, so what was over long ago is seen at different moments."""
    chance = random.Random(instances)  # noqa: S311 - no secret
    for _try in range(40):
        rhythms = [(chance.uniform(0, 10), chance.choice((10, 11))) for _each in range(instances)]
        story = Story()
        begun = 50 + chance.uniform(0, 11)
        back = [begun + seconds * number * instances / 400 for number in range(400 // instances)]
        for turn in range(75):
            now = turn * EVERY
            seen = Count()
            for first, every in rhythms:
                written = first + every * ((now - first) // every)
                there = [when for when in back if when <= written]
                young, half_open = (sum(when > written - age for when in there) for age in (5, 2))
                before = written < begun - 6
                seen += Count(sessions=len(back)) if before else Count(len(there), half_open, young)
            story.go(EVERY, seen)

        assert story.storms == [], (rhythms, begun)


def test_bursts_two_to_eight_seconds_apart_are_one_storm() -> None:
    story = Story()
    for pause in (2, 4, 8, 8, 8):
        story.go(EVERY, Count(sessions=400, drops=300)).go(pause - EVERY, UP)

    assert [storm.since is not None for _when, storm in story.storms] == [True]
    assert story.state.storm.drops == 1500


def test_a_limiter_that_lets_few_in_at_a_time_is_a_storm() -> None:
    story = Story()
    for _period in range(4):
        story.go(EVERY, Count(sessions=400, young=25, limited=1)).go(10 - EVERY, UP)

    ((_when, storm), *_rest) = story.storms
    assert storm.signs == ("the limits of the daemons refuse handshakes",)


def test_the_journal_gets_one_line_at_the_begin_and_one_at_the_end() -> None:
    def report(storm: Storm) -> Report:
        return Report(time=1795757200.0, score=0, role="owner", hold_until=None, checks=(), storm=storm)

    quiet, storm = report(Storm()), Storm(since=1795757100.0, signs=("drops",), sessions=400, half_open=380)
    begun = report_lines(before=quiet, after=report(storm))
    more = report_lines(before=report(storm), after=report(replace(storm, half_open=390)))
    over = report_lines(before=report(storm), after=report(Storm(sessions=400, half_open_peak=390)))

    ((begun_weight, begun_line),), ((over_weight, over_line),) = begun, over
    assert (begun_weight, over_weight, more) == (WARNING, NOTICE, [])
    assert "storm=yes since=2026-11-27T05:25:00.000Z sessions=400 half_open=380" in begun_line
    assert 'command="tools/fleet hold GROUP"' in begun_line
    assert "storm=no" in over_line
    assert "seconds=100" in over_line
    assert "half_open_peak=390" in over_line


class _Config:
    storm_seconds = 20.0

    def __init__(self, folder: Path) -> None:
        (folder / "tun0.conf").write_text("port 11195\n", encoding="utf-8")
        self.instances = (
            Instance("tun0", "tun0", "/nowhere", str(folder / "tun0.conf"), str(folder / "status-tun0.log")),
        )
        self.storm_share, self.storm_sessions, self.storm_drops = 0.3, 4, 10.0


def watch_of(folder: Path, monkeypatch: pytest.MonkeyPatch, *, journalctl: str = "exit 1") -> watching.StormWatch:
    programs = folder / "bin"
    programs.mkdir()
    (programs / "journalctl").write_text(f"#!/bin/sh\n{journalctl}\n", encoding="utf-8")
    (programs / "journalctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return watching.StormWatch(config=t.cast("t.Any", _Config(folder)))


def test_a_status_file_that_goes_on_saying_so_is_a_storm_and_an_old_one_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, path = watch_of(tmp_path, monkeypatch), tmp_path / "status-tun0.log"
    wall = 1795757119.0
    for turn in range(16):
        if turn % 5 == 0:
            path.write_text(RECORDED.replace("1795757119", str(int(wall))), encoding="utf-8")
            os.utime(path, (wall, wall))
        watch.look(now=1000 + turn * EVERY, wall=wall)
        wall += EVERY

    assert watch.storm.since is not None
    assert (watch.storm.sessions, watch.storm.half_open) == (6, 4)
    watch.look(now=2000, wall=wall + watching.STALE)
    assert watch.storm.sessions == 0


@pytest.mark.parametrize("seconds", [10.0, 20.0])
def test_what_was_written_once_is_never_a_storm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(_Config, "storm_seconds", seconds)
    watch, path = watch_of(tmp_path, monkeypatch), tmp_path / "status-tun0.log"
    path.write_text(RECORDED, encoding="utf-8")
    for turn in range(30):
        watch.look(now=1000 + turn * EVERY, wall=1795757119 + turn * EVERY)
        assert watch.storm.since is None
    assert watch.storm.sessions == 0


@pytest.mark.parametrize("left", ["", RECORDED[:300], None], ids=["empty", "cut", "none"])
def test_a_daemon_that_starts_anew_has_no_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str | None
) -> None:
    watch, path = watch_of(tmp_path, monkeypatch), tmp_path / "status-tun0.log"
    path.write_text(RECORDED, encoding="utf-8")
    watch.look(now=1000, wall=1795757119)
    assert watch.storm.half_open == 4
    if left is None:
        path.unlink()
    else:
        path.write_text(left, encoding="utf-8")

    watch.look(now=1000 + EVERY, wall=1795757119 + EVERY)

    assert (watch.storm.sessions, watch.storm.half_open) == (0, 0)


def test_lines_of_the_limiters_are_counted_and_a_journalctl_that_ends_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lines").write_bytes(b"nothing\n" + RECORDED_LINES)
    (tmp_path / "status-tun0.log").write_text(RECORDED, encoding="utf-8")
    watch = watch_of(tmp_path, monkeypatch, journalctl=f'echo "$*" >{tmp_path}/asked; cat {tmp_path}/lines')
    watch.look(now=1000, wall=1795757119)
    (number, receive), *_none = watch.sources()
    assert number >= 0
    os.set_blocking(number, True)
    receive()

    watch.look(now=1000 + EVERY, wall=1795757121)

    assert watch._state.limited == 2
    assert "--unit=openvpn-server@tun0.service" in (tmp_path / "asked").read_text()
    receive()
    assert watch.sources()[0][0] == -1


def test_a_gateway_without_journalctl_is_watched_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watch_of(tmp_path, monkeypatch)
    monkeypatch.setenv("PATH", "/nowhere")

    watch.look(now=1000, wall=1795757119)

    assert watch.storm == Storm()
    assert watch.sources()[0][0] == -1
