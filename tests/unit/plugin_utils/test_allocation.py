# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses never change, blocks move as little as possible, and the same input gives the same answer."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.spokewright.fleet.plugins.plugin_utils.allocation import (
    Allocation,
    NetworkExhaustedError,
    allocate,
    instance_index,
    instance_name,
    release,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.lock import Lock, Tombstone, lock_text

if TYPE_CHECKING:
    from collections.abc import Collection

EMPTY = Lock(network="10.101.0.0/22", block_prefix=28)


def ids(*numbers: int) -> list[str]:
    return [f"site-{number:04d}" for number in numbers]


def run(lock: Lock, sites: Collection[str], instances: int = 2, today: str = "2026-11-23") -> Allocation:
    return allocate(lock=lock, site_ids=sites, instances=instances, today=today)


def kinds(result: Allocation) -> Counter[str]:
    return Counter(change.kind for change in result.changes)


def test_the_first_sites_alternate_between_the_instances() -> None:
    result = run(EMPTY, ids(1, 2, 3))

    assert result.lock.sites == {"site-0001": "10.101.0.16", "site-0002": "10.101.0.32", "site-0003": "10.101.0.17"}
    assert result.lock.blocks == {"10.101.0.16/28": "tun0", "10.101.0.32/28": "tun1"}
    assert kinds(result) == {"instance-added": 2, "block-added": 2, "site-added": 3}
    assert result.why["site-0003"] == "new: tun0 had the fewest sites (1), 10.101.0.16/28 its first free address"


def test_a_full_instance_gets_the_lowest_free_block() -> None:
    result = run(EMPTY, ids(*range(1, 18)), instances=1)

    assert result.lock.sites["site-0016"] == "10.101.0.31"
    assert result.lock.sites["site-0017"] == "10.101.0.32"
    assert result.changes[-2].why == "tun0 has the fewest sites (16) and no free address left"


def test_a_second_run_changes_nothing() -> None:
    first = run(EMPTY, ids(*range(1, 60)), instances=3)
    second = run(first.lock, ids(*range(1, 60)), instances=3, today="2027-01-01")

    assert second.changes == ()
    assert lock_text(lock=second.lock) == lock_text(lock=first.lock)
    assert set(second.why.values()) == {"kept: the lock has this address"}


def test_a_removed_site_leaves_a_tombstone_that_nobody_else_gets() -> None:
    first = run(EMPTY, ids(1, 2, 3))
    second = run(first.lock, ids(2, 3, 4), today="2026-12-01")

    assert second.lock.tombstones == {"site-0001": Tombstone("10.101.0.16", "2026-12-01")}
    assert "10.101.0.16" not in second.lock.sites.values()
    removed = second.changes[0]
    assert (removed.kind, removed.subject, removed.before, removed.after) == (
        *("site-removed", "site-0001", "10.101.0.16"),
        "",
    )


def test_a_tombstone_keeps_its_date() -> None:
    first = run(EMPTY, ids(1, 2))
    second = run(first.lock, ids(2), today="2026-12-01")
    third = run(second.lock, ids(2), today="2026-12-24")

    assert third.lock.tombstones["site-0001"].removed == "2026-12-01"
    assert third.changes == ()


def test_a_returning_site_gets_its_old_address() -> None:
    first = run(EMPTY, ids(1, 2, 3))
    second = run(first.lock, ids(2, 3), today="2026-12-01")
    third = run(second.lock, ids(1, 2, 3, 4))

    assert third.lock.sites["site-0001"] == "10.101.0.16"
    assert third.lock.tombstones == {}
    assert third.why["site-0001"] == "returned: it had this address until 2026-12-01"
    assert kinds(third) == {"site-returned": 1, "site-added": 1}


def test_a_released_address_goes_to_the_next_site() -> None:
    first = run(EMPTY, ids(1, 2, 3))
    second = run(first.lock, ids(2, 3))
    third = run(release(lock=second.lock, site_ids=["site-0001"], registered=ids(2, 3, 4))[0], ids(2, 3, 4))

    assert third.lock.sites["site-0004"] == "10.101.0.16"


@pytest.mark.parametrize(
    ("site", "text"),
    [
        (
            "site-0002",
            "site-0002: has its address in use, there is nothing to release. Remove it from the registry first.",
        ),
        ("site-0009", "site-0009: the lock keeps no address for this id. `tools/fleet plan` lists what it keeps."),
    ],
)
def test_releasing_what_is_not_dead_is_an_error(site: str, text: str) -> None:
    lock = run(EMPTY, ids(1, 2)).lock

    with pytest.raises(FleetError) as caught:
        release(lock=lock, site_ids=[site], registered=ids(1, 2))

    assert str(caught.value) == text


def test_a_site_of_a_full_network_is_replaced_in_one_edit() -> None:
    tiny = Lock(network="10.101.0.0/28", block_prefix=30)
    full = run(tiny, ids(*range(1, 12)), instances=1).lock
    wanted = ids(*range(2, 13))

    freed, changes = release(lock=full, site_ids=["site-0001"], registered=wanted)

    assert run(freed, wanted, instances=1).lock.sites["site-0012"] == full.sites["site-0001"]
    assert [(one.kind, one.subject, one.before, one.after) for one in changes] == [
        ("site-released", "site-0001", full.sites["site-0001"], "")
    ]


def test_the_last_address_of_the_network_is_not_used() -> None:
    tiny = Lock(network="10.101.0.0/28", block_prefix=30)

    full = run(tiny, ids(*range(1, 12)), instances=1)
    assert max(full.lock.sites.values(), key=lambda address: int(address.rpartition(".")[2])) == "10.101.0.14"
    with pytest.raises(NetworkExhaustedError) as caught:
        run(tiny, ids(*range(1, 13)), instances=1)

    assert (caught.value.capacity, caught.value.wanted, caught.value.tombstones) == (11, 12, 0)


