# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several processes of one run, each with a site of its own, and a run of somebody else."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import one_site, operation
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import SiteResult
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import KeyStoreLockedError, Seen
from ansible_collections.spokewright.fleet.plugins.plugin_utils.one_site import carry_out_alone, in_turn
from key_support import new_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.context import ForkProcess
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore

SITES = [f"site-{number:04}" for number in range(1, 9)]


class Run:
    """A site that takes its time, and is then staged."""

    verb = "stage"
    timeouts = SimpleNamespace(deadline=30.0)

    def __init__(self, *, seconds: float = 0.0, dry_run: bool = False) -> None:
        self.seconds = seconds
        self.dry_run = dry_run

    def one(self, site: str) -> SiteResult:
        time.sleep(self.seconds)
        return SiteResult(site=site, ok=True, changed=True, message="staged")


@pytest.fixture(autouse=True)
def staged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        one_site, "seen_by", lambda *, verb, result: [Seen(site=result.site, epoch=1, state=f"{verb}d")]
    )


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    found = new_store(tmp_path)
    found.ensure(fleet="test", key_type="p256", gateways=["gw1"], sites=SITES)
    return found


@pytest.fixture
def other_run() -> Iterator[int]:
    """The process of somebody else's run."""
    process = subprocess.Popen(["sleep", "60"])
    yield process.pid
    process.kill()
    process.wait()


def alone(path: Path, site: str, seconds: float, owner: int) -> None:
    run: Any = Run(seconds=seconds)
    carry_out_alone(run=run, store=new_store(path), site=site, owner=owner)


def start(path: Path, site: str, *, seconds: float = 0.0) -> ForkProcess:
    process = multiprocessing.get_context("fork").Process(target=alone, args=(path, site, seconds, os.getpid()))
    process.start()
    return process


def states(store: KeyStore) -> dict[str, str]:
    return {site: epochs[1]["state"] for site, epochs in store.index().items()}


def test_brothers_take_turns_and_each_enters_its_site(store: KeyStore, tmp_path: Path) -> None:
    processes = [start(tmp_path, site) for site in SITES]
    for process in processes:
        process.join(30)

    assert [process.exitcode for process in processes] == [0] * len(SITES)
    assert states(store) == dict.fromkeys(SITES, "staged")
    assert store.ledger.verify() == []


def test_a_frozen_site_keeps_no_brother_waiting(store: KeyStore, tmp_path: Path) -> None:
    frozen = start(tmp_path, SITES[0], seconds=60)
    time.sleep(0.3)
    began = time.monotonic()

    alone(tmp_path, SITES[1], 0.0, os.getpid())

    assert time.monotonic() - began < 5
    assert states(store)[SITES[1]] == "staged"
    frozen.kill()
    frozen.join()


def test_a_run_is_on_record_while_its_site_is_talked_to(store: KeyStore, tmp_path: Path) -> None:
    busy = start(tmp_path, SITES[0], seconds=60)
    end = time.monotonic() + 10
    while SITES[0] not in (store.path / "operation.json").read_text(encoding="utf-8") and time.monotonic() < end:
        time.sleep(0.02)

    record = operation.read(store.path)

    assert record is not None
    assert (record.what, record.owner.pid, record.held) == (f"stage on {SITES[0]}", os.getpid(), True)
    busy.kill()
    busy.join()


def test_a_site_is_not_talked_to_while_another_run_is_at_work(store: KeyStore, other_run: int) -> None:
    with store.operation("rotate everything", owner=other_run):
        pass
    run: Any = Run(seconds=60)

    with pytest.raises(KeyStoreLockedError, match=rf"\(pid {other_run}\) since .*: rotate everything"):
        carry_out_alone(run=run, store=store, site=SITES[0], owner=os.getpid())

    assert states(store)[SITES[0]] == "issued"


def test_looking_waits_for_nobody(store: KeyStore, other_run: int) -> None:
    run: Any = Run(dry_run=True)

    with store.operation("something long", owner=other_run):
        pass
    result = carry_out_alone(run=run, store=store, site=SITES[0], owner=os.getpid())

    assert result.ok
    assert states(store)[SITES[0]] == "issued"


def test_a_brother_that_never_lets_go_is_named_in_the_end(store: KeyStore, tmp_path: Path) -> None:
    with (
        store.operation("stuck", owner=os.getpid()),
        pytest.raises(KeyStoreLockedError, match="stuck"),
        in_turn(store=new_store(tmp_path), what="x", owner=os.getpid(), patience=0.2),
    ):
        pass
