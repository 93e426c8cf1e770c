# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load a fleet: plan, registry and lock, checked as a whole, with everything derived from them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils.allocation import (
    Allocation,
    Change,
    Grid,
    NetworkExhaustedError,
    allocate,
    instance_index,
    instance_name,
    release,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import write_atomic
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_file import (
    Capacity,
    capacity_file,
    read_capacity,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError, InputErrors, Problem
from ansible_collections.spokewright.fleet.plugins.plugin_utils.lock import Lock, lock_text
from ansible_collections.spokewright.fleet.plugins.plugin_utils.lock_reader import LockReader
from ansible_collections.spokewright.fleet.plugins.plugin_utils.placed_reader import PlacedReader
from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Keepalive
from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan_reader import PlanReader
from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan_rules import judge_plan
from ansible_collections.spokewright.fleet.plugins.plugin_utils.registry import RegistryReader, SiteRow
from ansible_collections.spokewright.fleet.plugins.plugin_utils.registry_rules import RegistryRules
from ansible_collections.spokewright.fleet.plugins.plugin_utils.timers import SPREAD, Timers, site_timers
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tunnel_fit import TunnelFit, tunnel_fit
from ansible_collections.spokewright.fleet.plugins.plugin_utils.yaml_source import read_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Bastion, Client, Plan
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan_facts import PlanFacts

__all__ = ["Change", "Fleet", "Instance", "Remote", "Site", "Timers", "load_fleet", "write_lock"]

_LOCK_MODE = 0o644


@dataclass(frozen=True, slots=True)
class Instance:
    """One openvpn daemon, the same on both gateways."""

    name: str
    index: int
    port: int
    device: str
    blocks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a site's client may connect to, over which transport."""

    transport: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Site:
    """One remote, with everything derived for it."""

    id: str
    group: str
    oob_address: str
    oob_port: int
    oob_user: str
    oob_client: Client
    bastion: Bastion | None
    host_key: str
    lans: tuple[str, ...]
    transports: tuple[str, ...]
    tunnel_address: str
    tunnel_block: str
    instance: str
    port: int
    timers: Timers
    fit: TunnelFit
    remotes: tuple[Remote, ...]
    why: str
    line: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet whose input is free of faults. `lock` is as it would be written, `changes` what differs from the disk."""

    plan: Plan
    sites: tuple[Site, ...]
    instances: tuple[Instance, ...]
    lock: Lock
    changes: tuple[Change, ...]
    plan_file: Path
    lock_on_disk: bytes | None
    # What was measured on the gateways; None until somebody has, and when its file has faults.
    capacity: Capacity | None = None
    capacity_faults: tuple[Problem, ...] = ()

    def refuse_bad_capacity(self) -> None:
        """Raise InputErrors when limits and timers would not be those that somebody has recorded."""
        if self.capacity_faults:
            raise InputErrors(self.capacity_faults)


def shown_path(path: Path) -> str:
    """Return a path as an operator types it: relative to where they are, if it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def load_fleet(
    *,
    plan_file: Path,
    today: date | None = None,
    require_host_keys: bool = True,
    release_sites: Sequence[str] = (),
) -> Fleet:
    """Read and check everything; raise InputErrors with every fault of all files.

    Faults of the measured capacity alone are no reason to look at nothing and to brake nobody: they stand in the fleet,
    and whoever writes configuration from it refuses them.

    `require_host_keys=False` is for the one command that fetches the keys that are missing. `release_sites` are
    removed sites whose addresses go back to the free ones before anything is allocated.
    """
    plan_file = plan_file.absolute()
    problems: list[Problem] = []
    shown_plan = shown_path(plan_file)
    data = _read(file=plan_file, problems=problems, missing="Name the plan with -i: it ends in .fleet.yml.")
    if data is None:
        raise InputErrors(problems)
    reader = PlacedReader(file=shown_plan, problems=problems)
    plan_reader = PlanReader(
        reader=reader, plan_file=plan_file, plan_argument=shown_plan, require_host_keys=require_host_keys
    )
    plan = _read_plan(data=data, shown=shown_plan, plan_reader=plan_reader, reader=reader, problems=problems)
    facts = reader.facts
    rows = _read_registry(
        file=plan_reader.path_of("registry"),
        shown_plan=shown_plan,
        facts=facts,
        problems=problems,
        require_host_keys=require_host_keys,
    )
    capacity_faults: list[Problem] = []
    capacity = _read_capacity(plan_file=plan_file, plan=plan, problems=capacity_faults)
    lock_file = plan_reader.path_of("lock")
    if lock_file == plan_reader.path_of("registry"):
        lock_file = None
    lock, lock_on_disk = _read_lock(file=lock_file, shown_plan=shown_plan, facts=facts, problems=problems)
    if problems or plan is None or lock is None:
        raise InputErrors([*problems, *capacity_faults])
    ids = [row.id for row in rows]
    lock, released = release(lock=lock, site_ids=release_sites, registered=ids)
    day = (today or datetime.now(tz=UTC).date()).isoformat()
    try:
        allocation = allocate(lock=lock, site_ids=ids, instances=plan.tunnels.instances.count, today=day)
    except NetworkExhaustedError as exc:
        line = facts.line("tunnels.network")
        raise InputErrors([_exhausted(shown_plan, line, plan, exc, new=lock_on_disk is None)]) from exc
    allocation = replace(allocation, changes=(*released, *allocation.changes))
    fleet = _assemble(plan=plan, rows=rows, allocation=allocation, lock_on_disk=lock_on_disk, capacity=capacity)
    return replace(fleet, capacity_faults=tuple(capacity_faults))


def write_lock(*, fleet: Fleet) -> bool:
    """Write the lock when it differs from the disk, and say whether it did."""
    path = fleet.plan.lock
    text = lock_text(lock=fleet.lock).encode()
    now = path.read_bytes() if path.exists() else None
    if now == text:
        return False
    if now != fleet.lock_on_disk:
        raise FleetError(f"{shown_path(path)}: somebody else wrote the lock meanwhile. Nothing was written; run again.")
    write_atomic(path, text, _LOCK_MODE)
    return True


def _read(*, file: Path, problems: list[Problem], missing: str) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        problems.append(Problem(shown_path(file), 0, "", "", "there is no such file.", missing))
    except OSError as exc:
        problems.append(
            Problem(shown_path(file), 0, "", "", f"cannot be read: {exc.strerror}.", "Check its permissions.")
        )
    except ValueError as exc:
        problems.append(Problem(shown_path(file), 0, "", "", f"is no path: {exc}.", missing))
    return None


def _read_plan(
    *, data: bytes, shown: str, plan_reader: PlanReader, reader: PlacedReader, problems: list[Problem]
) -> Plan | None:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        message = f"byte 0x{data[exc.start]:02x} is no UTF-8."
        problems.append(Problem(shown, line, "", "", message, "Save the file as UTF-8."))
        return None
    faults = len(problems)
    root = read_yaml(text=text, file=shown, problems=problems)
    if root is None:
        if len(problems) == faults:
            problems.append(Problem(shown, 0, "", "", "the plan is empty.", "Start from the example inventory."))
        return None
    plan = plan_reader.read(root=root)
    judge_plan(facts=reader.facts, reader=reader)
    return plan


def _read_registry(
    *, file: Path | None, shown_plan: str, facts: PlanFacts, problems: list[Problem], require_host_keys: bool
) -> list[SiteRow]:
    if file is None:
        return []
    data = _read(file=file, problems=problems, missing=f"Correct `registry` in {shown_plan}:{facts.line('registry')}.")
    if data is None:
        return []
    shown = shown_path(file)
    registry = RegistryReader(
        file=shown, facts=facts, problems=problems, plan_argument=shown_plan, require_host_keys=require_host_keys
    )
    rows = registry.read(data=data)
    RegistryRules(file=shown, plan_file=shown_plan, facts=facts, problems=problems).judge(rows=rows)
    return rows


def _read_capacity(*, plan_file: Path, plan: Plan | None, problems: list[Problem]) -> Capacity | None:
    file = capacity_file(plan_file)
    if plan is None or _is_nowhere(file):
        return None
    data = _read(file=file, problems=problems, missing="Restore it from git, or remove it.")
    if data is None:
        return None
    gateways = [gateway.name for gateway in plan.gateways]
    return read_capacity(data=data, file=shown_path(file), gateways=gateways, problems=problems)


def _with_measured_keepalive(plan: Plan, capacity: Capacity | None) -> Plan:
    """What the operator has written stays; what was measured takes the place of the default."""
    if capacity is None or plan.tunnels.keepalive.decided:
        return plan
    values = capacity.values
    keepalive = Keepalive(interval=values.keepalive_interval, timeout=values.keepalive_timeout)
    return replace(plan, tunnels=replace(plan.tunnels, keepalive=keepalive))


def _read_lock(
    *, file: Path | None, shown_plan: str, facts: PlanFacts, problems: list[Problem]
) -> tuple[Lock | None, bytes | None]:
    # A lock that is there but cannot be followed is no reason to give every site a new address.
    if file is not None and os.path.islink(file) and not os.path.exists(file):  # noqa: PTH110, PTH114 - never raise
        message = "is a symbolic link that leads to no file."
        remedy = "Restore the lock from git; without it every site may get a new address."
        problems.append(Problem(shown_path(file), 0, "", "", message, remedy))
        return None, None
    if file is not None and not os.path.isdir(file.parent):  # noqa: PTH112 - never raises
        message = f"its directory {shown_path(file.parent)} does not exist or cannot be entered."
        remedy = "Make the directory, or correct the path."
        problems.append(Problem(shown_plan, facts.line("lock"), "lock", str(file), message, remedy))
        return None, None
    if file is None or _is_nowhere(file):
        if facts.tunnel_network is None or facts.block_prefix is None:
            return None, None
        return Lock(network=str(facts.tunnel_network), block_prefix=facts.block_prefix), None
    data = _read(file=file, problems=problems, missing="Restore it from git.")
    if data is None:
        return None, None
    return LockReader(file=shown_path(file), facts=facts, problems=problems).read(data=data), data


def _is_nowhere(file: Path) -> bool:
    """Say whether nothing at all has this name; of a name that cannot be looked up, the reader says why."""
    try:
        file.lstat()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return False


def _exhausted(shown: str, line: int, plan: Plan, error: NetworkExhaustedError, *, new: bool) -> Problem:
    network = str(plan.tunnels.network)
    message = (
        f"{network} is exhausted: it has room for {error.capacity} sites, the registry has {error.wanted}, "
        f"and {error.tombstones} addresses are kept by removed sites."
    )
    # A lock was made for its network: then it is too late for a larger one.
    remedy = "Plan a larger network." if new else "Take sites out; the network of a fleet in use cannot grow."
    if error.oldest:
        command = f"`tools/fleet plan -i {shown} --release {error.oldest} --write`"
        remedy = f"Give the addresses of removed sites that will not return free, as with {command}."
    return Problem(shown, line, "tunnels.network", network, message, remedy)


def _assemble(
    *,
    plan: Plan,
    rows: list[SiteRow],
    allocation: Allocation,
    lock_on_disk: bytes | None,
    capacity: Capacity | None,
) -> Fleet:
    lock = allocation.lock
    spread = SPREAD if capacity is None else capacity.values.spread
    grid = Grid.of(network=lock.network, block_prefix=lock.block_prefix)
    base_port = plan.tunnels.instances.base_port
    blocks: dict[str, list[str]] = {instance_name(index): [] for index in range(plan.tunnels.instances.count)}
    for block, name in lock.blocks.items():
        blocks[name].append(block)
    instances = tuple(
        Instance(name=name, index=index, port=base_port + index, device=name, blocks=tuple(blocks[name]))
        for index, name in enumerate(blocks)
    )
    vips = {transport.name: str(transport.vip) for transport in plan.transports}
    sites = []
    fit = tunnel_fit(mtus=[transport.mtu for transport in plan.transports])
    for row in sorted(rows, key=lambda row: row.id):
        address = lock.sites[row.id]
        block = grid.text_of(address)
        name = lock.blocks[block]
        port = base_port + (instance_index(name) or 0)
        sites.append(
            Site(
                id=row.id,
                group=row.group,
                oob_address=row.oob_address,
                oob_port=row.oob_port,
                oob_user=row.oob_user,
                oob_client=row.oob_client,
                bastion=plan.ssh.bastion if row.oob_bastion else None,
                host_key=row.host_key,
                lans=tuple(lan.text for lan in row.lans),
                transports=row.transports,
                tunnel_address=address,
                tunnel_block=block,
                instance=name,
                port=port,
                timers=site_timers(site_id=row.id, spread=spread),
                fit=fit,
                remotes=tuple(Remote(transport, vips[transport], port) for transport in row.transports),
                why=allocation.why[row.id],
                line=row.line,
            )
        )
    return Fleet(
        plan=_with_measured_keepalive(plan, capacity),
        sites=tuple(sites),
        instances=instances,
        lock=lock,
        changes=allocation.changes,
        plan_file=plan.file,
        lock_on_disk=lock_on_disk,
        capacity=capacity,
    )
