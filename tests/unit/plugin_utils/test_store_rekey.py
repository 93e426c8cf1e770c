# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A key store is locked with another key: nothing is lost at any moment, and the old key opens nothing afterwards."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import rekey_record, store_rekey
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_rekey import rekey
from key_support import quick_vault
from unit.plugin_utils.stores import GATEWAYS, SITES, killed_at, opens, reopened, secrets_of, store_in, vaults

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "real_vault" not in request.fixturenames:
        quick_vault(monkeypatch)


@pytest.fixture
def real_vault() -> None:
    """Somebody else opens the files too."""


def test_every_file_opens_with_the_new_key_only_and_the_old_one_is_kept(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    before, old = secrets_of(store), store.key.path.read_bytes()
    steps: list[tuple[str, int, int]] = []

    done = rekey(store=store, on_progress=lambda *step: steps.append(step))

    assert (done.in_place, done.key, done.files) == (True, store.key.path, len(vaults(store)))
    assert done.kept.read_bytes() == old != done.key.read_bytes()
    assert {path.stat().st_mode & 0o777 for path in (done.kept, done.key)} == {0o600}
    assert all(opens(path, done.key) and not opens(path, done.kept) for path in vaults(store))
    again = reopened(store)
    assert secrets_of(again) == before
    assert again.verify() == []
    assert again.ledger.tail(1)[0]["event"] == "rekeyed"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keystore", "keystore.key", done.kept.name]
    assert steps[-1] == ("opening with the new key", done.files, done.files)


def test_no_former_key_is_written_over_by_the_next(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    keys = [store.key.path.read_bytes()]
    # Within one second, so that the dates are the same.
    kept = []
    for _time in range(3):
        kept.append(rekey(store=reopened(store)).kept)
        keys.append(store.key.path.read_bytes())

    assert [path.read_bytes() for path in kept] == keys[:-1]
    assert len(set(keys)) == 4
    assert secrets_of(reopened(store))


@pytest.mark.parametrize("elsewhere", [False, True], ids=["in place", "to a file"])
def test_killed_at_any_step_nothing_is_lost_and_a_second_run_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, elsewhere: bool
) -> None:
    monkeypatch.setattr(store_rekey, "WORKERS", 1)
    # A killed process loses nothing that it wrote. It is a step all the same.
    monkeypatch.setattr(os, "fsync", lambda _handle: None)
    step, mixed = 0, 0
    while True:
        step += 1
        home = tmp_path / str(step)
        home.mkdir()
        store = store_in(home)
        before = secrets_of(store)
        to = home / "elsewhere.key" if elsewhere else None

        if not killed_at(step, lambda store=store, to=to: rekey(store=reopened(store), to=to)):  # type: ignore[misc]
            break

        # Whoever reads in between finds every key.
        old = {opens(path, store.key.path) for path in vaults(store)}
        mixed += old == {True, False}
        done = elsewhere and rekey_record.read(store.path) is None and old == {False}
        half = KeyStore(path=store.path, key=to) if to and done else reopened(store)
        assert secrets_of(half) == before, step
        assert {name: half.gateway_key(name=name).name for name in GATEWAYS}
        if not done:
            rekey(store=half, to=to)
        key = to or store.key.path
        former = store.key.path if elsewhere else next(home.glob("keystore.key.*.old"))
        assert all(opens(path, key) and not opens(path, former) for path in vaults(store)), step
        finished = KeyStore(path=store.path, key=key)
        assert secrets_of(finished) == before, step
        assert finished.verify() == [], step
        assert rekey_record.read(store.path) is None
        assert not list(store.path.rglob(".*.vault.*")), step
    assert step > 25
    assert mixed > 5


@pytest.mark.parametrize("room", [0, 1, 4, 9, 14, 20])
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    store = store_in(tmp_path)
    before = secrets_of(store)
    left, real = [room], os.fsync

    def fsync(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(FleetError, match=r"No space left on device"):
            rekey(store=store)

    assert secrets_of(reopened(store)) == before
    done = rekey(store=reopened(store))
    assert all(opens(path, done.key) and not opens(path, done.kept) for path in vaults(store))
    assert secrets_of(reopened(store)) == before


def test_keys_made_after_an_interrupted_change_are_locked_anew_too(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    assert killed_at(25, lambda: rekey(store=reopened(store)))
    half = reopened(store)
    half.ensure(fleet="test", key_type="p256", gateways=GATEWAYS, sites=[*SITES, "site-0004"])

    done = rekey(store=reopened(store))

    assert all(opens(path, done.key) for path in vaults(store))
    assert reopened(store).site_key(site="site-0004").epoch == 1


def test_a_process_that_knew_the_former_key_locks_nothing_with_it_any_more(tmp_path: Path) -> None:
    early = store_in(tmp_path)
    assert early.site_key(site="site-0001").epoch == 1
    done = rekey(store=reopened(early))

    early.regenerate(sites=["site-0001"], key_type="p256", reason="a second epoch")
    early.ensure(fleet="test", key_type="p256", gateways=["gw1", "gw2"], sites=[*SITES, "site-0004"])

    assert not [path for path in vaults(early) if not opens(path, done.key)]


def test_a_program_that_says_the_key(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    before = secrets_of(store)
    program = tmp_path / "vault-client"
    program.write_text('#!/bin/sh\n[ "$*" = "--vault-id spokewright" ] && echo the-new-key-of-a-secret-manager\n')
    program.chmod(0o700)

    done = rekey(store=store, to=program)

    assert (done.in_place, done.key, done.kept) == (False, program, store.key.path)
    now = KeyStore(path=store.path, key=program)
    assert secrets_of(now) == before
    with pytest.raises(FleetError, match="does not open"):
        reopened(store).site_key(site="site-0001")
    with pytest.raises(
        FleetError, match=r"comes from the program .*vault-client.*name a program that says it with --to"
    ):
        rekey(store=now)


def test_a_link_to_the_key_stays_a_link(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    far = tmp_path / "usb"
    far.mkdir()
    store.key.path.rename(far / "own")
    store.key.path.symlink_to(far / "own")

    done = rekey(store=store)

    assert store.key.path.is_symlink()
    assert done.kept.parent == far
    assert secrets_of(reopened(store))


@pytest.mark.usefixtures("real_vault")
def test_ansible_vault_opens_the_files(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    done = rekey(store=store)
    path = store.path / "sites/site-0001/1.vault"

    shown = subprocess.run(
        ["ansible-vault", "view", "--vault-password-file", str(done.key), str(path)],
        check=True,
        capture_output=True,
        text=True,
    )

    assert '"site": "site-0001"' in shown.stdout


def test_another_goal_before_the_first_is_reached(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    assert killed_at(25, lambda: rekey(store=reopened(store), to=tmp_path / "one"))

    with pytest.raises(FleetError, match=r"a change to the key .*/one began at .* Run again without --to to finish it"):
        rekey(store=reopened(store), to=tmp_path / "two")

    assert rekey(store=reopened(store)).key == tmp_path / "one"


def test_a_wrong_key_changes_nothing(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    before = {path: path.read_bytes() for path in vaults(store)}
    store.key.path.write_text("another key\n")

    with pytest.raises(FleetError, match=r"keystore\.key does not open .*vault, so nothing was changed"):
        rekey(store=reopened(store))

    assert {path: path.read_bytes() for path in vaults(store)} == before
    assert rekey_record.read(store.path) is None


def test_the_key_it_has_already_is_refused(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    same = tmp_path / "same"
    same.write_bytes(store.key.path.read_bytes())
    same.chmod(0o600)

    with pytest.raises(FleetError, match=r"same holds the key that the store is locked with already. Name another one"):
        rekey(store=store, to=same)


def test_a_key_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    weak = tmp_path / "weak"
    weak.write_text("summer2026\n")
    weak.chmod(0o600)

    with pytest.raises(FleetError, match=r"weak holds or says is 10 bytes long: that can be guessed"):
        rekey(store=store, to=weak)

    assert rekey_record.read(store.path) is None


def test_a_new_key_that_was_removed_half_way_is_asked_for(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    step = next(step for step in range(12, 40, 3) if half_done(folder_of(tmp_path, str(step)), step))
    store = reopened(KeyStore(path=tmp_path / str(step) / "keystore", key=tmp_path / str(step) / "keystore.key"))
    before, new = secrets_of(store), store.key.path.with_name("keystore.key.new")
    new.rename(tmp_path / "trash")

    with pytest.raises(FleetError, match=r"the new key .*keystore\.key\.new is gone.*bring it back, then run again"):
        rekey(store=reopened(store))

    (tmp_path / "trash").rename(new)
    done = rekey(store=reopened(store))
    assert done.kept.exists()
    assert secrets_of(reopened(store)) == before


def half_done(home: Path, step: int) -> bool:
    """Whether a change killed there left files of both keys."""
    store = store_in(home)
    killed_at(step, lambda: rekey(store=reopened(store)))
    return {opens(path, store.key.path) for path in vaults(store)} == {True, False}


def test_a_key_inside_the_store_is_refused(tmp_path: Path) -> None:
    store = store_in(tmp_path)

    with pytest.raises(FleetError, match=r"lies in the key store. Keep the key apart from what it locks"):
        rekey(store=store, to=store.path / "own")


def test_without_a_store_there_is_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=r"no key store at .* yet, so there is nothing to lock anew"):
        rekey(store=KeyStore(path=tmp_path / "none", key=tmp_path / "none.key"))

    assert list(tmp_path.iterdir()) == []


def test_a_file_that_no_key_opens_is_named_and_both_keys_stay(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    broken = store.path / "sites/site-0002/1.vault"
    good = broken.read_text()
    other = store_in(folder_of(tmp_path, "other"))
    broken.write_text((other.path / "sites/site-0002/1.vault").read_text())
    other_key(other, broken)

    with pytest.raises(
        FleetError, match=r"site-0002/1\.vault opens with neither key.*Restore this file from the backup"
    ):
        rekey(store=store)

    assert reopened(store).site_key(site="site-0001").epoch == 1
    broken.write_text(good)
    assert rekey(store=reopened(store)).files == len(vaults(store))


def test_a_torn_file_is_named(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    broken = store.path / "sites/site-0002/1.vault"
    broken.write_text("nothing of ours\n")

    with pytest.raises(FleetError, match=r"site-0002/1\.vault: it is not in ansible-vault's format.*run again"):
        rekey(store=store)


def test_a_record_that_says_nothing_is_named(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    (store.path / rekey_record.RECORD).write_text("{}")

    with pytest.raises(FleetError, match=r"rekey\.json cannot be understood .*names the two keys of this store"):
        rekey(store=store)


def folder_of(home: Path, name: str) -> Path:
    (home / name).mkdir()
    return home / name


def other_key(other: KeyStore, into: Path) -> None:
    """A file that was encrypted with a key which nobody here has."""
    rekey(store=other)
    into.write_text((other.path / "sites/site-0002/1.vault").read_text())
