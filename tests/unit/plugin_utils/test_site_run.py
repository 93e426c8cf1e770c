# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run over many sites allows each of them, and what it enters in the key store's books."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import site_run as s
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import SiteResult
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStoreLockedError, Seen, open_store
from unit.plugin_utils.fleet_files import write_fleet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.delivery import Order


@pytest.mark.parametrize(("verb", "seconds"), [("stage", 120), ("activate", 30), ("confirm", 30)])
def test_a_frozen_site_does_not_use_up_the_dead_man_timers_of_the_others(
    tmp_path: Path, verb: str, seconds: int
) -> None:
    run = s.SiteRun(fleet=load_fleet(plan_file=write_fleet(tmp_path)), verb=verb, deadman_seconds=120, dry_run=False)

    assert run.timeouts.deadline == seconds


class Books:
    """Stands for the key store: what was entered, and while whose operation."""

    def __init__(self) -> None:
        self.operations: list[tuple[str, int | None]] = []
        self.marked: list[list[Seen]] = []
        self.open = False

    @contextlib.contextmanager
    def operation(self, what: str, *, owner: int | None = None) -> Iterator[None]:
        self.operations.append((what, owner))
        self.open = True
        yield
        self.open = False

    def mark(self, *, seen: list[Seen]) -> int:
        assert self.open
        self.marked.append(list(seen))
        return len(seen)


def run_of(tmp_path: Path, verb: str, *, store: Any, dry_run: bool = False, **more: Any) -> s.SiteRun:
    fleet = load_fleet(plan_file=write_fleet(tmp_path))
    return s.SiteRun(fleet=fleet, verb=verb, deadman_seconds=120, dry_run=dry_run, store=store, **more)


def answer(run: s.SiteRun, monkeypatch: pytest.MonkeyPatch, **receipt: Any) -> None:
    def one(site: str) -> SiteResult:
        return SiteResult(site=site, ok=site != "bad", changed=True, receipt={"epoch": 1, **receipt})

    monkeypatch.setattr(run, "one", one)


def test_what_sites_hold_is_entered_in_batches_while_the_operation_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = Books()
    run = run_of(tmp_path, "stage", store=books, owner=77)
    answer(run, monkeypatch, generation=2, current=1, confirmed=1)
    heard: list[int] = []
    sites = [f"site-{n}" for n in range(120)]
    results = run.carry_out(sites=[*sites, "bad"], workers=4, on_progress=lambda progress: heard.append(progress.done))
    assert (len(results), heard[-1]) == (121, 121)
    assert books.operations == [("stage on 121 sites", 77)]
    assert [len(one) for one in books.marked] == [50, 50, 20]
    entered = [seen for batch in books.marked for seen in batch]
    assert {seen.site for seen in entered} == set(sites)
    assert {(seen.epoch, seen.state) for seen in entered} == {(1, "staged")}


@pytest.mark.parametrize(("verb", "dry_run"), [("show", False), ("stage", True), ("forget", True)])
def test_a_run_that_only_looks_takes_no_lock_and_enters_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, *, dry_run: bool
) -> None:
    books = Books()
    run = run_of(tmp_path, verb, store=books, dry_run=dry_run)
    answer(run, monkeypatch, generation=1, current=1, confirmed=1)
    assert run.carry_out(sites=["site-0001"])["site-0001"].ok
    assert (books.operations, books.marked) == ([], [])


