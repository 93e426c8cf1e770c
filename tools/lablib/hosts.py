# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host's life: boot it, wait until it is ready, take its power away."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

from . import disk, network, paths, processes, topology
from .errors import LabError
from .state import HostState, Process, State

INIT_SECONDS = 20.0
READY_SECONDS = 120.0
REUSED_SECONDS = 15.0  # a host that was up before has no reason to be slow
SSH_PORT = 22


def is_running(*, host: topology.Host, state: State) -> bool:
    """Whether the host's systemd and its namespace are there."""
    entry = state.hosts.get(host.name)
    return (
        entry is not None
        and entry.power == "on"
        and processes.alive(entry.init)
        and processes.alive(entry.nspawn)
        and paths.netns(host.name).exists()
    )


def boot(*, host: topology.Host, state: State, lans: list[str], client_key: str) -> None:
    """Plug the host in and start its systemd from its own disk."""
    entry = state.hosts.setdefault(host.name, HostState())
    state.save()
    disk.attach(host=host, tree=Path(state.tree))
    disk.authorize(name=host.name, public_key=client_key)
    network.require_no_namespace(host.name)
    entry.owns_namespace = True
    state.save()
    network.plug_in(host=host, lans=lans, cuts=entry.cuts, state=state)
    entry.nspawn = processes.start(name=host.name)
    entry.power = "on"
    state.save()
    entry.init = _wait_for_init(host=host, entry=entry)
    state.save()


def _wait_for_init(*, host: topology.Host, entry: HostState) -> Process:
    deadline = time.monotonic() + INIT_SECONDS
    while entry.nspawn is not None and time.monotonic() < deadline:
        init = processes.find_init(entry.nspawn)
        if init is not None:
            return init
        _require_alive(host=host, entry=entry)
        time.sleep(0.02)
    raise LabError(
        f"{host.name} has started no init in {INIT_SECONDS:.0f} s. Its console:\n{disk.console_tail(host.name)}"
    )


def _require_alive(*, host: topology.Host, entry: HostState) -> None:
    if processes.gone(entry.nspawn):
        raise LabError(f"{host.name} did not come up: its systemd ended. Its console:\n{disk.console_tail(host.name)}")


def banner(address: str, *, seconds: float) -> bool:
    """Whether an sshd greets at this address."""
    try:
        with socket.create_connection((address, SSH_PORT), timeout=seconds) as connection:
            # All of it is read: closing on unread data would be a reset in the host's log.
            return connection.recv(256).startswith(b"SSH-")
    except OSError:
        return False


def wait_ready(*, host: topology.Host, state: State, seconds: float = READY_SECONDS) -> None:
    """Ready means: sshd greets over the out-of-band network and systemd has finished booting."""
    entry = state.hosts[host.name]
    deadline = time.monotonic() + seconds
    while not banner(host.oob_address, seconds=2):
        _require_alive(host=host, entry=entry)
        if time.monotonic() > deadline:
            raise LabError(
                f"{host.name} did not come up: no sshd at {host.oob_address} after {seconds:.0f} s. "
                f"A fresh start: tools/lab kill {host.name}; tools/lab boot {host.name}. "
                f"Its console:\n{disk.console_tail(host.name)}"
            )
        time.sleep(0.1)
    answer = system_state(entry, wait=max(5.0, deadline - time.monotonic()))
    if answer not in {"running", "degraded"}:
        raise LabError(
            f"{host.name} did not come up: systemd says '{answer or 'nothing'}'. "
            f"Its console:\n{disk.console_tail(host.name)}"
        )


def system_state(entry: HostState, *, wait: float | None = None) -> str:
    """What the host's systemd says about itself: running, degraded, starting ..."""
    if entry.init is None:
        return ""
    command = ["systemctl", "is-system-running", *(["--wait"] if wait else [])]
    try:
        done = subprocess.run(
            processes.enter_command(init=entry.init, command=command, terminal=None),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=wait or 10,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "still starting"
    return done.stdout.strip()


def power_off(*, hosts: list[topology.Host], state: State) -> None:
    """Take the hosts' power away at once: nothing more leaves them, nothing of them answers, the disks stay."""
    names = [host.name for host in hosts]
    entries = {host.name: state.hosts[host.name] for host in hosts if host.name in state.hosts}
    entries = {name: entry for name, entry in entries.items() if entry.owns_namespace}
    hosts = [host for host in hosts if host.name in entries]
    if paths.netns(paths.SWITCH).exists():
        network.mute(hosts)
    processes.power_off(hosts=entries)
    network.unplug(hosts)
    processes.remove_traces(names=names)
    disk.detach(names)
    for entry in entries.values():
        entry.power = "off"
        entry.owns_namespace = False
    state.save()
