# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab as a whole: up, and changes to one host of it."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

from . import disk, hosts, image, inventory, machine, network, paths, teardown, topology
from . import state as states
from .errors import LabError
from .state import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from .progress import Progress

NAMED_FAILURES = 5


def _workers() -> int:
    return max(4, 4 * (os.cpu_count() or 1))


def _each(
    *, what: str, items: list[topology.Host], work: Callable[[topology.Host], None], progress: Progress
) -> dict[str, Exception]:
    """Do the work for every host, a bounded number at a time; one that fails stops no other."""
    failures: dict[str, Exception] = {}
    if not items:
        return failures
    pool = ThreadPoolExecutor(max_workers=_workers())
    try:
        futures = {pool.submit(work, host): host for host in items}
        for done, future in enumerate(as_completed(futures), start=1):
            error = future.exception()
            if isinstance(error, (LabError, OSError)):
                failures[futures[future].name] = error
            elif error is not None:
                raise error
            progress.count(what=what, done=done, total=len(items))
    finally:
        pool.shutdown(cancel_futures=True)
    return failures


def _text(name: str, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{name} did not come up: {error.strerror or error} ({error.filename or 'no file'})."
    return str(error)


def _raise_failures(failures: dict[str, Exception], *, total: int) -> None:
    if not failures:
        return
    names = sorted(failures)
    texts = [_text(name, failures[name]) for name in names[:NAMED_FAILURES]]
    if len(names) > NAMED_FAILURES:
        texts.append(f"... and {len(names) - NAMED_FAILURES} more: {', '.join(names[NAMED_FAILURES:])}")
    texts.append(f"{len(names)} of {total} hosts did not come up: {', '.join(names[:20])}. Run tools/lab up again.")
    raise LabError("\n".join(texts))


def up(*, sites: int | None, release: str | None, progress: Progress) -> None:
    """Bring exactly that many sites, reusing what is there."""
    machine.require_tools()
    with states.locked(verb="up", progress=progress):
        began = time.monotonic()
        state = _begin(sites=sites, release=release, progress=progress)
        wanted = topology.hosts(sites=state.sites if sites is None else sites)
        network.require_free_ranges()
        machine.raise_limits(state=state)
        disk.prepare()
        network.prepare(state=state)
        _remove_surplus(wanted=wanted, state=state, progress=progress)
        state.sites = len([host for host in wanted if host.kind == "site"])
        state.save()
        client_key = inventory.client_key()
        lans = inventory.lans(text=inventory.registry_text())
        _mend_all(wanted=wanted, state=state, progress=progress)
        ports = set(network.link_names(paths.SWITCH))
        to_boot = [host for host in wanted if not _is_whole(host=host, state=state, ports=ports)]
        machine.require_memory(new_hosts=len(to_boot))
        known = [host for host in to_boot if host.name in state.hosts]
        if known:
            hosts.power_off(hosts=known, state=state)

        def bring(host: topology.Host) -> None:
            host_lans = lans.get(host.name) or [topology.default_lan(host.number)]
            if host in to_boot:
                hosts.boot(host=host, state=state, lans=host_lans, client_key=client_key)
                hosts.wait_ready(host=host, state=state)
            else:
                disk.authorize(name=host.name, public_key=client_key)
                if host.kind == "site":
                    network.set_lans(host=host, lans=host_lans)
                hosts.wait_ready(host=host, state=state, seconds=hosts.REUSED_SECONDS)

        failures = _each(what="Hosts up", items=list(wanted), work=bring, progress=progress)
        if not failures:
            keys = {host.name: disk.host_key(host.name) for host in wanted}
            inventory.write(hosts=wanted, host_keys=keys, cores=len(os.sched_getaffinity(0)))
        _raise_failures(failures, total=len(wanted))
        took = time.monotonic() - began
    booted = f"{len(to_boot)} booted, " if to_boot else "all were there already, "
    progress.say(f"The lab is up: gw1, gw2, core1 and {state.sites} sites ({state.release}), {booted}{took:.1f} s.")


def _begin(*, sites: int | None, release: str | None, progress: Progress) -> State:
    """The state to go on with: the one of the lab that is up, or a new one, saved before anything is made."""
    state = states.load()
    if state is not None:
        if release not in {None, state.release}:
            raise LabError(
                f"The lab that is up runs {state.release}, not {release}. Take it down first: tools/lab down"
            )
        # A `down` that found no lab and then failed leaves a state without a tree; "" would be the current directory.
        if not state.tree or not Path(state.tree).is_dir():
            raise LabError(
                f"The hosts' root tree {state.tree or '(not known)'} is gone. "
                "Start afresh: tools/lab down, then tools/lab up"
            )
        return state
    count = topology.DEFAULT_SITES if sites is None else sites
    topology.hosts(sites=count)
    network.require_free_ranges()
    chosen = release or image.RELEASES[0]
    tree = image.ensure(release=chosen, progress=progress)
    if paths.RUN.exists():
        # Of a machine that went down with the lab up; mounts mean that it did not.
        if any(Path(point).is_relative_to(paths.RUN) for point in disk.mount_points()):
            raise LabError(f"{paths.RUN} is in use, but {paths.STATE} is gone. Clear it with: tools/lab down")
        shutil.rmtree(paths.RUN)
    fresh = State(boot_id=states.boot_id(), release=chosen, tree=str(tree), sites=count)
    fresh.save()
    return fresh


def _remove_surplus(*, wanted: tuple[topology.Host, ...], state: State, progress: Progress) -> None:
    keep = {host.name for host in wanted}
    surplus = [teardown.host_of(name) for name in state.hosts if name not in keep]
    if not surplus:
        return
    progress.say(f"Removing {len(surplus)} sites ...")
    hosts.power_off(hosts=surplus, state=state)
    for host in surplus:
        disk.destroy(host.name)
        del state.hosts[host.name]
    state.save()


def _is_whole(*, host: topology.Host, state: State, ports: set[str]) -> bool:
    return hosts.is_running(host=host, state=state) and all(nic.port in ports for nic in host.nics)


def _mend_all(*, wanted: tuple[topology.Host, ...], state: State, progress: Progress) -> None:
    for host in wanted:
        entry = state.hosts.get(host.name)
        if entry is None or not entry.cuts:
            continue
        for name in list(entry.cuts):
            if paths.netns(host.name).exists() and hosts.is_running(host=host, state=state):
                network.set_cable(nic=host.nic(name), how=None)
            del entry.cuts[name]
            progress.say(f"{host.name}: {name} mended")
    state.save()


def kill(*, name: str, progress: Progress) -> None:
    """A power cut."""
    with states.locked(verb="kill", progress=progress):
        state = states.require()
        host = topology.host(name=name, sites=state.sites)
        if not hosts.is_running(host=host, state=state):
            progress.say(f"{name} has no power already.")
        began = time.monotonic()
        hosts.power_off(hosts=[host], state=state)
    progress.say(f"{name} lost its power ({time.monotonic() - began:.2f} s). Its return: tools/lab boot {name}")


def boot(*, name: str, progress: Progress) -> None:
    """Power is back: the host boots from the disk it had."""
    with states.locked(verb="boot", progress=progress):
        state = states.require()
        host = topology.host(name=name, sites=state.sites)
        if hosts.is_running(host=host, state=state):
            progress.say(f"{name} is running already.")
            return
        began = time.monotonic()
        hosts.power_off(hosts=[host], state=state)
        lans = inventory.lans(text=inventory.registry_text()).get(name) or [topology.default_lan(host.number)]
        hosts.boot(host=host, state=state, lans=lans, client_key=inventory.client_key())
    hosts.wait_ready(host=host, state=state)
    progress.say(f"{name} is back ({time.monotonic() - began:.1f} s).")


def cut(*, name: str, network_name: str, how: str | None, progress: Progress) -> None:
    """Cut a host's cable to a network, or mend it (how is None)."""
    verb = "cut" if how else "mend"
    with states.locked(verb=verb, progress=progress):
        state = states.require()
        host = topology.host(name=name, sites=state.sites)
        topology.network_named(network_name)
        nic = host.nic(network_name)
        entry = state.hosts.get(name)
        if entry is None:
            raise LabError(f"{name} has not been made yet. Run: tools/lab up")
        if how:
            entry.cuts[network_name] = how
        else:
            entry.cuts.pop(network_name, None)
        if hosts.is_running(host=host, state=state):
            network.set_cable(nic=nic, how=how)
        state.save()
    progress.say(f"{name}: {network_name} " + (f"cut ({how})" if how else "mended"))
