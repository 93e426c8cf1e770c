# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one process that measures: probes to all sites and back, who holds each address, who answers for it.

It is started with a plan as JSON on standard input, prints a line of JSON a few times a second (how things are now),
and at SIGTERM writes all it has seen to the file the plan names. Sockets lie in the lab's namespaces, the process does
not. Echo requests are answered by the kernels of the sites, so nothing else has to run there.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faultlib import namespaces, packets

SAY_SECONDS = 0.2
SILENT_SECONDS = 0.5
LOOK_SECONDS = 0.02
BATCH, CALM_BATCH = 0.001, 0.005
ARP_SECONDS = 0.05
SOL_RAW, ICMP_FILTER = 255, 1
SO_RCVBUFFORCE = 33
RTMGRP_IPV4_IFADDR = 0x10
# What a process that was not scheduled has missed is not sent afterwards in one burst.
BEHIND_SECONDS = 0.2


@dataclass(kw_only=True)
class Stream:
    """Probes from one place to one address."""

    site: str
    direction: str
    target: str
    link: socket.socket
    sent: array.array[float] = field(default_factory=lambda: array.array("d"))
    rtt: array.array[float] = field(default_factory=lambda: array.array("d"))
    last: float = 0.0

    def due(self, now: float, *, calm: float) -> bool:
        """Whether it is worth a probe: one that answers is left in peace, one that has missed an answer is not."""
        return not self.sent or now - self.sent[-1] >= calm or now - self.last > calm + SILENT_SECONDS


class Schedule:
    """Streams whose probes are spread evenly over the interval; with `calm`, those that answer get fewer."""

    def __init__(
        self, *, streams: list[Stream], interval: float, first: int, identifier: int, calm: float = 0.0
    ) -> None:
        self.streams = streams
        self.calm = calm
        self.step = interval / max(1, len(streams))
        self.first = first
        self.identifier = identifier
        self.turn = 0
        self.due = time.monotonic()

    def send(self, now: float) -> None:
        """Send what is due."""
        if now - self.due > BEHIND_SECONDS:
            self.due = now
        while self.streams and self.due <= now:
            index = self.turn % len(self.streams)
            stream = self.streams[index]
            if stream.due(now, calm=self.calm):
                self._probe(stream, number=self.first + index)
            self.turn += 1
            self.due += self.step

    def _probe(self, stream: Stream, *, number: int) -> None:
        packet = packets.echo_request(identifier=self.identifier, stream=number, number=len(stream.sent))
        stream.sent.append(time.monotonic())
        stream.rtt.append(-1.0)
        with contextlib.suppress(OSError):
            stream.link.sendto(packet, (stream.target, 0))


class Holdings:
    """What one gateway's kernel says of the virtual addresses, over power cuts and boots."""

    def __init__(
        self, *, gateway: str, vips: set[str], poll: select.epoll, readers: dict[int, Callable[[], None]]
    ) -> None:
        self.gateway = gateway
        self.vips = vips
        self.events: list[tuple[float, str, str, bool]] = []
        self._poll = poll
        self._readers = readers
        self._link: socket.socket | None = None
        self._identity: int | None = None
        self._held: set[tuple[str, int]] = set()

    def look(self, now: float) -> None:
        """Follow the host's namespace: it goes with the power and is another one after the boot."""
        identity = namespaces.identity(self.gateway)
        if identity == self._identity:
            return
        self._leave(now)
        if identity is None:
            return
        try:
            self._link = namespaces.inside(self.gateway, self._open)
        except OSError:
            return  # half made: the next look finds it whole
        self._identity = identity
        self._link.send(packets.dump_request())
        self._poll.register(self._link.fileno(), select.EPOLLIN)
        self._readers[self._link.fileno()] = self._read

    @staticmethod
    def _open() -> socket.socket:
        link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        link.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 20)
        link.bind((0, RTMGRP_IPV4_IFADDR))
        return link

    def _leave(self, now: float) -> None:
        if self._link is not None:
            self._poll.unregister(self._link.fileno())
            del self._readers[self._link.fileno()]
            self._link.close()
        self._link, self._identity = None, None
        for address, index in sorted(self._held):
            self._note(now, address, index, there=False)

    def _read(self) -> None:
        assert self._link is not None  # noqa: S101 - a reader is registered for an open socket only
        with contextlib.suppress(BlockingIOError):
            while True:
                data = self._link.recv(1 << 17)
                now = time.monotonic()
                for one in packets.addresses(data):
                    # On the loopback device an address is used by its owner only; no neighbour sees it.
                    if one.address in self.vips and one.index != packets.LOOPBACK_INDEX:
                        self._note(now, one.address, one.index, there=one.there)

    def _note(self, now: float, address: str, index: int, *, there: bool) -> None:
        before = any(held == address for held, _index in self._held)
        (self._held.add if there else self._held.discard)((address, index))
        after = any(held == address for held, _index in self._held)
        if before != after:
            self.events.append((now, self.gateway, address, after))