def test_what_is_known_when_a_run_is_interrupted_is_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    books = Books()
    run = run_of(tmp_path, "confirm", store=books)
    answer(run, monkeypatch, generation=1, current=1, confirmed=1)

    def stop(_progress: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.carry_out(sites=["site-0001"], on_progress=stop)
    assert books.marked == [[Seen(site="site-0001", epoch=1, state="confirmed")]]


def test_a_second_operator_is_told_who_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = load_fleet(plan_file=write_fleet(tmp_path))
    first, second = open_store(fleet.plan), open_store(fleet.plan)
    run = run_of(tmp_path, "stage", store=second)
    answer(run, monkeypatch, generation=1, current=0, confirmed=0)
    told = f"{os.getpid()}.*stage on 4 sites"
    with first.operation("stage on 4 sites"), pytest.raises(KeyStoreLockedError, match=told):
        run.carry_out(sites=["site-0001"])


def held(generation: int, epoch: int) -> dict[str, Any]:
    return {"generation": generation, "digest": "d", "intact": True, "facts": {"epoch": epoch}}


@pytest.mark.parametrize(
    ("verb", "receipt", "seen"),
    [
        ("stage", {"epoch": 3, "generation": 2, "current": 1, "confirmed": 1}, [(3, "staged", False)]),
        ("stage", {"epoch": 3, "generation": 2, "current": 2, "confirmed": 2}, [(3, "confirmed", False)]),
        ("activate", {"epoch": 3, "generation": 2, "current": 2, "confirmed": 1}, [(3, "active", False)]),
        ("confirm", {"epoch": 3, "generation": 2, "current": 2, "confirmed": 2}, [(3, "confirmed", False)]),
        (
            "revert",
            {"generations": [held(1, 2), held(2, 3)], "current": 1, "confirmed": 1, "reverted": 2},
            [(3, "staged", True), (2, "confirmed", True)],
        ),
        (
            "revert",
            {"generations": [held(1, 3), held(2, 3)], "current": 1, "confirmed": 1, "reverted": 2},
            [(3, "confirmed", True)],
        ),
        ("revert", {"generations": [], "current": 1, "confirmed": 1, "reverted": 2}, []),
        ("forget", {"generations": [held(1, 2)], "current": 1, "confirmed": 1, "reverted": 0}, []),
        ("show", {"generations": [held(1, 2)], "current": 1, "confirmed": 1, "reverted": 0}, []),
    ],
)
def test_states_follow_from_what_the_site_has_proven(
    verb: str, receipt: dict[str, Any], seen: list[tuple[int, str, bool]]
) -> None:
    result = SiteResult(site="x", ok=True, receipt=receipt)
    wanted = [Seen(site="x", epoch=epoch, state=state, back=back) for epoch, state, back in seen]
    assert s.seen_by(verb=verb, result=result) == wanted
    assert s.seen_by(verb=verb, result=SiteResult(site="x", ok=False, receipt=receipt)) == []


def test_thousands_of_receipts_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = load_fleet(plan_file=write_fleet(tmp_path))
    store = open_store(fleet.plan)
    name = fleet.sites[0].id
    store.ensure(fleet="lab", key_type="p256", gateways=["gw1"], sites=[name])
    orders: list[Order] = []
    changed = False

    def carry_out(*, order: Order, timeouts: Any) -> SiteResult:
        orders.append(order)
        receipt = {"config": "long", "manifest": "long", "installed": True, "current": 1}
        return SiteResult(site=order.target.name, ok=timeouts is not None, changed=changed, receipt=receipt)

    monkeypatch.setattr(s, "carry_out", carry_out)
    run = s.SiteRun(fleet=fleet, verb="stage", deadman_seconds=9, dry_run=False, store=store, texts=True)
    assert run.one(name).receipt == {"installed": True, "current": 1, "epoch": 1}
    changed = True
    assert run.one(name).receipt["config"] == "long"
    assert (orders[0].texts, orders[0].deadman_seconds) == (True, 9)
    assert orders[0].bundle is not None
    s.SiteRun(fleet=fleet, verb="forget", deadman_seconds=9, dry_run=False, store=store, generation="old").one(name)
    assert (orders[-1].bundle, orders[-1].generation) == (None, "old")

    # "retired" means what lies before the key that this site has confirmed.
    retired = s.SiteRun(fleet=fleet, verb="forget", deadman_seconds=9, dry_run=False, store=store, generation="retired")
    for confirmed, words in ((None, "below 0"), (1, "below 1")):
        if confirmed:
            store.mark(seen=[Seen(site=name, epoch=confirmed, state="confirmed")])
        retired.one(name)
        assert orders[-1].generation == words


def test_a_site_whose_key_was_never_made_says_so_and_nothing_is_sent(tmp_path: Path) -> None:
    fleet = load_fleet(plan_file=write_fleet(tmp_path))
    result = s.SiteRun(fleet=fleet, verb="stage", deadman_seconds=9, dry_run=False).one(fleet.sites[0].id)
    assert (result.ok, result.reason) == (False, "no-key")