def test_tombstones_count_when_the_network_is_exhausted() -> None:
    tiny = Lock(network="10.101.0.0/28", block_prefix=30)
    full = run(tiny, ids(*range(1, 12)), instances=1)

    with pytest.raises(NetworkExhaustedError) as caught:
        run(full.lock, ids(*range(2, 13)), instances=1)

    assert (caught.value.wanted, caught.value.tombstones) == (11, 1)


def test_a_site_goes_to_another_instance_when_only_that_has_room() -> None:
    """Two instances, three blocks of four: the one without a spare block must not end the run."""
    tiny = Lock(network="10.101.0.0/28", block_prefix=30)

    full = run(tiny, ids(*range(1, 12)), instances=2)

    assert len(full.lock.sites) == 11


def test_more_instances_move_a_share_of_the_blocks_and_no_address() -> None:
    first = run(EMPTY, ids(*range(1, 97)), instances=2)
    second = run(first.lock, ids(*range(1, 97)), instances=3)

    assert second.lock.sites == first.lock.sites
    assert kinds(second) == {"instance-added": 1, "block-moved": 2}
    assert Counter(second.lock.blocks.values()) == {"tun0": 2, "tun1": 2, "tun2": 2}
    moved = next(change for change in second.changes if change.kind == "block-moved")
    assert moved.why == "3 instances share 6 blocks; 16 sites move with it, no address changes"


def test_fewer_instances_move_only_what_the_gone_ones_had() -> None:
    first = run(EMPTY, ids(*range(1, 97)), instances=3)
    second = run(first.lock, ids(*range(1, 97)), instances=2)

    assert second.lock.sites == first.lock.sites
    assert kinds(second) == {"instance-removed": 1, "block-moved": 2}
    assert {change.before for change in second.changes if change.kind == "block-moved"} == {"tun2"}


def test_adding_sites_moves_no_block() -> None:
    """Also where blocks are spread unevenly: spreading them is for when the number of instances changes."""
    lock = Lock(
        network="10.101.0.0/22",
        block_prefix=28,
        instances=2,
        blocks={"10.101.0.16/28": "tun0", "10.101.0.32/28": "tun0", "10.101.0.48/28": "tun0"},
        sites={"site-0001": "10.101.0.16"},
    )

    assert kinds(run(lock, ids(1, 2, 3))) == {"block-added": 1, "site-added": 2}


def test_a_lock_without_the_number_of_instances_is_understood() -> None:
    lock = Lock(
        network="10.101.0.0/22",
        block_prefix=28,
        blocks={"10.101.0.16/28": "tun0", "10.101.0.32/28": "tun1"},
        sites={"site-0001": "10.101.0.16", "site-0002": "10.101.0.32"},
    )

    assert run(lock, ids(1, 2)).changes == ()
    assert run(lock, ids(1, 2)).lock.instances == 2


@pytest.mark.parametrize(
    ("name", "index"), [("tun0", 0), ("tun63", 63), ("tun01", None), ("tun100", None), ("x", None)]
)
def test_instance_names(name: str, index: int | None) -> None:
    assert instance_index(name) == index
    assert index is None or instance_name(index) == name


@settings(max_examples=60, deadline=None)
@given(
    before=st.integers(1, 9),
    after=st.integers(1, 9),
    sites=st.integers(1, 300),
    gone=st.integers(0, 100),
    seed=st.randoms(),
)
def test_moves_are_minimal_and_no_address_changes(
    before: int, after: int, sites: int, gone: int, seed: random.Random
) -> None:
    everyone = ids(*range(1, sites + 1))
    first = run(EMPTY, everyone, instances=before)
    stay = sorted(seed.sample(everyone, max(1, sites - gone)))
    uneven = run(first.lock, stay, instances=before)
    second = run(uneven.lock, stay, instances=after)

    assert second.lock.sites == uneven.lock.sites
    moves = [change for change in second.changes if change.kind == "block-moved"]
    held = Counter(uneven.lock.blocks.values())
    now = Counter(second.lock.blocks.values())
    names = [instance_name(index) for index in range(after)]
    assert set(now) <= set(names)
    if before == after:
        assert moves == []
        return
    counts = [now[name] for name in names]
    assert max(counts) - min(counts) <= 1
    # Each instance can keep at most its share; `extra` of them may keep one more.
    share, extra = divmod(len(uneven.lock.blocks), after)
    kept = sum(min(held[name], share) for name in names)
    kept += min(extra, sum(held[name] > share for name in names))
    assert len(moves) == len(uneven.lock.blocks) - kept
    assert run(second.lock, stay, instances=after).changes == ()


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.sets(st.integers(1, 60), min_size=1), st.integers(1, 5)), min_size=1, max_size=6))
def test_a_life_of_changes_keeps_every_promise(steps: list[tuple[set[int], int]]) -> None:
    lock = EMPTY
    ever: dict[str, str] = {}
    for numbers, instances in steps:
        wanted = ids(*sorted(numbers))
        shuffled = list(wanted)
        random.Random(1).shuffle(shuffled)  # noqa: S311 - a shuffle, no secret
        result = run(lock, wanted, instances=instances)
        assert run(lock, shuffled, instances=instances) == result
        lock = result.lock
        assert set(lock.sites) == set(wanted)
        held = [*lock.sites.values(), *(stone.address for stone in lock.tombstones.values())]
        assert len(set(held)) == len(held)
        for site, address in lock.sites.items():
            assert ever.setdefault(site, address) == address
        assert not any(address.startswith("10.101.0.") and int(address.rpartition(".")[2]) < 16 for address in held)
