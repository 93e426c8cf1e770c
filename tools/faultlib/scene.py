# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Break one thing of the lab's pair, say when, and put everything back.

Times are the machine's monotonic clock, taken just before the act, so what is measured from there is never too short.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

from lablib import hosts, lifecycle, processes, topology
from lablib import state as states
from lablib.errors import LabError
from lablib.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .fleet_view import FleetView

GATEWAYS = ("gw1", "gw2")
SCORE = "/run/spokewright/score"
HOLD = "/run/spokewright/hold"
HEALTH = "/run/spokewright/health.json"
HOLD_SECONDS = 5
KEEPALIVED_PIDS = "/run/keepalived.pid /run/keepalived/keepalived.pid"


class SceneError(Exception):
    """The lab is not as it must be for this."""


class Said(NamedTuple):
    """What a command on a host said."""

    status: int
    output: str


class _Quiet(Progress):
    """What the lab does is what was asked for; only its errors are worth a line."""

    def say(self, text: str) -> None:
        pass


def other(gateway: str) -> str:
    """The peer."""
    return GATEWAYS[1 - GATEWAYS.index(gateway)]


def command_in(host: str, command: Sequence[str]) -> list[str]:
    """How to run a command inside a lab host without another interpreter's start in between."""
    init = states.require().hosts[host].init
    if init is None or not processes.alive(init):
        raise SceneError(f"{host} has no power")
    return processes.enter_command(init=init, command=list(command), terminal=None)


def on(host: str, script: str, *, seconds: float = 60) -> Said:
    """Run a shell line on a lab host."""
    done = subprocess.run(
        command_in(host, ["sh", "-c", script]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=seconds,
    )
    return Said(status=done.returncode, output=done.stdout)


def must(host: str, script: str, *, seconds: float = 60) -> str:
    """Run a shell line that has to succeed."""
    said = on(host, script, seconds=seconds)
    if said.status != 0:
        raise SceneError(f"{host}: `{script}` ended with {said.status}: {said.output.strip()[-500:]}")
    return said.output


def cut(host: str, network: str, *, how: str) -> float:
    """Cut a cable (`cable`) or let a network die behind it (`silent`)."""
    require_running(host)
    when = time.monotonic()
    lifecycle.cut(name=host, network_name=network, how=how, progress=_Quiet())
    return when


def mend(host: str, network: str) -> float:
    """Undo it."""
    when = time.monotonic()
    lifecycle.cut(name=host, network_name=network, how=None, progress=_Quiet())
    return when


def kill(host: str) -> float:
    """A power cut."""
    require_running(host)
    when = time.monotonic()
    lifecycle.kill(name=host, progress=_Quiet())
    return when


def boot(host: str) -> float:
    """Power is back; the time is when it was given."""
    when = time.monotonic()
    lifecycle.boot(name=host, progress=_Quiet())
    return when


def signal_all(host: str, name: str, program: str) -> float:
    """Send a signal to every process of that program."""
    when = time.monotonic()
    must(host, f"pkill -{name} -x {program}")
    return when


def instance_pid(host: str, instance: str) -> str:
    """The main process of a tunnel instance, by its number inside the host."""
    return must(host, f"systemctl show --property=MainPID --value openvpn-server@{instance}").strip()


def signal_instance(host: str, name: str, instance: str) -> float:
    """Send a signal to one daemon."""
    pid = instance_pid(host, instance)
    when = time.monotonic()
    must(host, f"kill -{name} {pid}")
    return when


def running(host: str) -> bool:
    """Whether the host has power."""
    state = states.require()
    return hosts.is_running(host=topology.host(name=host, sites=state.sites), state=state)


def require_running(host: str) -> None:
    """A cable cut at a host that is off would be noted and not done: a case would pass without its fault."""
    if not running(host):
        raise SceneError(f"{host} has no power: there is nothing to break")


def held(host: str, view: FleetView) -> set[str]:
    """The virtual addresses this gateway has on a real interface."""
    words = must(host, "ip -4 -oneline address show | grep -v ' lo '").split()
    return {vip for vip in view.vips.values() if f"{vip}/32" in words}


def owner(view: FleetView) -> str:
    """The gateway that holds every virtual address, with the other one holding none."""
    found = {host: held(host, view) for host in GATEWAYS if running(host)}
    owners = [host for host, vips in found.items() if vips == set(view.vips.values())]
    if len(owners) != 1 or sum(len(vips) for vips in found.values()) != len(view.vips):
        raise SceneError(f"no single owner: {found}")
    return owners[0]


def wait_owner(view: FleetView, *, wanted: str | None = None, seconds: float = 10) -> str:
    """Wait until the pair has one owner (that one)."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = owner(view)
            if wanted in {None, found}:
                return found
            problem = f"{found} is the owner, not {wanted}"
        except SceneError as exc:
            problem = str(exc)
        if time.monotonic() > deadline:
            raise SceneError(f"{problem}, after {seconds:.0f} s")
        time.sleep(0.2)


def judged(host: str) -> bool:
    """Whether a health daemon writes the score there: then a planned move is asked for by the hold file."""
    return on(host, f"test -e {HEALTH} && test $(( $(date +%s) - $(stat -c %Y {HEALTH}) )) -lt 15").status == 0


def hand_over(host: str) -> float:
    """Ask the owner to give the addresses away in a planned way."""
    if judged(host):
        script = f"echo $(( $(date +%s) + {HOLD_SECONDS} )) >{HOLD}.new && mv {HOLD}.new {HOLD}"
    else:
        script = f"echo -254 >{SCORE}; sleep 2; echo 0 >{SCORE}"
    command = command_in(host, ["sh", "-c", script])
    when = time.monotonic()
    # Not waited for: the old owner takes its penalty back after the move.
    _helpers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
    return when


_helpers: list[subprocess.Popen[bytes]] = []


def reap() -> None:
    """Wait for what was started and not waited for."""
    while _helpers:
        helper = _helpers.pop()
        try:
            helper.wait(timeout=30)
        except subprocess.TimeoutExpired:
            helper.kill()
            helper.wait()


def make_owner(view: FleetView, gateway: str) -> None:
    """Let this gateway be the owner, and wait until the peer could take over again."""
    if wait_owner(view) != gateway:
        hand_over(other(gateway))
        wait_owner(view, wanted=gateway)
        reap()
        wait_free(other(gateway))


def wait_free(host: str, *, seconds: float = 20) -> None:
    """Wait until nothing keeps this gateway from taking over: no hold, and a score that is not a fault."""
    deadline = time.monotonic() + seconds
    while on(host, f'test ! -e {HOLD} && test "$(cat {SCORE})" -gt -200').status != 0:
        if time.monotonic() > deadline:
            score = on(host, f"cat {SCORE}; ls {HOLD}").output
            raise SceneError(f"{host} is still kept from taking over: {score.strip()}")
        time.sleep(0.2)


def mend_all() -> None:
    """Power, cables and processes: everything back as it was, as far as the lab goes."""
    reap()
    for name, entry in states.require().hosts.items():
        for network in list(entry.cuts):
            mend(name, network)
        if not running(name):
            boot(name)
    for host in GATEWAYS:
        # A frozen process would be frozen for the next case, too.
        on(host, "pkill -CONT -x keepalived; pkill -CONT -x openvpn; pkill -CONT -x bgpd; pkill -CONT -x ospfd")


@contextlib.contextmanager
def everything_back() -> Iterator[None]:
    """Whatever happens inside, the lab is whole afterwards."""
    try:
        yield
    finally:
        with contextlib.suppress(LabError, SceneError):
            mend_all()
