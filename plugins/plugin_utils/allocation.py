# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give every site its tunnel address, and every block of addresses its instance.

The rules, in the order in which they hold:

1. A site keeps its address for ever. A removed site leaves a tombstone; a site that returns gets its address back; a
   tombstone's address goes to nobody else until it is released by hand.
2. When the number of instances changes, blocks are spread evenly again (numbers differ by one at most) by moving as few
   blocks as possible, and among those the ones with the fewest sites.
3. A new site goes to the instance with the fewest sites (the lowest index among equals), into the first of its blocks
   with a free address; when all are full, the instance gets the lowest free block.

Block 0 belongs to the gateways, the last address of the network to nobody.
"""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from ansible_collections.spokewright.fleet.plugins.plugin_utils.addresses import (
    address_number,
    address_text,
    host_mask,
    parse_prefix,
    prefix_text,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.lock import Lock, Tombstone

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

MAX_INSTANCES = 64
_INSTANCE = re.compile(r"tun(0|[1-9][0-9]?)")

ChangeKind = Literal[
    "site-added",
    "site-removed",
    "site-returned",
    "site-released",
    "block-added",
    "block-moved",
    "instance-added",
    "instance-removed",
]


class NetworkExhaustedError(FleetError):
    """The tunnel network has no address left."""

    def __init__(self, *, capacity: int, wanted: int, kept: Mapping[str, Tombstone]) -> None:
        self.capacity = capacity
        self.wanted = wanted
        self.tombstones = len(kept)
        # The one that was removed first is the least likely to return.
        self.oldest = min(kept, key=lambda name: (kept[name].removed, name), default="")
        super().__init__(f"room for {capacity} sites, {wanted} wanted, {len(kept)} addresses kept by tombstones")


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between the lock on disk and the lock as it would be written."""

    kind: ChangeKind
    subject: str
    before: str
    after: str
    why: str


@dataclass(frozen=True, slots=True)
class Allocation:
    """The new lock, what differs from the old, and for each site why it is where it is."""

    lock: Lock
    changes: tuple[Change, ...]
    why: Mapping[str, str]


def instance_name(index: int) -> str:
    """Return the name of an instance: also its tun device and its configuration."""
    return f"tun{index}"


def instance_index(name: str) -> int | None:
    """Return the index in an instance's name, None when it is no such name."""
    found = _INSTANCE.fullmatch(name)
    return int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class Grid:
    """The tunnel network as numbered blocks."""

    first: int
    length: int
    block_prefix: int

    @classmethod
    def of(cls, *, network: str, block_prefix: int) -> Grid:
        """Return the grid of a network that is known to be valid."""
        parsed = parse_prefix(network)
        if parsed is None:
            raise FleetError(f"{network!r} is no IPv4 prefix.")
        return cls(first=parsed[0], length=parsed[1], block_prefix=block_prefix)

    @property
    def last(self) -> int:
        """The network's last address."""
        return self.first | host_mask(self.length)

    @property
    def block_size(self) -> int:
        """Addresses in a block."""
        return 1 << (32 - self.block_prefix)

    @property
    def block_count(self) -> int:
        """Blocks in the network, the gateways' included."""
        return 1 << (self.block_prefix - self.length)

    @property
    def capacity(self) -> int:
        """Sites the network has addresses for."""
        return (self.block_count - 1) * self.block_size - 1

    def block_of(self, address: int) -> int:
        """Return the first address of the block that holds an address."""
        return address & ~host_mask(self.block_prefix)

    def text(self, block: int) -> str:
        """Return a block as ADDRESS/LENGTH."""
        return prefix_text(block, self.block_prefix)

    def text_of(self, address: str) -> str:
        """Return the block that holds an address, as ADDRESS/LENGTH."""
        return self.text(self.block_of(_number(address)))

    def addresses(self, block: int) -> range:
        """Return the addresses of a block that sites may have."""
        return range(block, min(block + self.block_size, self.last))

    def blocks(self) -> range:
        """Return the blocks that sites may have, lowest first."""
        return range(self.first + self.block_size, self.last + 1, self.block_size)


def _number(text: str) -> int:
    number = address_number(text)
    if number is None:
        raise FleetError(f"{text!r} is no IPv4 address.")
    return number


