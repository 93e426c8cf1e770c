# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watch the virtual addresses and the sites while the addresses move, and give them away when told to.

Runs on both gateways at once: standard library only, needs root. It says ``ready TIME``, waits for a line, and begins.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.module_utils.icmp_echo import ECHO_REPLY, echo_request

RUN = Path("/run/spokewright")
# The health daemon writes its file at least every 5 s.
FRESH_SECONDS = 12.0
FAULT = -254
# The owner tells the sites in the moment after it gave the addresses away; what it was told to do ends after that.
TAIL_SECONDS = 2.0


@dataclass
class Echoes:
    """What came back from one address, by the time the question was sent."""

    first: float = 0.0
    last: float = 0.0
    count: int = 0
    hole: float = 0.0

    def heard(self, sent: float) -> None:
        """Take one answer."""
        if self.count and sent - self.last > self.hole:
            self.hole = sent - self.last
        self.first = self.first or sent
        self.last = max(self.last, sent)
        self.count += 1


@dataclass
class Watch:
    """What has been seen so far. ``held``: the addresses on this gateway's interfaces, the loopback not counted."""

    vips: t.Sequence[str]
    held: set[str] = field(default_factory=set)
    events: list[tuple[float, str, str]] = field(default_factory=list)
    echoes: dict[str, Echoes] = field(default_factory=dict)

    def address_line(self, line: str, *, now: float) -> None:
        """Take one line of ``ip -oneline address show`` or ``ip -oneline monitor address``."""
        words = line.split()
        gone = words[:1] == ["Deleted"]
        words = words[1:] if gone else words
        if len(words) < 4 or words[2] != "inet" or words[1] == "lo":
            return
        address = words[3].partition("/")[0]
        if address not in self.vips or (address in self.held) != gone:
            return
        (self.held.discard if gone else self.held.add)(address)
        self.events.append((now, "lost" if gone else "got", address))

    def all_answered(self) -> bool:
        """Every address has answered since the last virtual address came."""
        came = max((when for when, what, _address in self.events if what == "got"), default=0.0)
        return all(one.last > came for one in self.echoes.values())


def watch(
    *, vips: t.Sequence[str], echo: t.Sequence[str], interval: float, limit: float, lead: float, give: float = 0.0
) -> dict[str, t.Any]:
    """Watch until the addresses have moved and the sites answer, at most ``limit`` seconds.

    Args:
        vips: the virtual addresses.
        echo: tunnel addresses to send an echo request to every ``interval`` seconds.
        interval: seconds between two requests to one address.
        limit: seconds after which it ends in any case; half of it is what the addresses get to leave.
        lead: seconds of watching before the addresses are given away.
        give: this gateway gives its addresses away, and asks for that for at most so many seconds. 0: it only watches.

    Returns:
        ``{"began", "ended", "held": [address], "events": [[time, "got"|"lost", address]], "gave": {"way", "at"},
        "echoes": {address: {"first", "last", "count", "hole"}}}``
    """
    _wait_for_the_word()
    seen = Watch(vips=vips, echoes={address: Echoes() for address in echo})
    gave: dict[str, t.Any] = {}
    with _monitor() as monitor, contextlib.ExitStack() as stack:
        began = time.time()
        for line in _addresses():
            seen.address_line(line, now=began)
        seen.events.clear()
        for now in _ticks(monitor=monitor, seen=seen, interval=interval, until=time.monotonic() + limit):
            if give and not gave and now - began >= lead:
                gave = stack.enter_context(giving(seconds=give))
            if _done(seen=seen, now=now, gave=gave, give=give, patience=limit / 2):
                break
    return {
        "began": began,
        "ended": time.time(),
        "held": sorted(seen.held),
        "events": seen.events,
        "gave": gave,
        "echoes": {address: vars(one) for address, one in seen.echoes.items() if one.count},
    }


def _done(*, seen: Watch, now: float, gave: t.Mapping[str, t.Any], give: float, patience: float) -> bool:
    last = max((when for when, _what, _address in seen.events), default=now)
    if give:
        left = bool(gave) and not seen.held and now - last > TAIL_SECONDS
        return left or (bool(gave) and bool(seen.held) and now - gave["at"] > patience)
    return len(seen.held) == len(seen.vips) and now - last > 0.5 and seen.all_answered()


