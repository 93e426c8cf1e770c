# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The storm itself: a discrete-event simulation of clients, a link, cores and single-threaded daemons.

The same seed gives the same storm. What a number is taken from stands in storm_model.py; docs/storm-explained.md holds
the model against what was measured, and says what was fitted.
"""

from __future__ import annotations

import gc
import heapq
import random
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_daemon import JUNK, Daemon
from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_model import (
    Drops,
    Outcome,
    Scene,
    Setup,
    StormError,
    generation,
    occupies,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_resources import Cores, Link

if TYPE_CHECKING:
    from collections.abc import Callable

# --tls-timeout.
FIRST_WAIT: Final = 2
# What OpenVPN adds by chance to whatever it waits for: 18 bits of microseconds (forward.c,
# check_timeout_random_component).
CHANCE: Final = 0.262
# From a SIGTERM with explicit-exit-notify until the process is gone, in which time it answers no first packet: 3.4 to
# 3.9 s, measured.
LINGERS: Final = 3.65
# Until a pushed RESTART is at all clients.
TOLD: Final = 0.1
# 2.7 pauses so long whatever connect-retry says, and so did 2.0 over UDP (init.c, socket_restart_pause).
FIXED_PAUSE: Final = 2
# Tries at the same pace before the pause doubles (init.c v2.6.14).
SAME_PACE: Final = 4
JUNK_TICK: Final = 0.01
JUNK_OCTETS: Final = 356
# So that no question takes longer than a minute on one core of a small machine.
MOST_EVENTS: Final = 6_000_000
NEVER: Final = float("inf")
UNKNOWN: Final = -1.0


class Storm:
    """One run. Sites are numbers; attempt numbers tell a client's attempts, and its source ports, apart."""

    def __init__(self, *, setup: Setup, scene: Scene, seed: int = 1, horizon: float = 3600.0) -> None:
        _judge(setup)
        self.setup, self.scene = setup, scene
        self.random = random.Random(seed)  # noqa: S311 - a storm, not a secret
        self.now, self.ended_at = 0.0, 0.0
        self._order = 0
        self._events: list[tuple[float, int, Callable[..., None], Any, Any, Any]] = []
        sites = setup.sites
        single = len(setup.timers) == 1
        self.timers = [setup.timers[0 if single else site] for site in range(sites)]
        self.client = generation(setup.client_version)
        self.legs, self.last_leg = setup.generation.legs, len(setup.generation.legs) - 1
        self.sizes = [(leg.octets, leg.packets, occupies(leg.octets) * leg.packets) for leg in self.legs]
        self.attempt, self.leg, self.tries = [0] * sites, [0] * sites, [0] * sites
        self.began, self.back = [0.0] * sites, [UNKNOWN] * sites
        self.daemons = [Daemon(setup=setup) for _number in range(setup.daemons)]
        workers = setup.daemons + (sites if setup.clients_share_cores else 0)
        self.cores = Cores(cores=setup.cores, workers=workers, background=setup.background, later=self._at)
        self.inbound = Link(bits=setup.link_bits, queue=setup.link_queue)
        self.outbound = Link(bits=setup.link_bits, queue=setup.link_queue)
        self.half_way = setup.round_trip / 2
        self.reachable, self.origin, self.floor = 0.0, 0.0, 0.0
        self.cpu_clients, self.packets, self.fell_again = 0.0, 0, 0
        self.affected: set[int] = set()
        self.away = 0
        self.horizon = horizon

    def run(self) -> Outcome:
        """Let it happen until the last site is back, or the horizon is reached."""
        self._fault()
        self.away = len(self.affected)
        self._at(1.0, self._every_second)
        if self.scene.junk_per_second:
            self._at(0.0, self._junk)
        events, end = self._events, self.origin + self.horizon
        while events and self.away and self._order < MOST_EVENTS:
            when, _order, what, a, b, c = heapq.heappop(events)
            if when > end:
                break
            self.now = when
            what(a, b, c)
        return self._outcome()

    # --- the scene

    def _fault(self) -> None:
        scene, everybody = self.scene, range(self.setup.sites)
        start = scene.daemon_start
        if scene.kind == "all-start":
            self._listen(0.0, 0.0, 0.0)
            for site in everybody:
                self._start(site, self.random.uniform(0.0, scene.spread))
            return
        if scene.kind == "clients-restarted":
            self._listen()
            for site in everybody:
                self._start(site, self._pause(site))
            return
        if scene.kind == "frozen":
            self._freeze()
            return
        if scene.kind == "outage":
            self.origin = self.reachable = scene.seconds
            start += scene.seconds
        elif scene.kind == "owner-dead":
            start = self.reachable = scene.address_moves
        elif scene.kind == "daemons-told":
            start = LINGERS + scene.daemon_start
        self._at(start, self._listen)
        for site in everybody:
            noticed = self.random.uniform(0.0, TOLD) if scene.kind == "daemons-told" else self._notices()
            self._start(site, noticed + self._pause(site))

    def _start(self, site: int, when: float) -> None:
        self.affected.add(site)
        self.floor = max(self.floor, when)
        self._at(when, self._begin, site, self.attempt[site])

    def _listen(self, *_none: Any) -> None:
        for daemon in self.daemons:
            daemon.listening = True
            daemon.last_idle = self.now

    def _freeze(self) -> None:
        self._listen()
        frozen = self.daemons[0]
        frozen.frozen = True
        self._at(self.scene.seconds, self._thaw)
        for site in range(0, self.setup.sites, len(self.daemons)):
            noticed = self._notices()
            if noticed < self.scene.seconds:
                self._start(site, noticed + self._pause(site))

    def _thaw(self, *_none: Any) -> None:
        daemon = self.daemons[0]
        daemon.frozen = False
        daemon.last_idle = self.now
        if not daemon.busy:
            self._serve(daemon)

    def _notices(self) -> float:
        """When a client's ping-restart runs out.

        Its clock shows whole seconds (interval.c). Idle, it looks when it wakes up for a ping of its own, up to a
        second before or after; busy, it looks all the time, which on average is half a second early.
        """
        interval, timeout = self.setup.keepalive
        if self.setup.traffic:
            return timeout - 0.5
        least, spread = self.setup.ping_age if self.setup.ping_age is not None else (0.0, float(interval))
        age = least + self.random.uniform(0.0, spread)
        return max(0.0, timeout - age + self.random.random() - self.random.random())

    # --- clients

    def _pause(self, site: int) -> float:
        timers, tries = self.timers[site], self.tries[site]
        if self.client.version == "2.0":
            return FIXED_PAUSE
        base = FIXED_PAUSE if self.client.version == "2.7" else timers.connect_retry
        return min(base << min(15, max(0, tries - SAME_PACE)), timers.connect_retry_max)

    def _begin(self, site: int, attempt: int, _none: Any) -> None:
        if self.attempt[site] != attempt:
            return
        self.attempt[site] += 1
        self.tries[site] += 1
        self.leg[site] = 0
        self.began[site] = self.now
        wait = min(self._poll(site), self.timers[site].hand_window)
        self._at(self.now + wait + self.random.random() * CHANCE, self._deadline, site, attempt + 1)
        if self.setup.clients_share_cores:
            costs = self.setup.costs
            # The first time the process itself begins.
            begins = self.scene.kind == "all-start" and self.tries[site] == 1
            seconds = (costs.start if begins else costs.restart) / 1000
            self.cpu_clients += seconds
            self.cores.do(now=self.now, seconds=seconds, then=self._send, a=site, b=0, c=attempt + 1)
        else:
            self._send(site, 0, attempt + 1)

    def _poll(self, site: int) -> float:
        return NEVER if self.client.version == "2.0" else self.timers[site].server_poll_timeout

    def _deadline(self, site: int, attempt: int, _none: Any) -> None:
        if self.attempt[site] != attempt or self.back[site] >= 0:
            return
        ends = self.began[site] + self.timers[site].hand_window
        if self.now >= ends:
            self._at(self.now + self._pause(site), self._begin, site, attempt)
            # Nobody listens in the meantime.
            self.leg[site] = -1
        elif self.leg[site] == 0:
            # No answer at all: the next try without a pause (forward.c, check_server_poll_timeout).
            self._begin(site, attempt, 0)
        else:
            self._at(ends + self.random.random() * CHANCE, self._deadline, site, attempt)

    def _send(self, site: int, leg: int, attempt: int) -> None:
        self._at(self.now + FIRST_WAIT + self.random.random() * CHANCE, self._again, site, attempt, (leg, FIRST_WAIT))
        if self.setup.clients_share_cores:
            seconds = self.setup.costs.client / 1000 / (self.last_leg + 1)
            self.cpu_clients += seconds
            self.cores.do(now=self.now, seconds=seconds, then=self._transmit, a=site, b=attempt, c=leg)
        else:
            self._transmit(site, attempt, leg)

    def _again(self, site: int, attempt: int, what: tuple[int, int]) -> None:
        leg, wait = what
        if self.attempt[site] != attempt or self.leg[site] != leg:
            return
        if self.client.backoff:
            wait *= 2
        self._at(self.now + wait + self.random.random() * CHANCE, self._again, site, attempt, (leg, wait))
        self._transmit(site, attempt, leg)

    def _transmit(self, site: int, attempt: int, leg: int) -> None:
        octets, packets, _space = self.sizes[leg]
        self.packets += packets
        leaves = self.inbound.leaves(octets=octets, packets=packets, now=self.now)
        if leaves is not None:
            self._at(leaves + self.half_way, self._arrive, site, attempt, leg)

    def _answered(self, site: int, attempt: int, leg: int) -> None:
        if self.attempt[site] != attempt or self.leg[site] != leg:
            return
        leg += 1
        self.leg[site] = leg
        if leg <= self.last_leg:
            self._send(site, leg, attempt)
            return
        self.back[site] = self.now
        self.tries[site] = 0
        self.away -= 1
        self.daemons[site % len(self.daemons)].up.append((self.now, site))

    # --- daemons

    def _arrive(self, site: int, attempt: int, leg: int) -> None:
        daemon = self.daemons[site % len(self.daemons)]
        if not daemon.listening or self.now < self.reachable:
            return
        _octets, packets, space = self.sizes[leg]
        took = daemon.take(site=site, attempt=attempt, leg=leg, space=space, packets=packets, now=self.now)
        if took and not daemon.busy and not daemon.frozen:
            daemon.expire(self.now)
            self._serve(daemon)

    def _serve(self, daemon: Daemon) -> None:
        if daemon.frozen or not daemon.queue:
            daemon.busy = False
            if not daemon.queue:
                daemon.last_idle = self.now
            return
        daemon.busy = True
        site, attempt, leg, space = daemon.queue.popleft()
        daemon.used -= space
        cost, answers = daemon.decide(site=site, attempt=attempt, leg=leg, now=self.now)
        seconds = cost / 1000
        daemon.cpu += seconds
        reply = (site, attempt, leg) if answers else None
        self.cores.do(now=self.now, seconds=seconds, then=self._served, a=daemon, b=reply, c=None, first=True)

    def _served(self, daemon: Daemon, reply: tuple[int, int, int] | None, _none: Any) -> None:
        if reply is not None:
            leg = self.legs[reply[2]]
            leaves = self.outbound.leaves(octets=leg.reply_octets, packets=leg.reply_packets, now=self.now)
            if leaves is not None:
                self._at(leaves + self.half_way, self._answered, *reply)
        self._serve(daemon)

    def _every_second(self, *_none: Any) -> None:
        """Clients that are up fall out again when their daemon had no time for a ping as long as they wait for one."""
        patience = self.setup.keepalive[1]
        for daemon in self.daemons:
            if not daemon.busy or self.now - daemon.last_idle <= patience:
                continue
            while daemon.up and daemon.up[0][0] <= self.now - patience:
                since, site = daemon.up.popleft()
                if self.back[site] == since:
                    self.back[site] = UNKNOWN
                    self.away += 1
                    self.fell_again += 1
                    self._at(self.now + self._pause(site), self._begin, site, self.attempt[site])
        self._at(self.now + 1.0, self._every_second)

    def _junk(self, *_none: Any) -> None:
        """First packets with a foreign key, for all daemons alike, a hundred times a second."""
        share = self.scene.junk_per_second * JUNK_TICK / len(self.daemons)
        for daemon in self.daemons:
            count = int(share) + (self.random.random() < share % 1)
            leaves = self.inbound.leaves(octets=JUNK_OCTETS, packets=count, now=self.now)
            if count and leaves is not None and daemon.listening and self.now >= self.reachable:
                room = (daemon.buffer - daemon.used) // occupies(JUNK_OCTETS)
                daemon.dropped["receive_buffer"] += max(0, count - room)
                count = min(count, room)
                space = count * occupies(JUNK_OCTETS)
                daemon.take(site=JUNK, attempt=count, leg=0, space=space, packets=count, now=self.now)
                if not daemon.busy and not daemon.frozen:
                    daemon.expire(self.now)
                    self._serve(daemon)
        self._at(self.now + JUNK_TICK, self._junk)

    # --- the end

    def _at(self, when: float, what: Callable[..., None], a: Any = 0, b: Any = 0, c: Any = 0) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, self._order, what, a, b, c))

    def _outcome(self) -> Outcome:
        dropped: dict[str, int] = {}
        for daemon in self.daemons:
            for why, count in daemon.dropped.items():
                dropped[why] = dropped.get(why, 0) + count
        busiest = [
            one.cpu / (self.now - one.first_packet)
            for one in self.daemons
            if one.first_packet is not None and self.now > one.first_packet
        ]
        back = sorted(self.back[site] - self.origin for site in self.affected if self.back[site] >= 0)
        return Outcome(
            setup=self.setup,
            scene=self.scene,
            back=tuple(back),
            affected=len(self.affected),
            undef_peak=sum(one.undef_peak for one in self.daemons),
            drops=Drops(link=self.inbound.dropped + self.outbound.dropped, **dropped),
            cpu_daemons=sum(one.cpu for one in self.daemons),
            cpu_clients=self.cpu_clients,
            busiest=min(1.0, max(busiest, default=0.0)),
            floor=max(self.floor, self.reachable) - self.origin,
            packets=self.packets,
            fell_again=self.fell_again,
            ended=self.now - self.origin,
            gave_up=self._order >= MOST_EVENTS,
        )


def simulate(*, setup: Setup, scene: Scene, seed: int = 1, horizon: float = 3600.0) -> Outcome:
    """Run one storm.

    Raises:
        StormError: the setup does not go together.
    """
    storm = Storm(setup=setup, scene=scene, seed=seed, horizon=horizon)
    # Nothing of a storm refers to itself in a circle: looking for that would take half of the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        return storm.run()
    finally:
        if collects:
            gc.enable()


def _judge(setup: Setup) -> None:
    for what, number in (("sites", setup.sites), ("daemons", setup.daemons), ("cores", setup.cores)):
        if number < 1:
            raise StormError(f"{setup.name}: {number} {what}: at least one is needed.")
    if len(setup.timers) not in {1, setup.sites}:
        raise StormError(
            f"{setup.name}: {len(setup.timers)} timers for {setup.sites} sites: give one, or one for each."
        )
    if setup.generation.version != setup.client_version and "2.0" in {setup.generation.version, setup.client_version}:
        raise StormError(f"{setup.name}: a client and a daemon of 2.0 only go together with each other.")
