# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Killed or without space at every single change of the disk: nothing is lost, and a plain second run finishes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import operation
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore, KeyStoreError, Seen
from breaking import broken_at
from key_support import new_store, quick_vault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SITES = ["site-0001", "site-0002"]
How = Literal["kill", "full"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_vault(monkeypatch)


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that it wrote; what a power cut loses has a test of its own below."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def ensure(store: KeyStore, *more: str) -> object:
    return store.ensure(fleet="lab", key_type="ed25519", gateways=["gw1"], sites=[*SITES, *more])


def regenerate(store: KeyStore) -> dict[str, int]:
    return store.regenerate(sites=SITES, key_type="ed25519", reason="laptop lost")


def destroy(store: KeyStore) -> bool:
    return store.destroy(site="site-0001", epoch=1, reason="its time is over")


def mark(store: KeyStore) -> int:
    return store.mark(seen=[Seen(site=site, epoch=2, state="confirmed") for site in SITES])


@dataclass(frozen=True)
class Case:
    """A change of the store, what stands before it, and what must hold after a second run."""

    work: Callable[[KeyStore], Any]
    before: tuple[Callable[[KeyStore], Any], ...]
    epochs: dict[str, list[int]]
    states: dict[str, dict[int, str]]
    # Lines of the ledger that stand there once, however often the work was begun.
    lines: dict[str, int]


BORN = {"store-key-made": 1, "ca-made": 1, "crl-made": 1, "server-key-made": 1, "gateway-issued": 1}
CASES = {
    "ensure": Case(
        work=ensure,
        before=(),
        epochs={site: [1] for site in SITES},
        states={site: {1: "issued"} for site in SITES},
        lines={**BORN, "issued": 2},
    ),
    "ensure more": Case(
        work=lambda store: ensure(store, "site-0003", "site-0004"),
        before=(ensure,),
        epochs={site: [1] for site in [*SITES, "site-0003", "site-0004"]},
        states={site: {1: "issued"} for site in [*SITES, "site-0003", "site-0004"]},
        lines={**BORN, "issued": 4},
    ),
    "regenerate": Case(
        work=regenerate,
        before=(ensure,),
        epochs={site: [1, 2] for site in SITES},
        states={site: {1: "issued", 2: "issued"} for site in SITES},
        lines={**BORN, "issued": 4},
    ),
    "mark": Case(
        work=mark,
        before=(ensure, regenerate),
        epochs={site: [1, 2] for site in SITES},
        states={site: {1: "issued", 2: "confirmed"} for site in SITES},
        lines={**BORN, "issued": 4, "confirmed": 2},
    ),
    "destroy": Case(
        work=destroy,
        before=(ensure, regenerate),
        epochs={"site-0001": [2], "site-0002": [1, 2]},
        states={"site-0001": {1: "destroyed", 2: "issued"}, "site-0002": {1: "issued", 2: "issued"}},
        lines={**BORN, "issued": 4, "destroyed": 1},
    ),
}


def again(store: KeyStore) -> KeyStore:
    """As another process sees it."""
    return KeyStore(path=store.path, key=store.key.path)


def prepared(directory: Path, case: Case) -> KeyStore:
    store = new_store(directory)
    directory.mkdir()
    for step in case.before:
        step(store)
    return store


def handed_out(store: KeyStore) -> dict[str, bytes]:
    """What a second run must not change: every key that is whole."""
    return {str(path.relative_to(store.path)): path.read_bytes() for path in store.path.rglob("*.vault")}


def check(store: KeyStore, case: Case, *, survived: dict[str, bytes], step: object) -> None:
    assert store.ledger.verify() == [], step
    assert {site: store.epochs(site=site) for site in case.epochs} == case.epochs, step
    index = store.index()
    assert {site: {at: one["state"] for at, one in index[site].items()} for site in index} == case.states, step
    for site, epochs in case.epochs.items():
        for epoch in epochs:
            key = store.site_key(site=site, epoch=epoch)
            assert key.public().items() <= index[site][epoch].items(), step
    assert store.gateway_key(name="gw1").name == "gw1", step
    events = [entry["event"] for entry in store.ledger.entries()]
    assert {name: events.count(name) for name in case.lines} == case.lines, (step, events)
    after = handed_out(store)
    gone = {"sites/site-0001/1.vault"} if "destroyed" in case.lines else set()
    for name, raw in survived.items():
        # A CA or server key that nothing was made with yet is nobody's.
        if name not in gone and not (
            name.endswith((".key.vault", "v2.vault")) and "sites/site-0001/1.vault" not in survived
        ):
            assert after.get(name) == raw, (step, name)
    left = [path for path in store.path.parent.rglob(".*") if path.is_file()]
    assert left == [], step


def steps(tmp_path: Path, case: Case, how: How) -> Iterator[tuple[int, KeyStore, str]]:
    """The store after each way to break, until the work comes through."""
    before = operation.read(prepared(tmp_path / "base", case).path)
    for step in range(1, 1000):
        home = tmp_path / str(step)
        shutil.copytree(tmp_path / "base", home)
        store = new_store(home)
        end, said = broken_at(step, lambda store=store: case.work(store), how=how)  # type: ignore[misc]
        after = operation.read(store.path)
        if end == "done" or (after != before and after is not None and not after.open):
            # Killed when all was on record as done: from here on it would be another order.
            return
        yield step, again(store), said
        shutil.rmtree(home)
    pytest.fail("the work never came to its end")


@pytest.mark.usefixtures("no_sync")
@pytest.mark.parametrize("name", CASES)
def test_killed_at_any_change_nothing_is_lost_and_a_second_run_finishes(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    count = 0
    for step, store, _ in steps(tmp_path, case, "kill"):
        count += 1
        survived = handed_out(store)
        case.work(store)
        # Who marks what is marked has nothing to do; the leftovers of the killed one are then finished by a plain run.
        ensure(again(store))
        check(again(store), case, survived=survived, step=step)
    assert count > 10


@pytest.mark.usefixtures("no_sync")
@pytest.mark.parametrize("name", CASES)
def test_with_a_full_disk_at_any_change_it_is_one_clear_error_and_a_second_run_finishes(
    tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    count = 0
    for step, store, said in steps(tmp_path, case, "full"):
        count += 1
        assert "No space left on device" in said, (step, said)
        assert "No key was lost" in said, (step, said)
        assert "run again" in said, (step, said)
        survived = handed_out(store)
        case.work(store)
        ensure(again(store))
        check(again(store), case, survived=survived, step=step)
    assert count > 5


@pytest.mark.usefixtures("no_sync")
def test_a_run_killed_and_killed_again_still_ends_well(tmp_path: Path) -> None:
    case = CASES["ensure"]
    store = prepared(tmp_path / "base", case)
    kept: dict[str, bytes] = {}
    for step in range(3, 400, 7):
        end, _ = broken_at(step, lambda: case.work(again(store)), how="kill")
        found = handed_out(store)
        if "sites/site-0001/1.vault" in kept:
            assert {name: found.get(name) for name in kept} == kept
        kept = found
        if end == "done":
            break
    check(again(store), case, survived=kept, step="last")


def test_on_a_disk_that_is_really_full_nothing_is_lost(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "spokewright-test", disk], check=False
    )
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        store = KeyStore(path=disk / "store", key=tmp_path / "store.key")
        ensure(store)
        many = [f"site-{number:04d}" for number in range(3, 60)]
        with pytest.raises(KeyStoreError, match=r"No space left on device.*No key was lost"):
            ensure(again(store), *many)
        survived = handed_out(store)
        assert len(survived) > 6, "some were made before the disk was full"
        with pytest.raises(KeyStoreError, match="No space left on device"):
            ensure(again(store), *many)
        # Reading goes on.
        assert again(store).site_key(site="site-0001").epoch == 1
        subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
        ensure(again(store), *many)
        after = handed_out(store)
        assert {name: after[name] for name in survived} == survived
        assert again(store).ledger.verify() == []
        assert sorted(again(store).index()) == [*SITES, *many]
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.usefixtures("no_sync")
def test_an_order_for_new_keys_that_was_cut_off_is_not_carried_out_twice(tmp_path: Path) -> None:
    case = CASES["regenerate"]
    seen = set()
    for _, store, _ in steps(tmp_path, case, "kill"):
        epochs = regenerate(store)
        seen.add(tuple(store.epochs(site=site)[-1] for site in SITES))
        assert epochs == dict.fromkeys(SITES, 2)
        # The next order is another one.
        assert store.regenerate(sites=["site-0001"], key_type="ed25519", reason="laptop lost") == {"site-0001": 3}
    assert seen == {(2, 2)}


@pytest.mark.usefixtures("no_sync")
def test_the_hint_to_keep_a_copy_of_a_new_key_survives_the_run_that_made_it(tmp_path: Path) -> None:
    for step, store, _ in steps(tmp_path, CASES["ensure"], "kill"):
        there = store.key.exists
        made = store.ensure(fleet="lab", key_type="ed25519", gateways=["gw1"], sites=SITES)
        if not there or json.loads((store.path / "ledger.head").read_text())["seq"] < 8:
            assert made.made_store_key == store.key.path, step


class Watcher:
    """What was written, named and brought to the disk, in its order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, str]] = []
        self.paths: dict[int, str] = {}
        self.mutex = threading.Lock()
        real_open, real_write, real_sync = os.open, os.write, os.fsync
        real_replace, real_mkdir = os.replace, os.mkdir

        def opened(path: Any, *more: Any, **named: Any) -> int:
            handle = real_open(path, *more, **named)
            self.paths[handle] = str(path)
            return handle

        def add(what: str, path: object) -> None:
            with self.mutex:
                self.events.append((what, str(path)))

        def write(handle: int, data: bytes) -> int:
            add("write", self.paths.get(handle, ""))
            return real_write(handle, data)

        def sync(handle: int) -> None:
            real_sync(handle)
            add("sync", self.paths.get(handle, ""))

        def replace(old: Any, new: Any) -> None:
            add("rename", old)
            real_replace(old, new)
            add("named", new)

        def mkdir(path: Any, *more: Any, **named: Any) -> None:
            real_mkdir(path, *more, **named)
            add("named", path)

        for name, call in {"open": opened, "write": write, "fsync": sync, "replace": replace, "mkdir": mkdir}.items():
            monkeypatch.setattr(os, name, call)

    def unsafe(self, *, before: str) -> list[str]:
        """Names a power cut could still take when a file is written to, and what was renamed before it was synced."""
        wrong: list[str] = []
        written: set[str] = set()
        named: dict[str, str] = {}
        for what, path in self.events:
            if what == "write" and path.endswith(before):
                wrong += [name for name in named if ".vault" in name or "sites" in name]
            if what == "write":
                written.add(path)
            elif what == "sync":
                written.discard(path)
                named = {name: parent for name, parent in named.items() if parent != path}
            elif what == "rename" and path in written:
                wrong.append(path)
            elif what == "named":
                named[path] = os.path.dirname(path)  # noqa: PTH120 - text, as the events have it
        return wrong + list(named)


@pytest.mark.parametrize("name", ["ensure", "ensure more", "regenerate", "mark"])
def test_what_a_power_cut_could_take_is_on_the_disk_before_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    store = prepared(tmp_path / "base", CASES[name])
    with monkeypatch.context() as patch:
        watcher = Watcher(patch)
        CASES[name].work(store)
    assert any(path.endswith("ledger.jsonl") for what, path in watcher.events if what == "sync")
    assert watcher.unsafe(before="ledger.jsonl") == []
