# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell the sites to start anew when this gateway, alive, no longer has the virtual addresses.

Runs on gateways, as spokewright-push.service: standard library only. keepalived's reports only wake it; what it acts on
is whether the address is on the interface, so a report that is missed, doubled or late does no harm.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.module_utils.management import UNDEF, Management, ManagementError
from ansible_collections.spokewright.fleet.plugins.module_utils.push_rules import (
    Config,
    PushConfigError,
    batches,
    group_state,
    is_owners_advert,
    lease_has_ended,
    parse,
)

TICK = 0.5
ANSWER = 0.3
"""Seconds a daemon gets for each answer. One that needs longer could tell its sites nothing."""
LINGER = 0.3
"""Seconds the addresses stay on the loopback device after the last message was handed over."""
IP = "ip"
_VRRP = 112


def say(text: str) -> None:
    """One line for the journal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Fifo:
    """keepalived's reports. Opened for both directions, it never ends; one that was made anew is opened anew."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._rest = b""

    def lines(self, seconds: float) -> list[str]:
        """What has come, waiting ``seconds`` at most for the first."""
        self._open_the_one_that_is_there()
        if not select.select([self._descriptor], [], [], seconds)[0]:
            return []
        with contextlib.suppress(BlockingIOError):
            self._rest += os.read(self._descriptor, 65536)
        *whole, self._rest = self._rest.split(b"\n")
        return [line.decode(errors="replace") for line in whole]

    def _open_the_one_that_is_there(self) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self._path, 0o600)
        there = Path(self._path).stat()
        if self._descriptor >= 0:
            mine = os.fstat(self._descriptor)
            if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
                return
            os.close(self._descriptor)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


class Gateway:
    """What this gateway is at the moment."""

    def __init__(self, config: Config) -> None:
        self._config = config
        # The inside address: the push never puts that one on the loopback device.
        self._inside = re.compile(r"\|-- %s\n +/32 host LOCAL" % re.escape(config.inside))

    def holds(self) -> bool:
        """Whether the virtual addresses are here."""
        return bool(self._inside.search(Path("/proc/net/fib_trie").read_text(encoding="ascii")))

    def frozen(self) -> bool:
        """Whether keepalived has stopped renewing its lease."""
        lease = self._config.lease
        if lease is None:
            return False
        try:
            record = Path(lease.file).read_text(encoding="ascii")
        except FileNotFoundError:
            return False
        uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
        return lease_has_ended(record=record, uptime=uptime, seconds=lease.seconds)

    def hears_an_owner(self) -> bool:
        """Whether the peer says that it has the addresses, or does so before our patience ends."""
        end = time.monotonic() + self._config.patience
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, _VRRP) as adverts:
            while (left := end - time.monotonic()) > 0:
                adverts.settimeout(left)
                with contextlib.suppress(TimeoutError):
                    if is_owners_advert(packet=adverts.recv(2048), peers=self._config.peers):
                        return True
        return False

    @contextlib.contextmanager
    def sending_from_the_addresses(self) -> t.Iterator[None]:
        """The outside addresses on the loopback device: daemons can send, and nobody is told that they are here."""
        try:
            for vip in self._config.outside:
                _ip("add", vip)
            yield
        finally:
            self.clean()

    def clean(self) -> None:
        """Take them off it again, whoever put them there."""
        for vip in self._config.outside:
            _ip("del", vip)


def _ip(verb: str, vip: str) -> None:
    """Adding what is there and deleting what is not are no errors."""
    command = [IP, "address", verb, "%s/32" % vip, "dev", "lo", *(["scope", "host"] if verb == "add" else [])]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def sessions(*, config: Config) -> dict[str, list[int]]:
    """Each instance's sessions. One that does not answer has none that could be told anything."""
    found: dict[str, list[int]] = {}

    def ask(name: str) -> None:
        with Management(_socket(config, name), ANSWER) as daemon:
            clients = daemon.status().clients
        found[name] = [client.client_id for client in clients if client.common_name != UNDEF]

    _at_once(ask, config.instances)
    return {name: clients for name, clients in found.items() if clients}


def tell(*, config: Config, who: t.Mapping[str, t.Sequence[int]], stop: t.Callable[[], bool]) -> int:
    """End the sessions at the configured pace, all instances side by side; returns how many.

    ``stop`` is asked before each few: a gateway that has the addresses again keeps the sessions that are left.
    """
    told = [0]

    def end(name: str) -> None:
        began = time.monotonic()
        for at, clients in batches(clients=who[name], per_second=config.per_second / len(who)):
            time.sleep(max(0.0, began + at - time.monotonic()))
            if stop():
                return
            with Management(_socket(config, name), ANSWER) as daemon:
                for client in clients:
                    # It may be gone since it was counted.
                    with contextlib.suppress(ManagementError):
                        daemon.client_kill(client)
                        told[0] += 1

    _at_once(end, list(who))
    return told[0]


def _socket(config: Config, name: str) -> str:
    return "%s/%s.sock" % (config.sockets, name)


def _at_once(work: t.Callable[[str], None], names: t.Sequence[str]) -> None:
    def one(name: str) -> None:
        try:
            work(name)
        except ManagementError as exc:
            say("%s: %s" % (name, exc))

    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def lost(*, config: Config, gateway: Gateway) -> None:
    """The addresses have gone: once the peer has them, send the sites there."""
    if not gateway.hears_an_owner():
        say("the addresses are gone and nobody else has them: the sites stay, for they may come back here")
        return
    who = sessions(config=config)
    if gateway.holds() or not who:
        return
    began = time.monotonic()
    with gateway.sending_from_the_addresses():
        told = tell(config=config, who=who, stop=gateway.holds)
        took = time.monotonic() - began
        time.sleep(LINGER)
    say("the addresses are on the other gateway: told %d sites in %.2f s to start anew" % (told, took))


def froze(*, config: Config, gateway: Gateway) -> bool:
    """Keepalived is frozen, the addresses still here. Whether the peer has them too, and the sites know."""
    if not gateway.hears_an_owner():
        return False
    told = tell(config=config, who=sessions(config=config), stop=lambda: False)
    say(
        "keepalived renews its lease no more and the other gateway has the addresses: told %d sites to start anew"
        % told
    )
    return True


def watch(*, config: Config, gateway: Gateway, fifo: Fifo) -> t.NoReturn:
    """Look at every report of the group, and now and then without one."""
    held, told = gateway.holds(), False
    while True:
        lines = fifo.lines(TICK)
        for line in lines:
            if state := group_state(line=line):
                say("keepalived reports: %s" % state)
        holds = gateway.holds()
        if held and not holds:
            lost(config=config, gateway=gateway)
            holds = gateway.holds()
        frozen = holds and gateway.frozen()
        told = frozen and (told or froze(config=config, gateway=gateway))
        held = holds


def main(arguments: t.Sequence[str] | None = None) -> int:
    """``CONFIGURATION`` to watch, ``CONFIGURATION clean`` to take left addresses off the loopback device."""
    argv = sys.argv[1:] if arguments is None else arguments
    try:
        config = parse(text=Path(argv[0]).read_text(encoding="utf-8"))
    except (OSError, IndexError, PushConfigError) as exc:
        say(str(exc))
        return os.EX_CONFIG
    gateway = Gateway(config)
    if list(argv[1:]) == ["clean"]:
        gateway.clean()
        return 0
    watch(config=config, gateway=gateway, fifo=Fifo(config.fifo))


if __name__ == "__main__":
    raise SystemExit(main())
