# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real openvpn server: it wakes for a packet that means nothing, and says nothing of it, unless it is frozen."""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils.health_process import (
    Process,
    Question,
    empty_command,
    greeting,
    poke,
    port_in,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.module_utils.health_instance import Answer


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    port: int
    socket: str
    log: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that opens no device, so that it needs no root; else as gateways run it."""
    here = tmp_path_factory.mktemp("server")
    now = dt.datetime.now(tz=dt.UTC)
    ca = certificates.make_ca(fleet="health", key_type="p256", now=now)
    own = certificates.issue_gateway(ca=ca, name="gw1", key_type="p256", now=now)
    for name, text in {"ca": ca.certificate, "cert": own.certificate, "key": own.private_key}.items():
        (here / name).write_text(text)
        (here / name).chmod(0o600)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    log = here / "log"
    words = f"""--dev null --dev-type tun --mode server --tls-server --dh none --topology subnet --ifconfig-noexec
        --local 127.0.0.1 --port {port} --proto udp4 --ca {here}/ca --cert {here}/cert --key {here}/key
        --management {here}/socket unix --verb 3"""
    with log.open("wb") as sink:
        process = subprocess.Popen(["openvpn", *words.split()], stdout=sink, stderr=sink)
    try:
        assert wait(lambda: "Initialization Sequence Completed" in log.read_text(errors="replace")), log.read_text()
        yield Server(process=process, port=port, socket=str(here / "socket"), log=log)
    finally:
        process.kill()
        process.wait()


def wait(true: object, seconds: float = 10) -> bool:
    assert callable(true)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.01)
    return False


def answer(question: Question, seconds: float = 5) -> Answer:
    """What becomes of a question in a while."""
    end = time.monotonic() + seconds
    while (state := question.take()) == "waiting" and time.monotonic() < end:
        time.sleep(0.01)
    return state


def words_of(server: Server) -> list[str]:
    """What it has said, but for the two lines for each client of its management socket."""
    return [line for line in server.log.read_text(errors="replace").splitlines() if "MANAGEMENT: Client" not in line]


def test_a_server_greets_and_the_kernel_says_who_it_is(server: Server) -> None:
    question = greeting(path=server.socket)
    question.ask()

    assert answer(question) == "answered"
    assert question.listener == server.process.pid
    assert (question.take(), question.fileno()) == ("free", -1)


def test_it_wakes_once_for_each_meaningless_packet_and_says_nothing_of_it(server: Server) -> None:
    process = Process(server.process.pid)
    said = words_of(server)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as through:
        for _ in range(5):
            before = process.wakes()
            poke(through=through, port=server.port)
            assert wait(lambda before=before: process.wakes() != before)
    process.close()

    assert words_of(server) == said


def test_a_frozen_one_neither_wakes_nor_greets(server: Server) -> None:
    process = Process(server.process.pid)
    server.process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(0.1)
        before = process.wakes()
        question = greeting(path=server.socket)
        question.ask()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as through:
            poke(through=through, port=server.port)
        assert answer(question, seconds=0.5) == "waiting"
        assert (process.wakes(), question.listener) == (before, server.process.pid)
        assert not process.busy()
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert answer(question) == "answered"
    process.close()


def test_a_process_that_wants_to_run_or_waits_for_a_program_is_busy_and_a_stopped_one_is_not() -> None:
    with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as spins:
        process = Process(spins.pid)
        try:
            assert process.busy()
            spins.send_signal(signal.SIGSTOP)
            assert wait(lambda: not process.busy())
        finally:
            process.close()
            spins.kill()
    with subprocess.Popen(["sh", "-c", "sleep 60; :"], start_new_session=True) as waits:
        process = Process(waits.pid)
        try:
            assert wait(process.busy)
            time.sleep(0.2)
            assert process.busy()
        finally:
            process.close()
            os.killpg(waits.pid, signal.SIGKILL)
    assert not process.busy()


def test_one_whose_socket_is_held_wakes_and_greets_when_the_holder_has_gone(server: Server) -> None:
    process, question = Process(server.process.pid), greeting(path=server.socket)
    with socket.socket(socket.AF_UNIX) as holder, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as through:
        holder.connect(server.socket)
        holder.settimeout(5)
        assert holder.recv(10)
        question.ask()
        before = process.wakes()
        poke(through=through, port=server.port)
        assert wait(lambda: process.wakes() != before)
        assert question.take() == "waiting"
    assert answer(question) == "answered"
    process.close()


def test_a_socket_nobody_listens_on_is_refused(tmp_path: Path) -> None:
    question = greeting(path=str(tmp_path / "nobody"))
    question.ask()

    assert (question.take(), question.take(), question.listener) == ("refused", "free", None)


@pytest.mark.parametrize(("said", "state"), [(b"\0\0\0\0", "answered"), (b"\0\0\0\1", "refused"), (b"", "refused")])
def test_an_frr_daemon_must_say_that_nothing_went_well(said: bytes, state: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as vty:
        vty.bind(str(tmp_path / "bgpd.vty"))
        vty.listen(1)
        question = empty_command(path=str(tmp_path / "bgpd.vty"))
        question.ask()
        connection, _peer = vty.accept()
        assert connection.recv(10) == b"\0"
        with connection:
            connection.sendall(said)
        assert answer(question) == state


def test_a_process_that_has_ended_is_not_taken_for_another_and_one_can_be_ended() -> None:
    child = subprocess.Popen(["sleep", "60"])
    process = Process(child.pid)
    assert process.alive()
    assert process.wakes() is not None

    process.kill()
    assert child.wait(timeout=5) == -signal.SIGKILL
    assert not process.alive()
    assert process.wakes() is None
    process.kill()
    process.close()
    with pytest.raises(OSError, match="No such process"):
        Process(child.pid)


@pytest.mark.parametrize(
    ("text", "port"), [("dev tun0\nport 1195\n", 1195), ("lport 1200", 1200), ("# port 7\n", 1194), ("", 1194)]
)
def test_the_port_stands_in_the_configuration(text: str, port: int, tmp_path: Path) -> None:
    (tmp_path / "conf").write_text(text)

    assert port_in(configuration=str(tmp_path / "conf")) == port
    assert port_in(configuration=str(tmp_path / "none")) == 1194


def test_this_process_is_known_by_the_wakes_the_kernel_counts() -> None:
    process = Process(os.getpid())
    before = process.wakes()
    time.sleep(0.01)

    assert before is not None
    assert (process.wakes() or 0) > before
    process.close()
