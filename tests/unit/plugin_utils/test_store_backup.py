# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup holds everything but the key, is proven before it has its name, and comes back whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import rekey_record
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_backup import MANIFEST, back_up, restore
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_rekey import rekey
from unit.plugin_utils.stores import killed_at, reopened, secrets_of, store_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def names_in(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        return archive.getnames()


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], list[tuple[str, bytes]]]) -> Path:
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            stream = old.extractfile(member)
            assert stream is not None
            for name, data in change(member.name, stream.read()):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                new.addfile(entry, io.BytesIO(data))
    return target


def test_there_and_back(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    before = secrets_of(store)
    seen: list[tuple[int, int]] = []

    made = back_up(store=store, target=tmp_path / "backup.tar", on_progress=lambda *step: seen.append(step))

    assert made.path.stat().st_mode & 0o777 == 0o600
    assert seen[-1] == (made.files, made.files)
    shutil.rmtree(store.path)
    found, problems = restore(source=made.path, to=store.path, key=store.key.path)
    assert (found.files, found.made, problems) == (made.files, made.made, [])
    again = reopened(store)
    assert secrets_of(again) == before
    assert again.verify() == []
    assert again.ledger.tail(1)[0]["event"] == "backup"
    assert store.path.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in store.path.rglob("*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.tar", "keystore", "keystore.key"]


def test_the_own_key_is_never_in_it_and_what_is_in_it_is_locked(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    # Not where a plan lets it lie, but a backup does not count on that.
    inside = store.path / "own"
    shutil.move(store.key.path, inside)
    store = KeyStore(path=store.path, key=inside)
    secret = inside.read_bytes().strip()

    made = back_up(store=store, target=tmp_path / "backup.tar")

    data = made.path.read_bytes()
    assert secret not in data
    assert b"PRIVATE KEY" not in data
    assert b"tls-crypt-v2 client key" not in data
    assert {"lock", "operation.json", "own"} & set(names_in(made.path)) == set()


def test_a_half_backup_never_has_the_name(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    (tmp_path / "to").mkdir()
    step = 0
    while True:
        step += 1
        target = tmp_path / "to" / str(step)
        if not killed_at(step, lambda target=target: back_up(store=reopened(store), target=target)):  # type: ignore[misc]
            break
        if target.exists():
            shutil.rmtree(tmp_path / "back", ignore_errors=True)
            assert restore(source=target, to=tmp_path / "back", key=store.key.path)[1] == []
        assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "to").iterdir())
    assert step > 5
    assert reopened(store).verify() == []


def test_a_killed_restore_leaves_an_empty_place_and_the_next_one_ends_well(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    made = back_up(store=store, target=tmp_path / "backup.tar")
    before = secrets_of(store)
    for step in [*range(1, 60, 6), 200]:
        place = tmp_path / str(step) / "keystore"
        killed = killed_at(step, lambda place=place: restore(source=made.path, to=place, key=store.key.path))  # type: ignore[misc]
        if killed and not place.exists():
            restore(source=made.path, to=place, key=store.key.path)
        assert secrets_of(KeyStore(path=place, key=store.key.path)) == before
        assert [path.name for path in place.parent.iterdir()] == ["keystore"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_in(tmp_path)

    def full(*_args: Any, **_more: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "addfile", full)
        with pytest.raises(
            FleetError, match=r"backup\.tar cannot be written: No space left.*The key store was not touched"
        ):
            back_up(store=store, target=tmp_path / "backup.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keystore", "keystore.key"]
    made = back_up(store=store, target=tmp_path / "backup.tar")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FleetError, match=r"cannot be restored to .*No space left.*Nothing was changed"):
            restore(source=made.path, to=tmp_path / "back", key=store.key.path)
    assert not (tmp_path / "back").exists()
    assert not (tmp_path / ".back.restore").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("taken", r"taken: is there already\. A backup never replaces another; name a new file"),
        ("folder", r"folder: is a directory\. Name the file to write"),
        ("keystore/backup.tar", r"lies in the key store itself\. Name a place on another disk"),
        ("nowhere/backup.tar", r"nowhere/backup\.tar cannot be written: No such file or directory"),
    ],
)
def test_where_a_backup_may_not_go(tmp_path: Path, name: str, said: str) -> None:
    store = store_in(tmp_path)
    (tmp_path / "taken").write_text("an older backup")
    (tmp_path / "folder").mkdir()

    with pytest.raises(FleetError, match=said):
        back_up(store=store, target=tmp_path / name)

    assert (tmp_path / "taken").read_text() == "an older backup"


