# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets of a capacity trial: first packets of clients, and traffic through a tunnel of its own.

Runs on gateways, in the trial's network namespace: standard library only, needs root.
"""

from __future__ import annotations

import socket
import struct
import time
import typing as t
from pathlib import Path

ETH_P_IP = 0x0800
BATCH = 50
# IP and UDP headers included; a little less than the tunnel's MTU.
PACKET = 1300


def counters(*, device: str) -> tuple[int, int]:
    """Bytes and packets that have come in on a device of this network namespace."""
    for line in Path("/proc/net/dev").read_text(encoding="ascii").splitlines():
        name, colon, rest = line.partition(":")
        if colon and name.strip() == device:
            words = rest.split()
            return int(words[0]), int(words[1])
    return 0, 0


def datagram(*, source: str, target: str) -> bytes:
    """An IPv4 packet with UDP inside, to nobody's port."""
    length = PACKET - 20
    # Without a checksum, which UDP allows.
    udp = struct.pack("!HHHH", 9, 9, length, 0) + bytes(length - 8)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, PACKET, 0, 0x4000, 64, socket.IPPROTO_UDP, 0),
        *(socket.inet_aton(source), socket.inet_aton(target)),
    )
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp


def checksum(head: bytes) -> int:
    """The Internet checksum of a header of whole words."""
    total = sum(int(word) for word in struct.unpack("!%dH" % (len(head) // 2), head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def flood(*, device: str, beyond: str, packet: bytes, seconds: float) -> int:
    """Send a packet into a tun device again and again; bytes that came out of the other one.

    A batch waits for the one before: what fills the device's queue is lost, and would not be measured.
    """
    first, _packets = counters(device=beyond)
    arrived = first
    end = time.monotonic() + seconds
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP)) as out:
        while time.monotonic() < end:
            for _each in range(BATCH):
                try:
                    out.sendto(packet, (device, ETH_P_IP))
                except BlockingIOError:
                    break
            wanted, patience = arrived + BATCH * len(packet), time.monotonic() + 0.05
            while arrived < wanted and time.monotonic() < patience:
                time.sleep(0.0005)
                arrived, _packets = counters(device=beyond)
    return arrived - first


def knock(*, port: int, packet: bytes, times: int) -> int:
    """Send the first packet of a client again and again; how many were answered."""
    answered = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.settimeout(0.3)
        for _lap in range(0, times, BATCH):
            for _each in range(BATCH):
                out.sendto(packet, ("127.0.0.1", port))
            answered += sum(1 for _answer in _answers(out, BATCH))
    return answered


def _answers(out: socket.socket, most: int) -> t.Iterator[bytes]:
    for _each in range(most):
        try:
            yield out.recv(2048)
        except TimeoutError:
            return


def first_packet(*, start: t.Callable[[int], t.Any], seconds: float) -> bytes:
    """What a client sends first: ``start`` is given the port to start one for."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.bind(("127.0.0.1", 0))
        door.settimeout(seconds)
        start(int(door.getsockname()[1]))
        return door.recv(2048)
