# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import typing as t

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils.tunnel_drain import release, send_away

if t.TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HEADER = "HEADER\tCLIENT_LIST\tCommon Name\tReal Address\tVirtual Address\tClient ID\n"


class Daemon:
    """Answers as an OpenVPN daemon with these clients does, and keeps what it was told, in one list with nft's."""

    def __init__(self, path: Path, *clients: tuple[str, int]) -> None:
        self.told: list[str] = []
        self._rows = "".join(f"CLIENT_LIST\t{name}\t192.0.2.1:1\t10.101.0.16\t{number}\n" for name, number in clients)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        connection, _peer = listener.accept()
        with connection, connection.makefile("rw") as stream:
            print(">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info", file=stream, flush=True)
            for line in stream:
                word = line.strip()
                if word == "status 3":
                    print(f"TIME\tnow\t1\n{HEADER}{self._rows}END", file=stream, flush=True)
                    continue
                self.told.append(word)
                gone = word == "client-kill 7"
                print("ERROR: client-kill command failed" if gone else "SUCCESS: done", file=stream, flush=True)

    def run(self, argv: Sequence[str]) -> tuple[int, str, str]:
        self.told.append(" ".join(argv))
        return 0, "", ""


def test_each_live_session_is_told_at_the_rate_behind_a_closed_door_and_then_the_daemon_ends(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "s", ("site-0001", 3), ("UNDEF", 5), ("site-0002", 7), ("site-0003", 9))
    pauses: list[float] = []

    told = send_away(socket=tmp_path / "s", port=1194, per_second=10, run=daemon.run, sleep=pauses.append)

    assert told == 3
    closed, *rest = daemon.told
    assert "add element inet spokewright_restart held { 1194 timeout 15s }" in closed
    # Number 7 has left in between.
    assert rest == ["client-kill 3", "client-kill 7", "client-kill 9", "signal SIGTERM"]
    assert pauses == [0.1, 0.1, 0.1, 0.3]


def test_without_a_live_session_nothing_waits_and_no_door_is_closed(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "s", ("UNDEF", 5))
    pauses: list[float] = []

    assert send_away(socket=tmp_path / "s", port=1194, per_second=1, run=daemon.run, sleep=pauses.append) == 0
    assert (daemon.told, pauses) == (["signal SIGTERM"], [])


def test_a_daemon_that_does_not_answer_is_left_to_systemd(tmp_path: Path) -> None:
    asked: list[Sequence[str]] = []

    def run(argv: Sequence[str]) -> tuple[int, str, str]:
        asked.append(argv)
        return 0, "", ""

    assert (send_away(socket=tmp_path / "none", port=1194, per_second=1, run=run), asked) == (0, [])


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("nft"), reason="needs root and nft to load rules into a network of its own"
)
def test_the_packet_filter_takes_the_rules_and_forgets_the_port_by_itself(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "s", ("site-0001", 3))
    send_away(socket=tmp_path / "s", port=1194, per_second=1000, run=daemon.run, sleep=lambda _seconds: None)
    closed = daemon.told[0].removeprefix("nft ").replace("timeout 15s", "timeout 1s")
    release(run=daemon.run)
    opened = daemon.told[-1].removeprefix("nft ")
    script = f"""
        nft '{closed}' && nft list set inet spokewright_restart held && sleep 2 &&
        nft list set inet spokewright_restart held && nft '{opened}' && nft list tables && echo END
    """
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.stderr == ""
    assert done.stdout.count("1194") == 1, done.stdout
    assert done.stdout.endswith("}\nEND\n"), "no table of ours is left"
