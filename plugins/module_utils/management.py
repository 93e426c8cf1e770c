# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Speak to an OpenVPN daemon over its management socket.

Runs on gateways: standard library only. Source of the protocol: OpenVPN's management-notes.txt; the columns of
``status 3`` are mapped by its HEADER lines, because OpenVPN says that future versions may extend them.
"""

from __future__ import annotations

import socket
import typing as t
from dataclasses import dataclass

GREETING = ">INFO:OpenVPN Management Interface"
UNDEF = "UNDEF"


class ManagementError(Exception):
    """The daemon did not answer as a living OpenVPN daemon does."""


@dataclass(frozen=True)
class Client:
    """One row of CLIENT_LIST. Times are Unix seconds, counters are bytes since the session began.

    ``common_name`` is ``UNDEF`` while the handshake runs. ``real_address`` is the peer's ADDRESS:PORT without the
    protocol prefix that OpenVPN 2.7 puts in front.
    """

    common_name: str
    real_address: str
    virtual_address: str
    client_id: int
    connected_since: int
    bytes_received: int
    bytes_sent: int
    cipher: str


@dataclass(frozen=True)
class Status:
    """What ``status 3`` said. ``time`` is the daemon's own clock, in Unix seconds."""

    version: str
    time: int
    clients: tuple[Client, ...]


def parse_status(*, lines: t.Sequence[str]) -> Status:
    """Parse the answer to ``status 3``.

    Raises:
        ManagementError: the answer has no CLIENT_LIST header.
    """
    columns: dict[str, int] = {}
    clients: list[Client] = []
    version, now = "", 0
    for line in lines:
        fields = line.split("\t")
        if fields[0] == "TITLE":
            version = fields[1]
        elif fields[0] == "TIME":
            now = int(fields[2])
        elif fields[:2] == ["HEADER", "CLIENT_LIST"]:
            columns = {name: index for index, name in enumerate(fields[1:])}
        elif fields[0] == "CLIENT_LIST":
            clients.append(_client(columns=columns, fields=fields))
    if not columns:
        raise ManagementError("the answer to 'status 3' has no 'HEADER CLIENT_LIST' line")
    return Status(version=version, time=now, clients=tuple(clients))


def _client(*, columns: dict[str, int], fields: t.Sequence[str]) -> Client:
    def text(name: str) -> str:
        index = columns.get(name, len(fields))
        return fields[index] if index < len(fields) else ""

    def number(name: str) -> int:
        return int(text(name) or 0)

    return Client(
        common_name=text("Common Name"),
        real_address=_without_protocol(text("Real Address")),
        virtual_address=text("Virtual Address"),
        client_id=number("Client ID"),
        connected_since=number("Connected Since (time_t)"),
        bytes_received=number("Bytes Received"),
        bytes_sent=number("Bytes Sent"),
        cipher=text("Data Channel Cipher"),
    )


def _without_protocol(address: str) -> str:
    head, colon, rest = address.partition(":")
    return rest if colon and head.startswith(("udp", "tcp")) else address


class Management:
    """A short conversation with one daemon.

    A daemon serves one management client at a time; a second one gets no greeting until the first has gone. So
    connect, ask, leave: never hold the socket.

    Raises:
        ManagementError: no socket, no greeting within ``timeout`` seconds, or an ERROR answer.
    """

    def __init__(self, socket_path: str, timeout: float = 3.0) -> None:
        self._path = socket_path
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(socket_path)
            greeting = self._line()
        except OSError as exc:
            self._socket.close()
            raise ManagementError("%s: no answer from the daemon: %s" % (socket_path, exc)) from exc
        if not greeting.startswith(GREETING):
            self._socket.close()
            raise ManagementError("%s: not an OpenVPN management greeting: %r" % (socket_path, greeting[:80]))

    def __enter__(self) -> t.Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._socket.close()

    def command(self, text: str) -> list[str]:
        """Send one command and return its answer: the lines before END, or the one SUCCESS line's text.

        Lines that the daemon sends of its own accord (they start with ``>``) are passed over.
        """
        try:
            self._socket.sendall(text.encode() + b"\n")
            answer: list[str] = []
            while True:
                line = self._line()
                if line.startswith(">"):
                    continue
                if line.startswith("ERROR:"):
                    raise ManagementError("%s: '%s' was refused: %s" % (self._path, text, line[6:].strip()))
                if line.startswith("SUCCESS:") and not answer:
                    return [line[8:].strip()]
                if line == "END":
                    return answer
                answer.append(line)
        except OSError as exc:
            raise ManagementError("%s: '%s' was not answered: %s" % (self._path, text, exc)) from exc

    def status(self) -> Status:
        """Every client of this daemon, handshaking ones included."""
        return parse_status(lines=self.command("status 3"))

    def pid(self) -> int:
        """The daemon's process id."""
        return int(self.command("pid")[0].partition("=")[2])

    def client_kill(self, client_id: int) -> None:
        """End one session and tell the client to start anew; it is back in one to two seconds."""
        self.command("client-kill %d" % client_id)

    def _line(self) -> str:
        while b"\n" not in self._buffer:
            chunk = self._socket.recv(65536)
            if not chunk:
                raise ManagementError("%s: the daemon closed the connection" % self._path)
            self._buffer += chunk
        line, _newline, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r").decode(errors="replace")
