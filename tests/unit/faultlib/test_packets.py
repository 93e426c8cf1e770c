# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The watcher's packets."""

from __future__ import annotations

import socket
import struct

from ansible_collections.spokewright.fleet.plugins.module_utils.icmp_echo import checksum
from faultlib import packets


def as_reply(request: bytes) -> bytes:
    """An IP packet with the answer a kernel gives."""
    return b"\x45" + b"\0" * 19 + b"\0\0" + request[2:]


def test_a_probe_has_a_right_checksum_whatever_its_number() -> None:
    for number in (0, 1, 65535, 65536, 4_000_000_000):
        assert checksum(packets.echo_request(identifier=0xFFFF, stream=419, number=number)) == 0


def test_an_answer_tells_stream_and_number() -> None:
    request = packets.echo_request(identifier=7, stream=12, number=70000)

    assert packets.echo_reply(as_reply(request), identifier=7) == (12, 70000)


def test_what_is_not_an_answer_of_ours_is_passed_over() -> None:
    request = packets.echo_request(identifier=7, stream=12, number=3)

    assert packets.echo_reply(as_reply(request), identifier=8) is None
    assert packets.echo_reply(b"\x45" + b"\0" * 19 + request, identifier=7) is None, "a request"
    assert packets.echo_reply(as_reply(request)[:-1], identifier=7) is None
    assert packets.echo_reply(b"\x45" + b"\0" * 27 + b"ping of somebody", identifier=0) is None


def test_an_arp_answer_tells_address_and_mac() -> None:
    mac = bytes.fromhex("025c03ff0001")
    request = packets.arp_request(mac=mac, sender="10.200.0.10", wanted="10.200.0.1")
    answer = bytearray(request)
    struct.pack_into("!H", answer, 20, packets.ARP_REPLY)

    assert packets.arp_answer(request) is None
    assert packets.arp_answer(bytes(answer)) == ("10.200.0.10", "02:5c:03:ff:00:01")
    assert packets.arp_answer(b"short") is None


def message(kind: int, *, address: str, prefix: int = 32, index: int = 4) -> bytes:
    attribute = struct.pack("=HH", 8, packets.IFA_LOCAL) + socket.inet_aton(address)
    label = struct.pack("=HH", 9, 3) + b"fr0:x" + b"\0" * 3
    body = struct.pack("=BBBBI", socket.AF_INET, prefix, 0, 0, index) + label + attribute
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


def test_the_kernels_messages_tell_what_came_and_what_went() -> None:
    data = message(packets.RTM_NEWADDR, address="10.200.0.1") + message(packets.RTM_DELADDR, address="198.19.0.1")

    assert packets.addresses(data) == [
        packets.Address(address="10.200.0.1", prefix=32, index=4, there=True),
        packets.Address(address="198.19.0.1", prefix=32, index=4, there=False),
    ]


def test_other_messages_are_passed_over() -> None:
    done = struct.pack("=IHHII", 20, 3, 0, 1, 0) + b"\0" * 4

    assert packets.addresses(done + message(packets.RTM_NEWADDR, address="10.200.0.1"))[0].address == "10.200.0.1"
    assert packets.addresses(b"") == []
    assert packets.addresses(b"\0" * 16) == []
