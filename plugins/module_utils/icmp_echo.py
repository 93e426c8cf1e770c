# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One echo request to many addresses at once (RFC 792). Runs on gateways: standard library only, needs root."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
import typing as t
from dataclasses import dataclass

ECHO_REQUEST = 8
ECHO_REPLY = 0


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of ``data``."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request(*, identifier: int, sequence: int) -> bytes:
    """The bytes of one echo request."""
    payload = b"spokewright"
    head = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, identifier, sequence)
    return struct.pack("!BBHHH", ECHO_REQUEST, 0, checksum(head + payload), identifier, sequence) + payload


@dataclass(frozen=True)
class Reply:
    """Whose question an echo reply answers."""

    identifier: int
    sequence: int


def parse_reply(*, packet: bytes) -> Reply | None:
    """Read what a raw socket received, IP header first. None when it is no echo reply."""
    head = (packet[0] & 0x0F) * 4 if packet else 0
    if len(packet) < head + 8:
        return None
    kind, _code, _sum, identifier, sequence = struct.unpack("!BBHHH", packet[head : head + 8])
    return Reply(identifier=identifier, sequence=sequence) if kind == ECHO_REPLY else None


def answering(*, addresses: t.Sequence[str], seconds: float = 1.5) -> list[str]:
    """Send each address one echo request and return those that answered within ``seconds``.

    Raises:
        OSError: no raw socket (not root).
    """
    identifier = os.getpid() & 0xFFFF
    waiting = set(addresses)
    answered: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
        icmp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for sequence, address in enumerate(addresses):
            try:
                icmp.sendto(echo_request(identifier=identifier, sequence=sequence & 0xFFFF), (address, 0))
            except OSError:
                waiting.discard(address)  # no route to it: it cannot answer
        deadline = time.monotonic() + seconds
        while waiting and (left := deadline - time.monotonic()) > 0:
            if not select.select([icmp], [], [], left)[0]:
                break
            packet, (source, _port) = icmp.recvfrom(2048)
            reply = parse_reply(packet=packet)
            if reply is not None and reply.identifier == identifier and source in waiting:
                waiting.discard(source)
                answered.append(source)
    return sorted(answered)
