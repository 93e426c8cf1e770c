# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the health daemon sees of networks: carrier, this host's addresses, echo replies. Nothing here waits.

Runs on gateways: standard library only, needs root.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import typing as t

from ansible_collections.spokewright.fleet.plugins.module_utils.icmp_echo import ECHO_REPLY, echo_request, parse_reply

_SIOCGIFFLAGS = 0x8913
_UP_AND_RUNNING = 0x1 | 0x40
_SOL_RAW, _ICMP_FILTER = 255, 1

_RTM_NEWADDR, _RTM_GETADDR, _NLMSG_DONE, _NLMSG_ERROR = 20, 22, 3, 2
_REQUEST_DUMP = 0x301
_IFA_LOCAL = 2


def carrier(*, interface: str) -> bool:
    """Whether the interface is there, up, and has carrier. A tun device has it while a daemon holds it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        question = struct.pack("16s24x", interface.encode()[:15])
        try:
            answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, question)
        except OSError:
            return False
    (flags,) = struct.unpack_from("H", answer, 16)
    return bool(flags & _UP_AND_RUNNING == _UP_AND_RUNNING)


def own_addresses() -> frozenset[tuple[str, str]]:
    """The IPv4 addresses of this host, each as (interface, address).

    Raises:
        OSError: the kernel did not answer.
    """
    request = struct.pack("=IHHIIBBBBI", 24, _RTM_GETADDR, _REQUEST_DUMP, 1, 0, socket.AF_INET, 0, 0, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE) as kernel:
        kernel.sendto(request, (0, 0))
        found: list[tuple[str, str]] = []
        while True:
            more, done = parse_addresses(data=kernel.recv(65536))
            for index, address in more:
                with contextlib.suppress(OSError):  # the interface has just gone
                    found.append((socket.if_indextoname(index), address))
            if done:
                return frozenset(found)


def parse_addresses(*, data: bytes) -> tuple[list[tuple[int, str]], bool]:
    """Read netlink messages: (interface index, address) of each, and whether that was the last."""
    found: list[tuple[int, str]] = []
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        if kind in {_NLMSG_DONE, _NLMSG_ERROR}:
            return found, True
        if kind == _RTM_NEWADDR:
            (index,) = struct.unpack_from("=I", data, 20)
            found += [
                (index, socket.inet_ntoa(value)) for name, value in _attributes(data[24:length]) if name == _IFA_LOCAL
            ]
        data = data[max(16, (length + 3) & ~3) :]
    return found, False


def _attributes(data: bytes) -> t.Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, name = struct.unpack_from("=HH", data)
        yield name, data[4:length]
        data = data[max(4, (length + 3) & ~3) :]


class Pinger:
    """Echo requests out of one interface, and which addresses answered since the last look.

    A reply counts for the look in which it arrives, as long as its request is one of the last few: a path that is slow
    is not dead.
    """

    def __init__(
        self, *, interface: str, source: str, identifier: int, addresses: t.Sequence[str], window: int
    ) -> None:
        self._interface, self._source, self._identifier = interface, source, identifier
        self._addresses, self._window = addresses, window
        self._sequence = 0
        self._answered: set[str] = set()
        self._socket: socket.socket | None = None

    def fileno(self) -> int:
        """The socket to wait for, or -1."""
        return self._socket.fileno() if self._socket else -1

    def close(self) -> None:
        """Give the socket back."""
        if self._socket:
            self._socket.close()
        self._socket = None

    def answered(self) -> set[str]:
        """Which addresses have answered since this was last called."""
        self.receive()
        found, self._answered = self._answered, set()
        return found

    def receive(self) -> None:
        """Take in what has arrived."""
        while self._socket:
            try:
                packet, (source, _port) = self._socket.recvfrom(2048)
            except BlockingIOError:
                return
            except OSError:
                # "Host unreachable" and the like are reported here; it says no more than silence does.
                continue
            reply = parse_reply(packet=packet)
            if reply is None or reply.identifier != self._identifier or source not in self._addresses:
                continue
            if (self._sequence - reply.sequence) & 0xFFFF < self._window:
                self._answered.add(source)

    def send(self) -> None:
        """Ask every address once. An interface that is gone, or comes back, gets a new socket."""
        self._sequence = (self._sequence + 1) & 0xFFFF
        packet = echo_request(identifier=self._identifier, sequence=self._sequence)
        for address in self._addresses:
            try:
                self._open().sendto(packet, (address, 0))
            except OSError:
                self.close()

    def _open(self) -> socket.socket:
        if self._socket is None:
            made = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
            self._socket = made
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode())
            made.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~(1 << ECHO_REPLY) & 0xFFFFFFFF))
            made.bind((self._source, 0))
        return self._socket
