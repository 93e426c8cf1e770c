# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who on a network answers for an address (RFC 826). Runs on gateways: standard library only, needs root.

An ordinary question, as any neighbour asks it: from this host's own address, to everybody. A host hears no answer of
its own, so a gateway that holds the address and hears one has found a second holder.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
import typing as t
from dataclasses import dataclass

ETH_P_ARP = 0x0806
REQUEST, REPLY = 1, 2
HEAD = "!HHBBH"
BODY = "6s4s6s4s"
BROADCAST = b"\xff" * 6


@dataclass(frozen=True)
class Question:
    """Whom to ask for what: the network's interface here, this host's address on it, the address in question."""

    interface: str
    sender: str
    address: str


def request(*, hardware: bytes, question: Question, to: bytes = BROADCAST) -> bytes:
    """The frame of one question, to everybody or to one neighbour."""
    body = struct.pack(
        HEAD + BODY,
        *(1, 0x0800, 6, 4, REQUEST),
        *(hardware, socket.inet_aton(question.sender), b"\0" * 6, socket.inet_aton(question.address)),
    )
    return to + hardware + struct.pack("!H", ETH_P_ARP) + body


def answered_by(*, frame: bytes, address: str) -> str:
    """The hardware address in an answer for ``address``, empty when the frame is anything else."""
    if len(frame) < 14 + struct.calcsize(HEAD + BODY):
        return ""
    kind, _protocol, _size, _length, operation, sender, claimed, _to, _for = struct.unpack_from(HEAD + BODY, frame, 14)
    if (kind, operation, claimed) != (1, REPLY, socket.inet_aton(address)):
        return ""
    return ":".join("%02x" % byte for byte in sender)


def who_answers(*, questions: t.Sequence[Question], seconds: float = 0.6, times: int = 2) -> dict[str, list[str]]:
    """Ask on every network at once. Returns for each address the hardware addresses that answered.

    An address is missing from the answer when its network could not be asked (no such interface, it is down).
    """
    found: dict[str, set[str]] = {}
    with contextlib.ExitStack() as stack:
        asked: dict[socket.socket, Question] = {}
        for question in questions:
            with contextlib.suppress(OSError):
                raw = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP)))
                raw.bind((question.interface, ETH_P_ARP))
                asked[raw] = question
        for _time in range(times):
            for raw, question in list(asked.items()):
                try:
                    raw.send(request(hardware=raw.getsockname()[4][:6], question=question))
                    found.setdefault(question.address, set())
                except OSError:
                    del asked[raw]
            _listen(asked=asked, found=found, until=time.monotonic() + seconds / times)
    return {address: sorted(answers) for address, answers in found.items()}


def _listen(*, asked: t.Mapping[socket.socket, Question], found: t.Mapping[str, set[str]], until: float) -> None:
    while asked and (left := until - time.monotonic()) > 0:
        for raw in select.select(list(asked), [], [], left)[0]:
            try:
                frame = raw.recv(2048)
            except OSError:
                return
            hardware = answered_by(frame=frame, address=asked[raw].address)
            if hardware:
                found[asked[raw].address].add(hardware)
