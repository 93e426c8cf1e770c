# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few packets the watcher sends and reads: ICMP echo, ARP, and the kernel's word on addresses. Pure."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

ECHO_REQUEST = 8
ECHO_REPLY = 0
MAGIC = 0x5B0C
ARP_REQUEST, ARP_REPLY = 1, 2
ETHER_ARP = 0x0806
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
IFA_ADDRESS, IFA_LOCAL = 1, 2
LOOPBACK_INDEX = 1

_ECHO = struct.Struct("!BBHHHHHI")


def echo_request(*, identifier: int, stream: int, number: int) -> bytes:
    """One probe: which stream it belongs to and its number there."""
    total = 0x0800 + identifier + MAGIC + stream + (number >> 16) + (number & 0xFFFF)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return _ECHO.pack(ECHO_REQUEST, 0, ~total & 0xFFFF, identifier, 0, MAGIC, stream, number)


def echo_reply(packet: bytes, *, identifier: int) -> tuple[int, int] | None:
    """Stream and number out of an IP packet, when it answers one of our probes."""
    head = (packet[0] & 0x0F) * 4
    if len(packet) < head + _ECHO.size:
        return None
    kind, _code, _sum, got, _zero, magic, stream, number = _ECHO.unpack_from(packet, head)
    if kind != ECHO_REPLY or got != identifier or magic != MAGIC:
        return None
    return stream, number


def arp_request(*, mac: bytes, sender: str, wanted: str) -> bytes:
    """Who has this address? Asked of everybody."""
    ether = b"\xff" * 6 + mac + struct.pack("!H", ETHER_ARP)
    return (
        ether
        + struct.pack("!HHBBH", 1, 0x0800, 6, 4, ARP_REQUEST)
        + mac
        + socket.inet_aton(sender)
        + b"\0" * 6
        + socket.inet_aton(wanted)
    )


def arp_answer(frame: bytes) -> tuple[str, str] | None:
    """Address and MAC out of an ARP reply."""
    if len(frame) < 42 or struct.unpack_from("!H", frame, 12)[0] != ETHER_ARP:
        return None
    if struct.unpack_from("!H", frame, 20)[0] != ARP_REPLY:
        return None
    return socket.inet_ntoa(frame[28:32]), frame[22:28].hex(":")


@dataclass(frozen=True, kw_only=True)
class Address:
    """An IPv4 address that an interface got or lost."""

    address: str
    prefix: int
    index: int
    there: bool


def dump_request() -> bytes:
    """Ask for all IPv4 addresses."""
    body = struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0)
    request, dump = 0x1, 0x300
    return struct.pack("=IHHII", 16 + len(body), RTM_GETADDR, request | dump, 1, 0) + body


def addresses(data: bytes) -> list[Address]:
    """Every address message in what a route socket received."""
    found: list[Address] = []
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < 16:
            break
        if kind in {RTM_NEWADDR, RTM_DELADDR} and length >= 24:
            one = _address(data[offset + 16 : offset + length], there=kind == RTM_NEWADDR)
            if one is not None:
                found.append(one)
        offset += (length + 3) & ~3
    return found


def _address(body: bytes, *, there: bool) -> Address | None:
    family, prefix, _flags, _scope, index = struct.unpack_from("=BBBBI", body)
    if family != socket.AF_INET:
        return None
    values: dict[int, bytes] = {}
    offset = 8
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if length < 4:
            break
        values[kind] = body[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    raw = values.get(IFA_LOCAL) or values.get(IFA_ADDRESS)
    if raw is None or len(raw) != 4:
        return None
    return Address(address=socket.inet_ntoa(raw), prefix=prefix, index=index, there=there)