def test_a_backup_of_that_name_that_came_meanwhile_stays(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    target = tmp_path / "backup.tar"

    def meanwhile(_done: int, _total: int) -> None:
        target.write_text("another's")

    with pytest.raises(FleetError, match=r"backup\.tar cannot be written: File exists"):
        back_up(store=store, target=target, on_progress=meanwhile)

    assert target.read_text() == "another's"


def test_a_stick_whose_file_system_has_no_links_takes_a_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_in(tmp_path)
    target = tmp_path / "backup.tar"

    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    def meanwhile(_done: int, _total: int) -> None:
        (tmp_path / "late.tar").write_text("another's")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", link)
        back_up(store=store, target=target)
        with pytest.raises(FleetError, match=r"late\.tar cannot be written"):
            back_up(store=store, target=tmp_path / "late.tar", on_progress=meanwhile)

    restore(source=target, to=tmp_path / "back", key=store.key.path)
    assert (tmp_path / "late.tar").read_text() == "another's"
    assert not list(tmp_path.glob(".*.tmp"))


def test_without_a_store_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=r"no key store at .* yet, so there is nothing to back up"):
        back_up(store=KeyStore(path=tmp_path / "none", key=tmp_path / "key"), target=tmp_path / "backup.tar")

    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_of_a_store_is_named(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    (store.path / "sites/strange").symlink_to("/etc")

    with pytest.raises(FleetError, match=r"sites/strange is no file of a key store\. Move it away"):
        back_up(store=store, target=tmp_path / "backup.tar")


def test_a_store_between_two_keys_is_not_backed_up(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    assert killed_at(20, lambda: rekey(store=reopened(store)))
    assert rekey_record.read(store.path) is not None

    with pytest.raises(FleetError, match=r"is being given another key.*Run `tools/fleet keystore rekey` to finish it"):
        back_up(store=reopened(store), target=tmp_path / "backup.tar")


@pytest.mark.parametrize("what", ["file", "full", "link"])
def test_a_restore_takes_nobodys_place(tmp_path: Path, what: str) -> None:
    store = store_in(tmp_path)
    made = back_up(store=store, target=tmp_path / "backup.tar")
    to = tmp_path / "to"
    if what == "file":
        to.write_text("")
    elif what == "full":
        to.mkdir()
        (to / "something").write_text("")
    else:
        to.symlink_to(tmp_path)
    said = r"to: is not empty\. A restore never mixes two stores" if what == "full" else r"to: is no directory\."

    with pytest.raises(FleetError, match=said):
        restore(source=made.path, to=to, key=store.key.path)


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    made = back_up(store=store, target=tmp_path / "backup.tar")
    (tmp_path / "to").mkdir(mode=0o755)

    restore(source=made.path, to=tmp_path / "to", key=store.key.path)

    assert (tmp_path / "to").stat().st_mode & 0o777 == 0o700


def test_another_key_opens_nothing_and_nothing_is_put_in_place(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    made = back_up(store=store, target=tmp_path / "backup.tar")
    other = tmp_path / "other.key"
    other.write_text("another key\n")
    other.chmod(0o600)
    for key, said in ((other, r"the key .*other\.key does not open"), (tmp_path / "lost.key", r"lost\.key is missing")):
        with pytest.raises(FleetError, match=rf"(?s)what it holds was not put in place:.*{said}.*Nothing was changed"):
            restore(source=made.path, to=tmp_path / "to", key=key)
        assert not (tmp_path / "to").exists()
        assert not (tmp_path / ".to.restore").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda name, data: [(name, data[:-1] + b"X" if name == "crl.pem" else data)], "crl.pem missing or changed"),
        (lambda name, data: [] if name == "crl.pem" else [(name, data)], "crl.pem missing or changed"),
        (lambda name, data: [(name, data)] + ([("more", b"")] if name == "crl.pem" else []), "more missing or changed"),
        (lambda name, data: [] if name == MANIFEST else [(name, data)], f"has no {MANIFEST}"),
        (lambda name, data: [(name, b'{"version": 2}' if name == MANIFEST else data)], "of a version that"),
        (lambda name, data: [(name, b"[]" if name == MANIFEST else data)], "of a version that"),
        (lambda name, data: [(name, b"{" if name == MANIFEST else data)], "is no backup of a key store, or is cut off"),
        (lambda name, data: [(f"../{name}", data)], "holds '../README', which no backup of ours has"),
        (lambda name, data: [(f"/{name}", data)], "holds '/README', which no backup of ours has"),
        (lambda name, data: [(name, data), (name, data)], "holds 'README', which no backup of ours has"),
    ],
    ids=["changed", "missing", "more", "no list", "newer", "odd list", "torn list", "above", "absolute", "twice"],
)
def test_a_damaged_backup_is_refused_as_a_whole(
    tmp_path: Path, change: Callable[[str, bytes], list[tuple[str, bytes]]], said: str
) -> None:
    store = store_in(tmp_path)
    made = back_up(store=store, target=tmp_path / "backup.tar")
    bent = rewritten(made.path, tmp_path / "bent.tar", change)

    with pytest.raises(FleetError) as caught:
        restore(source=bent, to=tmp_path / "to" / "keystore", key=store.key.path)

    assert said in str(caught.value)
    assert str(bent) in str(caught.value)
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize("keep", [0, 100, 5000, -30000])
def test_a_backup_that_is_cut_off_is_refused(tmp_path: Path, keep: int) -> None:
    store = store_in(tmp_path)
    made = back_up(store=store, target=tmp_path / "backup.tar")
    made.path.write_bytes(made.path.read_bytes()[:keep])

    with pytest.raises(FleetError, match=r"is no backup of a key store, or is cut off|has no spokewright-backup"):
        restore(source=made.path, to=tmp_path / "to", key=store.key.path)

    assert not (tmp_path / "to").exists()