class Asker:
    """Asks everybody on a network who has an address, and notes every answer."""

    def __init__(self, *, host: str, interface: str, sender: str, wanted: str, step: float) -> None:
        self.answers: list[tuple[float, str, str]] = []
        self.link = namespaces.inside(host, lambda: self._open(interface))
        mac = self.link.getsockname()[4]
        self.request = packets.arp_request(mac=mac, sender=sender, wanted=wanted)
        self.wanted = wanted
        self.step = step
        self.due = 0.0

    @staticmethod
    def _open(interface: str) -> socket.socket:
        link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(packets.ETHER_ARP))
        link.bind((interface, packets.ETHER_ARP))
        return link

    def send(self, now: float) -> None:
        """Ask when it is time."""
        if now >= self.due:
            self.due = max(self.due + self.step, now)
            with contextlib.suppress(OSError):
                self.link.send(self.request)

    def read(self) -> None:
        """Note the answers."""
        with contextlib.suppress(BlockingIOError, OSError):
            while True:
                frame = self.link.recv(2048)
                found = packets.arp_answer(frame)
                if found is not None and found[0] == self.wanted:
                    self.answers.append((time.monotonic(), *found))


class Watcher:
    """All of it, in one loop."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.identifier = os.getpid() & 0xFFFF
        self.poll = select.epoll()
        self.readers: dict[int, Callable[[], None]] = {}
        self.streams: list[Stream] = []
        self.stopped = False
        forward = [self._stream(one, "core->site") for one in plan["forward"]]
        backward = [self._stream(one, "site->core") for one in plan["backward"]]
        self.streams = forward + backward
        self.calm = plan["calm"]
        self.schedules = [
            Schedule(streams=forward, interval=plan["interval"], first=0, identifier=self.identifier, calm=self.calm),
            Schedule(
                streams=backward,
                interval=plan["back_interval"],
                first=len(forward),
                identifier=self.identifier,
                calm=self.calm,
            ),
        ]
        vips = set(plan["vips"])
        self.holdings = [
            Holdings(gateway=name, vips=vips, poll=self.poll, readers=self.readers) for name in plan["gateways"]
        ]
        self.askers = [Asker(**one, step=ARP_SECONDS) for one in plan["askers"]]
        for asker in self.askers:
            self._listen(asker.link, asker.read)
        self._said = 0

    def _listen(self, link: socket.socket, read: Callable[[], None]) -> None:
        self.poll.register(link.fileno(), select.EPOLLIN)
        self.readers[link.fileno()] = read

    def _stream(self, one: dict[str, str], direction: str) -> Stream:
        link = self._shared(one["host"], one["source"])
        return Stream(site=one["site"], direction=direction, target=one["target"], link=link)

    def _shared(self, host: str, source: str) -> socket.socket:
        """One socket for each place probes leave from."""
        if not hasattr(self, "_links"):
            self._links: dict[tuple[str, str], socket.socket] = {}
        if (host, source) not in self._links:
            link = namespaces.inside(host, lambda: self._raw(source))
            self._links[host, source] = link
            self._listen(link, lambda: self._answers(link))
        return self._links[host, source]

    @staticmethod
    def _raw(source: str) -> socket.socket:
        link = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
        link.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", ~(1 << packets.ECHO_REPLY) & 0xFFFFFFFF))
        link.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
        link.bind((source, 0))
        return link

    def _answers(self, link: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = link.recv(2048)
                found = packets.echo_reply(packet, identifier=self.identifier)
                if found is None:
                    continue
                index, number = found
                if index < len(self.streams) and number < len(self.streams[index].sent):
                    stream = self.streams[index]
                    stream.rtt[number] = time.monotonic() - stream.sent[number]
                    stream.last = max(stream.last, stream.sent[number])

    def run(self) -> None:
        """Go on until told to stop."""
        say = look = time.monotonic()
        while not self.stopped:
            now = time.monotonic()
            for schedule in self.schedules:
                schedule.send(now)
            for asker in self.askers:
                asker.send(now)
            if now >= look:
                look = now + LOOK_SECONDS
                for holding in self.holdings:
                    holding.look(now)
            if now >= say:
                say = now + SAY_SECONDS
                self._say(now)
            due = min(look, *(schedule.due for schedule in self.schedules if schedule.streams))
            wait = max(0.0, due - time.monotonic())
            with contextlib.suppress(InterruptedError):
                # Waking up for every single probe of a large fleet costs more than sending some of them together.
                for handle, _events in self.poll.poll(max(wait, CALM_BATCH if self.calm else BATCH)):
                    if handle in self.readers:
                        self.readers[handle]()

    def _say(self, now: float) -> None:
        silent = [f"{one.site} {one.direction}" for one in self.streams if one.last < now - SILENT_SECONDS - self.calm]
        events = sorted(event for holding in self.holdings for event in holding.events)
        # Events may come in late for a moment already told, so the reader gets them all; there are few.
        print(json.dumps({"now": now, "silent": silent, "events": events}), flush=True)

    def record(self) -> dict[str, Any]:
        """All that was seen."""
        return {
            "ended": time.monotonic(),
            "streams": [
                {
                    "site": one.site,
                    "direction": one.direction,
                    "sent": [round(when, 5) for when in one.sent],
                    "rtt": [round(took, 5) for took in one.rtt],
                }
                for one in self.streams
            ],
            "events": sorted(event for holding in self.holdings for event in holding.events),
            "arp": sorted(answer for asker in self.askers for answer in asker.answers),
        }


def main() -> int:
    """Measure as the plan on standard input says."""
    plan = json.load(sys.stdin)
    watcher = Watcher(plan)

    def stop(_number: int, _frame: object) -> None:
        watcher.stopped = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it decides
    with contextlib.suppress(BrokenPipeError):
        watcher.run()
    target = Path(plan["out"])
    target.write_text(json.dumps(watcher.record()), encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
