# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking the lab down, and proof that nothing of it is left."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from . import disk, hosts, machine, network, paths, processes, shell, topology
from . import state as states
from .errors import LabError
from .state import HostState, State

if TYPE_CHECKING:
    from .progress import Progress


def host_of(name: str) -> topology.Host:
    """The host of that name, whatever the lab's present size is."""
    return topology.host(name=name, sites=9999)


def down(*, progress: Progress) -> None:
    """End every process of the lab, remove all it made, then look whether that is so."""
    with states.locked(verb="down", progress=progress):
        state = states.load() or _guess()
        progress.say(f"Taking down {len(state.hosts)} hosts ...")
        names = {name for name, entry in state.hosts.items() if entry.owns_namespace}
        foreign = [found for found in processes.scan({*names, paths.SWITCH}) if found.role == "foreign"]
        hosts.power_off(hosts=[host_of(name) for name in sorted(state.hosts)], state=state)
        network.remove(state=state)
        _unmount()
        processes.remove_cgroups([*processes.cgroups(), *processes.precedence_cgroups()])
        machine.restore_limits(state=state)
        held = set(processes.wait_gone([found.process for found in foreign], seconds=1))
        left = leftovers(state=state, names=names)
        left += [
            f"process {found.process.pid} ({found.command}) is not the lab's but holds the network of {found.host}"
            for found in foreign
            if found.process in held
        ]
        if left:
            raise LabError("The lab is down, but this is left:\n" + "\n".join(f"  {item}" for item in left))
        shutil.rmtree(paths.RUN, ignore_errors=True)
    progress.say("The lab is down. Nothing is left: no process, namespace, mount, link, route, cgroup or sysctl.")


def _guess() -> State:
    """Without a state (removed, or of an earlier boot): whatever lies where only the lab puts things."""
    names = []
    if paths.DISKS.is_dir() and disk.mounted(paths.DISKS):
        names = [entry.name for entry in paths.DISKS.iterdir() if (entry / "root").is_dir()]
    return State(
        boot_id=states.boot_id(),
        release="",
        tree="",
        sites=topology.MAX_SITES,
        hosts={name: HostState(owns_namespace=True) for name in names},
        made_netns_directory=disk.mounted(paths.NETNS),
    )


def _unmount() -> None:
    for point in reversed(disk.mount_points()):
        if Path(point).is_relative_to(paths.RUN):
            shell.run(["umount", point])


def leftovers(*, state: State, names: set[str]) -> list[str]:
    """Everything of the lab that is still there."""
    left = [
        f"process {found.process.pid} ({found.command}, {found.role} of {found.host})"
        for found in processes.scan(names)
        if found.role != "foreign"
    ]
    left += [f"network namespace {name}" for name in sorted({*names, paths.SWITCH}) if paths.netns(name).exists()]
    left += [f"mount {point}" for point in disk.mount_points() if Path(point).is_relative_to(paths.RUN)]
    left += [f"link {name}" for name in network.link_names(None) if name == network.CONTROLLER_LINK]
    left += [f"route unreachable {route['dst']}" for route in network.lab_routes()]
    groups = [*processes.cgroups(), *processes.precedence_cgroups()]
    left += [f"cgroup {group}" for group in groups if group.exists()]
    left += machine.limits_not_restored(state=state)
    return left