def _block(text: str) -> int:
    return _number(text.partition("/")[0])


class _Work:
    """The allocation while it is being made."""

    def __init__(self, *, lock: Lock, count: int) -> None:
        self.grid = Grid.of(network=lock.network, block_prefix=lock.block_prefix)
        self.count = count
        self.owner: dict[int, int] = {}
        self.sites: dict[str, int] = {}
        self.tombstones: dict[str, Tombstone] = dict(lock.tombstones)
        self.changes: list[Change] = []
        self.why: dict[str, str] = {}
        for block, name in lock.blocks.items():
            index = instance_index(name)
            if index is None:
                raise FleetError(f"{name!r} is no name of an instance.")
            self.owner[_block(block)] = index

    def note(self, kind: ChangeKind, subject: str, *, before: str, after: str, why: str) -> None:
        self.changes.append(Change(kind, subject, before, after, why))

    def sites_in_blocks(self) -> dict[int, int]:
        counts: dict[int, int] = defaultdict(int)
        for address in self.sites.values():
            counts[self.grid.block_of(address)] += 1
        return counts


def allocate(*, lock: Lock, site_ids: Collection[str], instances: int, today: str) -> Allocation:
    """Return where every site goes. The same input gives the same answer, whatever the order of `site_ids`."""
    work = _Work(lock=lock, count=instances)
    wanted = set(site_ids)
    newcomers = _keep(work=work, lock=lock, wanted=wanted, today=today)
    _spread(work=work, before=_recorded_instances(lock))
    _place(work=work, newcomers=newcomers, wanted=len(wanted))
    grid = work.grid
    new_lock = replace(
        lock,
        instances=instances,
        blocks={grid.text(block): instance_name(index) for block, index in sorted(work.owner.items())},
        sites={name: address_text(address) for name, address in sorted(work.sites.items())},
        tombstones=dict(sorted(work.tombstones.items())),
    )
    return Allocation(lock=new_lock, changes=tuple(work.changes), why=work.why)


def release(*, lock: Lock, site_ids: Iterable[str], registered: Collection[str]) -> tuple[Lock, tuple[Change, ...]]:
    """Return the lock without these removed sites, and what that changes: their addresses may go to other sites.

    `registered` are the ids in the registry. A site that has just left it needs no tombstone first: in a full network
    its successor could not be added in the same edit.
    """
    gone = sorted(set(site_ids))
    changes: list[Change] = []
    for site_id in gone:
        if site_id in registered:
            raise FleetError(
                f"{site_id}: has its address in use, there is nothing to release. Remove it from the registry first."
            )
        stone = lock.tombstones.get(site_id)
        address = stone.address if stone else lock.sites.get(site_id)
        if address is None:
            raise FleetError(
                f"{site_id}: the lock keeps no address for this id. `tools/fleet plan` lists what it keeps."
            )
        why = "released by hand; its address may go to another site"
        changes.append(Change("site-released", site_id, address, "", why))
    kept = replace(
        lock,
        sites={name: address for name, address in lock.sites.items() if name not in gone},
        tombstones={name: stone for name, stone in lock.tombstones.items() if name not in gone},
    )
    return kept, tuple(changes)


def _recorded_instances(lock: Lock) -> int:
    known = [index for index in map(instance_index, lock.blocks.values()) if index is not None]
    return lock.instances or (max(known) + 1 if known else 0)


def _keep(*, work: _Work, lock: Lock, wanted: set[str], today: str) -> list[str]:
    """Apply rule 1 and return the sites that have no address yet."""
    for site_id, address in sorted(lock.sites.items()):
        if site_id in wanted:
            work.sites[site_id] = _number(address)
            work.why[site_id] = "kept: the lock has this address"
        else:
            work.tombstones[site_id] = Tombstone(address=address, removed=today)
            why = "no longer in the registry; its address goes to nobody else until it is released"
            work.note("site-removed", site_id, before=address, after="", why=why)
    newcomers: list[str] = []
    for site_id in sorted(wanted.difference(lock.sites)):
        stone = work.tombstones.pop(site_id, None)
        if stone is None:
            newcomers.append(site_id)
            continue
        work.sites[site_id] = _number(stone.address)
        work.why[site_id] = f"returned: it had this address until {stone.removed}"
        work.note(
            "site-returned", site_id, before="", after=stone.address, why=f"it had this address until {stone.removed}"
        )
    return newcomers


