# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the health daemon watches: networks, tunnel instances, routing. Each takes one look, and asks the next question.

Runs on gateways: standard library only, needs root. Nothing here waits.
"""

from __future__ import annotations

import os
import socket
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.module_utils.health_instance import Instance, Look, step
from ansible_collections.spokewright.fleet.plugins.module_utils.health_network import Pinger, carrier
from ansible_collections.spokewright.fleet.plugins.module_utils.health_process import (
    Process,
    empty_command,
    greeting,
    poke,
    port_in,
)
from ansible_collections.spokewright.fleet.plugins.module_utils.health_report import WARNING
from ansible_collections.spokewright.fleet.plugins.module_utils.health_rules import MISSES, Subject

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.module_utils import health_config

Source = tuple[int, t.Callable[[], None]]


@dataclass(frozen=True)
class Seen:
    """One observation of one check. ``good`` is None when this look says nothing."""

    name: str
    good: bool | None
    detail: str = ""


class Watch(t.Protocol):
    """Something that is watched."""

    @property
    def checks(self) -> tuple[str, ...]:
        """The names of what it looks at."""

    def sources(self) -> list[Source]:
        """Descriptors to wait for, and what to do when something has arrived."""

    def look(self, *, now: float, late: bool) -> list[Seen]:
        """Say what has been seen since the last look, and ask again."""


def subjects(*, config: health_config.Config) -> list[Subject]:
    """What is weighed as one."""
    found = [
        Subject(
            name=network.name,
            penalty=network.penalty,
            any_of=(_carrier(network.interface),),
            all_of=tuple(_probe(network, address) for address in network.probes),
            binding=network.tracked,
        )
        for network in config.networks
    ]
    found += [
        Subject(
            name=instance.name,
            penalty=config.instance_penalty,
            any_of=("instance %s" % instance.name, _carrier(instance.device)),
            patience=config.instance_patience,
        )
        for instance in config.instances
    ]
    if config.routing:
        # A restart of FRR takes some seconds too.
        patience = config.instance_patience
        found.append(Subject(name="routing", penalty=config.routing_penalty, any_of=("routing",), patience=patience))
    return found


def _carrier(interface: str) -> str:
    return "carrier %s" % interface


def _probe(network: health_config.Network, address: str) -> str:
    return "%s %s" % (network.name, address)


def _look_at_carrier(interface: str) -> Seen:
    good = carrier(interface=interface)
    return Seen(name=_carrier(interface), good=good, detail="" if good else "no carrier")


class NetworkWatch:
    """Carrier of an interface, and echoes from beyond it."""

    def __init__(self, *, network: health_config.Network, number: int) -> None:
        self._network = network
        self._pinger = Pinger(
            interface=network.interface,
            source=network.source,
            # Of this process and this network, so that nobody takes another's answers for his own.
            identifier=(os.getpid() + number * 7919) & 0xFFFF,
            addresses=network.probes,
            window=MISSES,
        )
        self._asked = False
        self.checks = (_carrier(network.interface), *(_probe(network, address) for address in network.probes))

    def sources(self) -> list[Source]:
        """See Watch."""
        return [(self._pinger.fileno(), self._pinger.receive)]

    def look(self, *, now: float, late: bool) -> list[Seen]:
        """See Watch."""
        del now
        answered = self._pinger.answered()
        silence = None if late or not self._asked else False
        found = [_look_at_carrier(self._network.interface)]
        for address in self._network.probes:
            good = True if address in answered else silence
            found.append(Seen(name=_probe(self._network, address), good=good, detail="" if good else "no answer"))
        self._pinger.send()
        self._asked = True
        return found


class InstanceWatch:
    """A tunnel instance, which is ended when it is frozen: systemd then starts it anew."""

    def __init__(
        self, *, instance: health_config.Instance, cure_pause: float, log: t.Callable[[int, str], None]
    ) -> None:
        self._instance, self._cure_pause, self._log = instance, cure_pause, log
        self._question = greeting(path=instance.socket)
        self._process: Process | None = None
        self._port = 0
        self._state = Instance()
        self._poker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.name = instance.name
        self.cures = 0
        self.checks = ("instance %s" % instance.name, _carrier(instance.device))

    def sources(self) -> list[Source]:
        """See Watch."""
        return [(self._question.fileno(), self._question.receive)]

    def look(self, *, now: float, late: bool) -> list[Seen]:
        """See Watch."""
        answer = self._question.take()
        self._find_process()
        process = self._process
        look = Look(
            answer=answer,
            pid=process.pid if process else None,
            wakes=process.wakes() if process else None,
            busy=process is not None and process.busy(),
        )
        done = step(before=self._state, look=look, now=now, late=late, cure_pause=self._cure_pause)
        self._state = done.state
        if done.cure and process:
            self._log(
                WARNING, 'cure="instance %s" pid=%d signal=KILL detail="%s"' % (self.name, process.pid, done.detail)
            )
            process.kill()
            self.cures += 1
        elif done.ask:
            self._question.ask()
        if process:
            poke(through=self._poker, port=self._port)
        return [
            Seen(name="instance %s" % self.name, good=done.good, detail=done.detail),
            _look_at_carrier(self._instance.device),
        ]

    def _find_process(self) -> None:
        """Whoever listens on the socket is the one; until then the one before, as long as it lives."""
        listener = self._question.listener
        if self._process and (not self._process.alive() or listener not in {None, self._process.pid}):
            self._process.close()
            self._process = None
        if self._process is None and listener is not None:
            try:
                self._process = Process(listener)
            except OSError:
                self._question.listener = None
                return
            self._port = port_in(configuration=self._instance.configuration)


class RoutingWatch:
    """FRR's daemons: of each set, one must answer."""

    def __init__(self, *, sockets: t.Sequence[t.Sequence[str]]) -> None:
        self._sets = [[empty_command(path=path) for path in paths] for paths in sockets]
        self._names = [" or ".join(Path(path).stem for path in paths) for paths in sockets]
        self._asked = False
        self.checks = ("routing",)

    def sources(self) -> list[Source]:
        """See Watch."""
        return [(question.fileno(), question.receive) for questions in self._sets for question in questions]

    def look(self, *, now: float, late: bool) -> list[Seen]:
        """See Watch."""
        del now
        silent = []
        for name, questions in zip(self._names, self._sets, strict=True):
            answers = [question.take() for question in questions]
            if "answered" not in answers:
                silent.append(name)
            for question, answer in zip(questions, answers, strict=True):
                if answer != "waiting":
                    question.ask()
        asked, self._asked = self._asked, True
        if silent and (late or not asked):
            return [Seen(name="routing", good=None)]
        detail = "no answer from %s" % ", ".join(silent) if silent else ""
        return [Seen(name="routing", good=not silent, detail=detail)]
