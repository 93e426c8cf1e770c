# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a path carries packets of a size in one piece. Runs on gateways: standard library only, needs root.

A network that drops what is too large says nothing, and its MTU is then known only by trying: echo requests that must
not be fragmented, of the size that is planned.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time

from ansible_collections.spokewright.fleet.plugins.module_utils.icmp_echo import ECHO_REPLY, ECHO_REQUEST, checksum

IP_HEADER = 20
SMALLEST = 68  # what every link carries (RFC 791)
# linux/in.h: set "don't fragment", and do not go by what the kernel believes of the path.
IP_MTU_DISCOVER, IP_PMTUDISC_PROBE = 10, 3
TRIES = 3


def packet(*, identifier: int, sequence: int, size: int) -> bytes:
    """An echo request that is ``size`` bytes on the wire, IP header included."""
    payload = bytes(size - IP_HEADER - 8)
    head = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, identifier, sequence)
    return struct.pack("!BBHHH", ECHO_REQUEST, 0, checksum(head + payload), identifier, sequence) + payload


def passes(*, address: str, interface: str, size: int, seconds: float = 0.5) -> bool:
    """Whether an answer comes to a request of this size; each of a few tries waits ``seconds``.

    Raises:
        OSError: no raw socket (not root), or no such interface.
    """
    identifier = os.getpid() & 0xFFFF
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
        icmp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        icmp.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        for number in range(TRIES):
            sequence = (size * TRIES + number) & 0xFFFF
            try:
                icmp.sendto(packet(identifier=identifier, sequence=sequence, size=size), (address, 0))
            except OSError:
                return False  # larger than the interface takes, or no route
            if _answered(icmp, identifier=identifier, sequence=sequence, seconds=seconds):
                return True
    return False


def _answered(icmp: socket.socket, *, identifier: int, sequence: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([icmp], [], [], left)[0]:
            return False
        data = icmp.recv(65535)
        head = (data[0] & 0x0F) * 4
        if len(data) < head + 8:
            continue
        kind, _code, _sum, got, number = struct.unpack("!BBHHH", data[head : head + 8])
        if kind == ECHO_REPLY and (got, number) == (identifier, sequence):
            return True
    return False


def carried(*, address: str, interface: str, size: int, seconds: float = 0.5) -> int:
    """The largest packet up to ``size`` that comes back from an address, 0 when nothing does."""
    if passes(address=address, interface=interface, size=size, seconds=seconds):
        return size
    if not passes(address=address, interface=interface, size=SMALLEST, seconds=seconds):
        return 0
    low, high = SMALLEST, size
    while high - low > 1:
        middle = (low + high) // 2
        if passes(address=address, interface=interface, size=middle, seconds=seconds):
            low = middle
        else:
            high = middle
    return low
