# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils.management import (
    Management,
    ManagementError,
    parse_status,
)

if TYPE_CHECKING:
    from pathlib import Path

HEADER = (
    "HEADER\tCLIENT_LIST\tCommon Name\tReal Address\tVirtual Address\tVirtual IPv6 Address\tBytes Received\t"
    "Bytes Sent\tConnected Since\tConnected Since (time_t)\tUsername\tClient ID\tPeer ID\tData Channel Cipher"
)
TITLE = "TITLE\tOpenVPN 2.6.14 x86_64-pc-linux-gnu"
TIME = "TIME\t2026-11-23 14:00:00\t1795442400"
ROW_26 = (
    "CLIENT_LIST\tsite-0001\t198.19.0.2:58839\t10.101.0.16\t\t3001\t3002\t2026-11-23 13:59:00\t1795442340\tUNDEF\t"
    "7\t0\tAES-256-GCM"
)
ROW_27 = ROW_26.replace("198.19.0.2:", "udp4:198.19.0.2:")
HANDSHAKE = "CLIENT_LIST\tUNDEF\t198.19.0.9:4000\t\t\t54\t60\t2026-11-23 13:59:59\t1795442399\tUNDEF\t8\t1\tBF-CBC"


@pytest.mark.parametrize("row", [ROW_26, ROW_27], ids=["openvpn-2.6", "openvpn-2.7"])
def test_a_session_is_read_the_same_from_either_version(row: str) -> None:
    status = parse_status(lines=[TITLE, TIME, HEADER, row, "GLOBAL_STATS\tdco_enabled\t0"])

    (client,) = status.clients
    assert (client.common_name, client.real_address, client.virtual_address) == (
        "site-0001",
        "198.19.0.2:58839",
        "10.101.0.16",
    )
    assert (client.client_id, client.connected_since) == (7, 1795442340)
    assert (client.bytes_received, client.bytes_sent, client.cipher) == (3001, 3002, "AES-256-GCM")
    assert status.time == 1795442400


def test_a_username_column_of_undef_does_not_make_a_handshake() -> None:
    status = parse_status(lines=[HEADER, ROW_26, HANDSHAKE])

    assert [client.common_name for client in status.clients] == ["site-0001", "UNDEF"]


def test_columns_are_found_by_name_when_a_version_adds_some() -> None:
    header = HEADER.replace("Common Name\t", "New Column\tCommon Name\t")
    row = ROW_26.replace("CLIENT_LIST\t", "CLIENT_LIST\tx\t")

    (client,) = parse_status(lines=[header, row]).clients

    assert (client.common_name, client.client_id) == ("site-0001", 7)


def test_an_answer_without_a_header_is_refused() -> None:
    with pytest.raises(ManagementError, match="no 'HEADER CLIENT_LIST' line"):
        parse_status(lines=["END"])


def _daemon(path: Path, script: list[tuple[bytes, bytes]]) -> threading.Thread:
    """A socket that greets and then answers each expected command; what OpenVPN itself says stands in the e2e tests."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)

    def serve() -> None:
        connection, _peer = server.accept()
        with server, connection:
            connection.sendall(b">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info\r\n")
            for question, answer in script:
                assert connection.recv(1000) == question
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_lines_the_daemon_sends_of_its_own_accord_are_passed_over(tmp_path: Path) -> None:
    thread = _daemon(tmp_path / "s", [(b"pid\n", b">STATE:1,CONNECTED\r\nSUCCESS: pid=4711\r\n")])

    with Management(str(tmp_path / "s"), timeout=2) as daemon:
        assert daemon.pid() == 4711
    thread.join(2)


def test_an_error_names_the_command_and_the_daemons_words(tmp_path: Path) -> None:
    thread = _daemon(tmp_path / "s", [(b"client-kill 9\n", b"ERROR: client-kill command failed\r\n")])

    with (
        Management(str(tmp_path / "s"), timeout=2) as daemon,
        pytest.raises(ManagementError, match=r"'client-kill 9' was refused: client-kill command failed"),
    ):
        daemon.client_kill(9)
    thread.join(2)


def test_a_socket_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManagementError, match=r"nothing\.sock: no answer from the daemon"):
        Management(str(tmp_path / "nothing.sock"))


def test_a_frozen_daemon_ends_in_a_timeout(tmp_path: Path) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    server.listen(1)
    with server, pytest.raises(ManagementError, match="timed out"):
        Management(str(tmp_path / "s"), timeout=0.2)