def _wait_for_the_word() -> None:
    sys.stdout.write("ready %.6f\n" % time.time())
    sys.stdout.flush()
    if not sys.stdin.readline():
        raise SystemExit("nobody said go")


@contextlib.contextmanager
def giving(*, seconds: float) -> t.Iterator[dict[str, t.Any]]:
    """Give the addresses away; whatever happens, the request is taken back at the end."""
    if _health_daemon_runs():
        path, text, after = RUN / "hold", "%.0f\n" % (time.time() + seconds), None
    else:
        # Nobody else writes the score then, and keepalived reads it all the same.
        path, text, after = RUN / "score", "%d\n" % FAULT, "0\n"
    _replace(path, text)
    try:
        yield {"way": path.name, "at": time.time()}
    finally:
        if after is not None:
            _replace(path, after)
        else:
            path.unlink(missing_ok=True)


def _health_daemon_runs() -> bool:
    try:
        health = json.loads((RUN / "health.json").read_text(encoding="utf-8"))
        return abs(time.time() - float(health["time"])) < FRESH_SECONDS
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _replace(path: Path, text: str) -> None:
    if path.name == "score":
        # In place: keepalived watches the file itself.
        path.write_text(text, encoding="ascii")
        return
    temporary = path.with_name(".%s.%d" % (path.name, os.getpid()))
    temporary.write_text(text, encoding="ascii")
    temporary.replace(path)


def _addresses() -> list[str]:
    # pylint: disable-next=ansible-bad-function
    done = subprocess.run(["ip", "-4", "-o", "address", "show"], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()


@contextlib.contextmanager
def _monitor() -> t.Iterator[int]:
    """The kernel's word of every address that comes or goes, line by line."""
    # pylint: disable-next=ansible-bad-function
    with subprocess.Popen(["ip", "-4", "-o", "monitor", "address"], stdout=subprocess.PIPE) as process:
        try:
            yield t.cast("t.IO[bytes]", process.stdout).fileno()
        finally:
            process.kill()


def _ticks(*, monitor: int, seen: Watch, interval: float, until: float) -> t.Iterator[float]:
    """Send, listen, and give the caller the time, again and again."""
    identifier = os.getpid() & 0xFFFF
    sent: dict[int, float] = {}
    number, due, pending = 0, time.monotonic(), b""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
        icmp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        icmp.settimeout(0.0)
        while time.monotonic() < until:
            if time.monotonic() >= due:
                number = (number + 1) & 0xFFFF
                sent[number] = time.time()
                sent.pop((number - 4096) & 0xFFFF, None)
                _send(icmp, request=echo_request(identifier=identifier, sequence=number), to=seen.echoes)
                due = max(due + interval, time.monotonic())
            watched: list[t.Any] = [icmp, monitor]
            ready = select.select(watched, [], [], max(0.0, due - time.monotonic()))[0]
            if icmp in ready:
                _receive(icmp, identifier=identifier, sent=sent, seen=seen)
            if monitor in ready:
                pending += os.read(monitor, 65536)
                *lines, pending = pending.split(b"\n")
                for line in lines:
                    seen.address_line(line.decode(errors="replace"), now=time.time())
            yield time.time()


def _send(icmp: socket.socket, *, request: bytes, to: t.Iterable[str]) -> None:
    for address in to:
        # No route to it, or no room: then it does not answer this time.
        with contextlib.suppress(OSError):
            icmp.sendto(request, (address, 0))


def _receive(icmp: socket.socket, *, identifier: int, sent: t.Mapping[int, float], seen: Watch) -> None:
    while True:
        try:
            packet, (source, _port) = icmp.recvfrom(2048)
        except (BlockingIOError, InterruptedError):
            return
        head = (packet[0] & 0x0F) * 4
        if len(packet) < head + 8 or source not in seen.echoes:
            continue
        kind, _code, _sum, got, number = struct.unpack("!BBHHH", packet[head : head + 8])
        if kind == ECHO_REPLY and got == identifier and number in sent:
            seen.echoes[source].heard(sent[number])
