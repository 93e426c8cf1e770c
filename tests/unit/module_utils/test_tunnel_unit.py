# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import socket
import threading
import typing as t

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils.tunnel_unit import (
    DROP_IN,
    Paths,
    UnitError,
    UnitState,
    bring_up,
    look,
    needed,
    retire,
    strangers,
)

if t.TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Systemd:
    """Answers as systemctl does and keeps what it was asked."""

    def __init__(self, **shown: str) -> None:
        self.shown = {"ActiveState": "active", "MainPID": "0", "UnitFileState": "enabled", "NeedDaemonReload": "no"}
        self.shown |= shown
        self.asked: list[str] = []
        self.restart_fails = False

    def __call__(self, argv: Sequence[str]) -> tuple[int, str, str]:
        self.asked.append(" ".join(argv))
        if argv[1] == "show":
            return 0, "".join(f"{name}={value}\n" for name, value in self.shown.items()), ""
        if argv[1] == "restart" and self.restart_fails:
            return 1, "", "Job failed"
        return 0, "Cannot load certificate\n" if argv[0] == "journalctl" else "", ""


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(config=tmp_path / "config", units=tmp_path / "units", run=tmp_path / "run")
    for name in ("tun0", "tun1"):
        config, drop_in = found.files(name=name)
        (found.config / name / "ccd").mkdir(parents=True)
        drop_in.parent.mkdir(parents=True)
        config.write_text("port 1194\n", encoding="utf-8")
        drop_in.write_text("[Service]\n", encoding="utf-8")
    found.run.mkdir()
    return found


def record(paths: Paths, name: str) -> None:
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}\n" for path in paths.files(name=name)]
    (paths.run / f"{name}.started").write_text("".join(lines), encoding="utf-8")


def action(paths: Paths, systemd: Systemd, *, will_change: bool = False) -> str:
    return needed(state=look(name="tun0", run=systemd, paths=paths), will_change=will_change)


def test_a_daemon_started_with_what_is_on_disk_is_left_alone(paths: Paths) -> None:
    record(paths, "tun0")
    assert action(paths, Systemd()) == "none"


def test_a_changed_configuration_asks_for_a_restart_until_it_has_happened(paths: Paths) -> None:
    record(paths, "tun0")
    paths.files(name="tun0")[0].write_text("port 1195\n", encoding="utf-8")
    # A run that broke off here did not restart; the next one still sees it.
    assert [action(paths, Systemd()), action(paths, Systemd())] == ["restart", "restart"]
    record(paths, "tun0")
    assert action(paths, Systemd()) == "none"


def test_a_changed_drop_in_asks_for_a_restart(paths: Paths) -> None:
    record(paths, "tun0")
    paths.files(name="tun0")[1].write_text("[Service]\nCPUAffinity=1\n", encoding="utf-8")
    assert action(paths, Systemd()) == "restart"


def test_sites_crl_and_refused_keys_ask_for_nothing(paths: Paths) -> None:
    record(paths, "tun0")
    (paths.config / "tun0/ccd/site-0001").write_text("ifconfig-push 10.101.0.16 255.255.0.0\n", encoding="utf-8")
    (paths.config / "crl.pem").write_text("new\n", encoding="utf-8")
    (paths.config / "denied").mkdir()
    assert action(paths, Systemd()) == "none"


def test_another_instance_s_change_asks_for_nothing_here(paths: Paths) -> None:
    record(paths, "tun0")
    paths.files(name="tun1")[0].write_text("port 4711\n", encoding="utf-8")
    assert action(paths, Systemd()) == "none"


def test_a_stopped_daemon_is_started_and_check_mode_is_told_of_a_change(paths: Paths) -> None:
    assert action(paths, Systemd(ActiveState="failed")) == "start"
    record(paths, "tun0")
    assert action(paths, Systemd(), will_change=True) == "restart"


def serve_management(path: Path, *, pid: int) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        while True:
            connection, _peer = listener.accept()
            with connection, connection.makefile("rw") as stream:
                stream.write(">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info\n")
                stream.flush()
                for line in stream:
                    answer = f"SUCCESS: pid={pid}\n" if line == "pid\n" else "1,CONNECTED,SUCCESS,10.101.0.1,,,,\nEND\n"
                    stream.write(answer)
                    stream.flush()

    threading.Thread(target=serve, daemon=True).start()


def state(name: str = "tun0", *, enabled: bool = True) -> UnitState:
    return UnitState(
        name=name,
        active=True,
        enabled=enabled,
        pid=0,
        needs_reload=False,
        started_with_these_files=False,
        binary_replaced=False,
    )


def test_a_restart_waits_for_the_answer_of_the_process_that_systemd_started(paths: Paths) -> None:
    serve_management(paths.socket(name="tun0"), pid=4711)
    systemd = Systemd(MainPID="4711")
    bring_up(state=state(enabled=False), action="restart", run=systemd, paths=paths, timeout=5)
    assert [asked for asked in systemd.asked if " show " not in asked] == [
        "systemctl enable openvpn-server@tun0.service",
        "systemctl restart openvpn-server@tun0.service",
    ]


def test_an_answer_of_another_process_is_no_answer(paths: Paths) -> None:
    serve_management(paths.socket(name="tun0"), pid=1)
    with pytest.raises(UnitError, match="answered by pid 1, but systemd started pid 4711"):
        bring_up(state=state(), action="restart", run=Systemd(MainPID="4711"), paths=paths, timeout=0.2)


def test_a_daemon_that_does_not_come_up_is_told_with_its_own_words(paths: Paths) -> None:
    systemd = Systemd()
    systemd.restart_fails = True
    with pytest.raises(UnitError) as caught:
        bring_up(state=state(), action="restart", run=systemd, paths=paths, timeout=1)
    assert "openvpn-server@tun0.service did not come up after a restart: Job failed" in str(caught.value)
    assert "Cannot load certificate" in str(caught.value)
    assert "The other instances were left alone" in str(caught.value)


def test_an_instance_that_left_the_plan_is_removed_and_others_files_stay(paths: Paths) -> None:
    foreign = paths.units / "openvpn-server@office.service.d/local.conf"
    foreign.parent.mkdir()
    foreign.write_text("", encoding="utf-8")
    assert strangers(names=["tun0"], paths=paths) == ("tun1",)
    systemd = Systemd()
    retire(name="tun1", run=systemd, paths=paths)
    assert "systemctl disable --now openvpn-server@tun1.service" in systemd.asked
    assert sorted(path.name for path in paths.config.iterdir()) == ["tun0", "tun0.conf"]
    assert sorted(path.name for path in paths.units.iterdir()) == [
        "openvpn-server@office.service.d",
        "openvpn-server@tun0.service.d",
    ]
    assert strangers(names=["tun0"], paths=paths) == ()


def test_a_drop_in_of_somebody_else_survives_the_removal(paths: Paths) -> None:
    other = paths.files(name="tun1")[1].with_name("override.conf")
    other.write_text("", encoding="utf-8")
    retire(name="tun1", run=Systemd(), paths=paths)
    assert [path.name for path in other.parent.iterdir()] == ["override.conf"] != [DROP_IN]