def _spread(*, work: _Work, before: int) -> None:
    """Apply rule 2."""
    now = work.count
    for index in range(before, now):
        work.note(
            "instance-added", instance_name(index), before="", after=instance_name(index), why=f"the plan has {now}"
        )
    for index in range(now, before):
        work.note(
            "instance-removed", instance_name(index), before=instance_name(index), after="", why=f"the plan has {now}"
        )
    if before == now and all(index < now for index in work.owner.values()):
        return
    load = work.sites_in_blocks()
    held: dict[int, list[int]] = {index: [] for index in range(now)}
    moving: list[int] = []
    for block, index in sorted(work.owner.items()):
        (held[index] if index < now else moving).append(block)
    share, extra = divmod(len(work.owner), now)
    # Whoever has most blocks keeps the odd ones: nothing else moves fewer.
    richest = sorted(held, key=lambda index: (-len(held[index]), index))
    target = {index: share + (rank < extra) for rank, index in enumerate(richest)}
    for index, blocks in held.items():
        surplus = len(blocks) - target[index]
        if surplus > 0:
            leaving = sorted(blocks, key=lambda block: (load.get(block, 0), -block))[:surplus]
            moving.extend(leaving)
            held[index] = [block for block in blocks if block not in leaving]
    sites = {index: sum(load.get(block, 0) for block in blocks) for index, blocks in held.items()}
    for block in sorted(moving, key=lambda block: (-load.get(block, 0), block)):
        poor = [index for index in held if len(held[index]) < target[index]]
        index = min(poor, key=lambda index: (sites[index], index))
        old = instance_name(work.owner[block])
        held[index].append(block)
        sites[index] += load.get(block, 0)
        work.owner[block] = index
        passengers = load.get(block, 0)
        why = f"{now} instances share {len(work.owner)} blocks; {passengers} sites move with it, no address changes"
        work.note("block-moved", work.grid.text(block), before=old, after=instance_name(index), why=why)


def _place(*, work: _Work, newcomers: list[str], wanted: int) -> None:
    """Apply rule 3."""
    if not newcomers:
        return
    grid, now = work.grid, work.count
    used = set(work.sites.values()) | {_number(stone.address) for stone in work.tombstones.values()}
    free: dict[int, list[int]] = {index: [] for index in range(now)}
    for block, index in sorted(work.owner.items(), reverse=True):
        # Popped from the end: the lowest address of the lowest block comes first.
        free[index].extend(address for address in reversed(grid.addresses(block)) if address not in used)
    spare = (
        block
        for block in grid.blocks()
        if block not in work.owner and any(address not in used for address in grid.addresses(block))
    )
    upcoming = next(spare, None)
    counts = dict.fromkeys(range(now), 0)
    for address in work.sites.values():
        counts[work.owner[grid.block_of(address)]] += 1
    heap = [(count, index) for index, count in counts.items()]
    heapq.heapify(heap)
    for site_id in newcomers:
        while heap and not free[heap[0][1]] and upcoming is None:
            heapq.heappop(heap)
        if not heap:
            raise NetworkExhaustedError(capacity=grid.capacity, wanted=wanted, kept=work.tombstones)
        count, index = heap[0]
        name = instance_name(index)
        if not free[index] and upcoming is not None:
            work.owner[upcoming] = index
            free[index].extend(address for address in reversed(grid.addresses(upcoming)) if address not in used)
            why = f"{name} has the fewest sites ({count}) and no free address left"
            work.note("block-added", grid.text(upcoming), before="", after=name, why=why)
            upcoming = next(spare, None)
        address = free[index].pop()
        block = grid.block_of(address)
        work.sites[site_id] = address
        heapq.heapreplace(heap, (count + 1, index))
        why = f"new: {name} had the fewest sites ({count}), {grid.text(block)} its first free address"
        work.why[site_id] = why
        work.note("site-added", site_id, before="", after=address_text(address), why=why)
