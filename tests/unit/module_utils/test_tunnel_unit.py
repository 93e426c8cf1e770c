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
    Step,
    UnitError,
    UnitState,
    bring_up,
    look,
    make_room,
    needed,
    outdated,
    retire,
    strangers,
    strangers_on_ports,
)

if t.TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


MAPS = """55d0c0000000-55d0c0010000 r--p 00000000 00:2d 101 /usr/sbin/openvpn
7f0000000000-7f0000100000 r-xp 00000000 00:2d 102 /usr/lib/x86_64-linux-gnu/libssl.so.3
7f0000200000-7f0000300000 r-xp 00000000 00:2d 103 /usr/lib/x86_64-linux-gnu/liblzo2.so.2 (deleted)
7ffc00000000-7ffc00100000 rw-p 00000000 00:00 0 [stack]
7ffc00200000-7ffc00300000 rw-p 00000000 00:00 0
"""


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


def make_proc(proc: Path) -> Path:
    """A /proc in which process 4711 is tun0, process 4712 is tun1 and process 99 is somebody else's."""
    header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    rows = ((1194, 11), (1195, 12), (1300, 13), (1301, 14))
    row = "  1: 00000000:{:04X} 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 {} 2 0 0\n"
    (proc / "net").mkdir(parents=True)
    (proc / "net/udp").write_text(header + "".join(row.format(*one) for one in rows), encoding="ascii")
    for pid, program, inode in ((4711, "openvpn", 11), (4712, "openvpn", 12), (99, "named", 13)):
        (proc / str(pid) / "fd").mkdir(parents=True)
        (proc / str(pid) / "fd/5").symlink_to(f"socket:[{inode}]")
        (proc / str(pid) / "fd/6").symlink_to("/dev/null")
        (proc / str(pid) / "comm").write_text(f"{program}\n", encoding="ascii")
        (proc / str(pid) / "exe").symlink_to("/usr/sbin/openvpn")
        (proc / str(pid) / "maps").write_text(MAPS, encoding="ascii")
    return proc


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(
        config=tmp_path / "config", units=tmp_path / "units", run=tmp_path / "run", proc=make_proc(tmp_path / "proc")
    )
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


def step(paths: Paths, systemd: Systemd, *, will_change: bool = False, restart_outdated: bool = True) -> Step:
    state = look(name="tun0", run=systemd, paths=paths)
    return needed(state=state, will_change=will_change, restart_outdated=restart_outdated)


def action(paths: Paths, systemd: Systemd, *, will_change: bool = False) -> str:
    return step(paths, systemd, will_change=will_change).action


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


def test_an_upgraded_program_or_tls_library_asks_for_a_restart_when_that_is_wanted(paths: Paths) -> None:
    record(paths, "tun0")
    running = Systemd(MainPID="4711")
    assert step(paths, running).action == "none", "a library that is not TLS's does not count"

    process = paths.proc / "4711"
    (process / "maps").write_text(MAPS.replace("libssl.so.3", "libssl.so.3 (deleted)"), encoding="ascii")
    assert step(paths, running).why == "libssl.so.3 was replaced since it started"
    (process / "exe").unlink()
    (process / "exe").symlink_to("/usr/sbin/openvpn (deleted)")
    found = step(paths, running)
    assert (found.action, found.why) == ("restart", "openvpn, libssl.so.3 were replaced since it started")

    left = step(paths, running, restart_outdated=False)
    assert left.action == "none"
    assert outdated(state=left.state) == (
        "openvpn, libssl.so.3 were replaced since it started; it runs on with the old"
    )


def test_a_port_of_another_program_is_told_with_its_name_and_our_own_are_not(paths: Paths) -> None:
    def taken(**ports: int) -> list[str]:
        return strangers_on_ports(ports=ports, names=["tun0"], run=Systemd(MainPID="4711"), paths=paths)

    assert taken(tun0=1194, tun1=1400) == []
    assert taken(tun0=1300) == ["UDP port 1300 of tun0 is taken by named (pid 99)"]
    assert taken(tun0=1195) == ["UDP port 1195 of tun0 is taken by openvpn (pid 4712)"], "an openvpn that is not ours"
    assert taken(tun0=1301) == ["UDP port 1301 of tun0 is taken by the kernel"]


def test_instances_that_change_ports_with_each_other_do_not_stand_in_each_other_s_way(paths: Paths) -> None:
    for name, number in (("tun0", 1195), ("tun1", 1194)):
        paths.files(name=name)[0].write_text(f"proto udp4\nport {number}\n", encoding="ascii")
    systemd = Systemd()
    both = [
        Step(state=state("tun0", pid=4711), action="restart"),
        Step(state=state("tun1", pid=4712), action="restart"),
    ]
    make_room(steps=both, run=systemd, paths=paths)
    assert systemd.asked == [f"systemctl stop openvpn-server@tun{number}.service" for number in (0, 1)]

    systemd = Systemd()
    paths.files(name="tun0")[0].write_text("port 1194\n", encoding="ascii")
    paths.files(name="tun1")[0].write_text("port 1400\n", encoding="ascii")
    make_room(steps=both, run=systemd, paths=paths)
    assert systemd.asked == []


def test_the_first_start_by_a_run_does_not_wait_as_that_of_a_boot_does(paths: Paths) -> None:
    serve_management(paths.socket(name="tun0"), pid=4711)
    started = Step(state=state(), action="start")
    assert not paths.started_with(name="tun0").exists()
    bring_up(step=started, run=Systemd(MainPID="4711"), paths=paths, timeout=5, per_second=100)
    assert paths.started_with(name="tun0").read_text(encoding="ascii") == ""


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


def state(name: str = "tun0", *, enabled: bool = True, pid: int = 0) -> UnitState:
    return UnitState(
        name=name,
        active=True,
        enabled=enabled,
        pid=pid,
        needs_reload=False,
        started_with_these_files=False,
        replaced=(),
    )


def restart(*, enabled: bool = True) -> Step:
    return Step(state=state(enabled=enabled), action="restart")


def test_a_restart_waits_for_the_answer_of_the_process_that_systemd_started(paths: Paths) -> None:
    serve_management(paths.socket(name="tun0"), pid=4711)
    systemd = Systemd(MainPID="4711")
    bring_up(step=restart(enabled=False), run=systemd, paths=paths, timeout=5, per_second=100)
    assert [asked for asked in systemd.asked if " show " not in asked] == [
        "systemctl enable openvpn-server@tun0.service",
        "systemctl restart openvpn-server@tun0.service",
    ]


def test_an_answer_of_another_process_is_no_answer(paths: Paths) -> None:
    serve_management(paths.socket(name="tun0"), pid=1)
    with pytest.raises(UnitError, match="answered by pid 1, but systemd started pid 4711"):
        bring_up(step=restart(), run=Systemd(MainPID="4711"), paths=paths, timeout=0.2, per_second=100)


def test_a_daemon_that_does_not_come_up_is_told_with_its_own_words(paths: Paths) -> None:
    systemd = Systemd()
    systemd.restart_fails = True
    with pytest.raises(UnitError) as caught:
        bring_up(step=restart(), run=systemd, paths=paths, timeout=1, per_second=100)
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