def test_every_flipped_byte_of_content_is_found(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    made = back_up(store=store, target=tmp_path / "backup.tar")
    data = made.path.read_bytes()
    with tarfile.open(made.path) as archive:
        places = [member.offset_data + member.size // 2 for member in archive if member.name != MANIFEST]
    for place in places:
        made.path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(FleetError, match="missing or changed since the backup was made"):
            restore(source=made.path, to=tmp_path / "to", key=store.key.path)


def test_a_backup_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=r"none\.tar: there is no such file\. Name the backup to use"):
        restore(source=tmp_path / "none.tar", to=tmp_path / "to", key=tmp_path / "key")


def test_a_store_that_was_damaged_before_comes_back_with_what_is_wrong(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    (store.path / "sites/site-0001/1.vault").unlink()
    made = back_up(store=store, target=tmp_path / "backup.tar")

    _found, problems = restore(source=made.path, to=tmp_path / "to", key=store.key.path)

    assert len(problems) == 1
    assert "to/sites/site-0001/1.vault is missing, but the index knows this key" in problems[0]


def test_two_at_once(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    made = back_up(store=store, target=tmp_path / "backup.tar")
    heard: list[str] = []

    def meanwhile(_done: int, _total: int) -> None:
        with contextlib.suppress(StopIteration), pytest.raises(FleetError) as caught:
            restore(source=made.path, to=tmp_path / "to", key=store.key.path)
        heard.append(str(caught.value))

    restore(source=made.path, to=tmp_path / "to", key=store.key.path, on_progress=meanwhile)

    assert "somebody else restores into" in heard[0]
