# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demotion push with real daemons' sockets and a real FIFO; what a host has and hears is made up."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import typing as t

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils import push_daemon as push
from ansible_collections.spokewright.fleet.plugins.module_utils.push_rules import Config

if t.TYPE_CHECKING:
    from pathlib import Path

HEADER = "HEADER\tCLIENT_LIST\tCommon Name\tReal Address\tVirtual Address\tClient ID"


class Daemon:
    """Answers on a management socket, one client at a time, as OpenVPN does."""

    def __init__(self, path: Path, clients: t.Mapping[int, str]) -> None:
        self.killed: list[int] = []
        self._clients = clients
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen(5)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            accepted, _ = self._listening.accept()
            with accepted, accepted.makefile("rw") as stream, contextlib.suppress(OSError):
                stream.write(">INFO:OpenVPN Management Interface Version 5\n")
                stream.flush()
                for line in stream:
                    stream.write(self._answer(line.strip()))
                    stream.flush()

    def _answer(self, line: str) -> str:
        if line == "status 3":
            rows = [f"CLIENT_LIST\t{name}\t192.0.2.1:1\t10.101.0.2\t{cid}" for cid, name in self._clients.items()]
            return "\n".join(["TITLE\tOpenVPN", HEADER, *rows, "END", ""])
        number = int(line.split()[1])
        if number not in self._clients:
            return "ERROR: client-kill command failed\n"
        self.killed.append(number)
        return "SUCCESS: client-kill command succeeded\n"


class Pretended(push.Gateway):
    """A gateway whose address and peer are what a test says."""

    def __init__(self, config: Config, *, has: t.Sequence[bool] = (False,), heard: bool = True) -> None:
        super().__init__(config)
        self.has, self.heard = list(has), heard
        self.loopback: list[str] = []

    def holds(self) -> bool:
        return self.has.pop(0) if len(self.has) > 1 else self.has[0]

    def hears_an_owner(self) -> bool:
        return self.heard


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        fifo=str(tmp_path / "fifo"),
        inside="10.200.0.1",
        outside=("198.19.0.1", "198.19.128.1"),
        peers=frozenset(),
        advert=0.01,
        lease=None,
        instances=("tun0", "tun1"),
        sockets=str(tmp_path),
        per_second=1000,
    )


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done to the loopback device."""
    done: list[str] = []
    monkeypatch.setattr(push, "_ip", lambda verb, vip: done.append(f"{verb} {vip}"))
    monkeypatch.setattr(push, "LINGER", 0)
    return done


ADDED_AND_REMOVED = ["add 198.19.0.1", "add 198.19.128.1", "del 198.19.0.1", "del 198.19.128.1"]


def test_all_sites_of_all_instances_are_told_and_the_loopback_device_is_as_before(
    config: Config, tmp_path: Path, loopback: list[str]
) -> None:
    first = Daemon(tmp_path / "tun0.sock", {1: "site-0001", 2: "UNDEF", 3: "site-0003"})
    second = Daemon(tmp_path / "tun1.sock", {0: "site-0002"})

    push.lost(config=config, gateway=Pretended(config))

    assert (first.killed, second.killed) == ([1, 3], [0])
    assert loopback == ADDED_AND_REMOVED


def test_nobody_is_told_while_nobody_else_has_the_addresses(
    config: Config, tmp_path: Path, loopback: list[str]
) -> None:
    daemon = Daemon(tmp_path / "tun0.sock", {1: "site-0001"})

    push.lost(config=config, gateway=Pretended(config, heard=False))

    assert (daemon.killed, loopback) == ([], [])


def test_a_gateway_that_has_them_again_tells_nobody(config: Config, tmp_path: Path, loopback: list[str]) -> None:
    daemon = Daemon(tmp_path / "tun0.sock", {1: "site-0001"})

    push.lost(config=config, gateway=Pretended(config, has=[True]))

    assert (daemon.killed, loopback) == ([], [])


def test_a_gateway_that_gets_them_back_meanwhile_stops_and_cleans_up(
    config: Config, tmp_path: Path, loopback: list[str]
) -> None:
    daemon = Daemon(tmp_path / "tun0.sock", dict.fromkeys(range(200), "site-0001"))

    push.lost(config=config, gateway=Pretended(config, has=[False, False, True]))

    assert len(daemon.killed) == 50
    assert loopback == ADDED_AND_REMOVED


def test_an_instance_that_does_not_answer_keeps_nobody_waiting(
    config: Config, tmp_path: Path, loopback: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    frozen = socket.socket(socket.AF_UNIX)
    frozen.bind(str(tmp_path / "tun0.sock"))
    frozen.listen(1)
    daemon = Daemon(tmp_path / "tun1.sock", {4: "site-0004"})

    push.lost(config=config, gateway=Pretended(config))

    assert (daemon.killed, loopback) == ([4], ADDED_AND_REMOVED)
    assert "tun0.sock: no answer" in capsys.readouterr().out


def test_without_sessions_nothing_is_touched(config: Config, tmp_path: Path, loopback: list[str]) -> None:
    Daemon(tmp_path / "tun0.sock", {})
    push.lost(config=config, gateway=Pretended(config))
    assert loopback == []


def test_a_frozen_keepaliveds_sites_are_told_from_where_the_address_still_is(
    config: Config, tmp_path: Path, loopback: list[str]
) -> None:
    daemon = Daemon(tmp_path / "tun0.sock", {1: "site-0001"})

    assert not push.froze(config=config, gateway=Pretended(config, has=[True], heard=False))
    assert daemon.killed == []
    assert push.froze(config=config, gateway=Pretended(config, has=[True]))
    assert (daemon.killed, loopback) == ([1], [])


class EnoughError(Exception):
    """The test has seen what it wanted."""


class Script:
    """A FIFO whose reports come when the test wants, and an end."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def lines(self, _seconds: float) -> list[str]:
        self.rounds -= 1
        if self.rounds < 0:
            raise EnoughError
        return []


@pytest.mark.parametrize(
    ("has", "pushes"),
    [
        ([True, True, True], 0),
        ([False, False, False], 0),
        # had, has not, and still not when it is over
        ([True, False, False, False], 1),
        # lost, back, lost again
        ([True, False, True, False, False], 2),
    ],
)
def test_each_loss_is_told_once_report_or_not(
    config: Config, monkeypatch: pytest.MonkeyPatch, has: list[bool], pushes: int
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(push, "lost", lambda **_given: seen.append(1))

    with pytest.raises(EnoughError):
        push.watch(config=config, gateway=Pretended(config, has=has), fifo=t.cast("push.Fifo", Script(3)))

    assert len(seen) == pushes


def test_a_fifo_that_is_made_anew_is_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    fifo = push.Fifo(str(path))
    assert fifo.lines(0) == []

    def report(text: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        os.write(descriptor, text.encode())
        # The reader holds the other end, so what was written stays.
        os.close(descriptor)

    report("GROUP G MAS")
    assert fifo.lines(0) == []
    report("TER 0\nINSTANCE IN MASTER 1\n")
    assert fifo.lines(0) == ["GROUP G MASTER 0", "INSTANCE IN MASTER 1"]

    path.unlink()
    assert fifo.lines(0) == []
    report("GROUP G BACKUP 0\n")
    assert fifo.lines(0) == ["GROUP G BACKUP 0"]


def test_a_configuration_that_is_missing_ends_it_with_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert push.main(["/nonexistent/push.json"]) == os.EX_CONFIG
    assert "/nonexistent/push.json" in capsys.readouterr().out
