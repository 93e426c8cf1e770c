# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key store: stable, closed to others, whole after a crash."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import atomic_file
from ansible_collections.spokewright.fleet.plugins.plugin_utils import key_store as ks

SITES = ["site-0001", "site-0002"]


def ensure(path: Path, *, sites: list[str] | None = None, **more: Any) -> ks.Ensured:
    wanted = SITES if sites is None else sites
    return ks.KeyStore(path=path).ensure(fleet="lab", key_type="p256", gateways=["gw1", "gw2"], sites=wanted, **more)


def content(path: Path) -> dict[str, bytes]:
    return {str(one.relative_to(path)): one.read_bytes() for one in sorted(path.rglob("*")) if one.is_file()}


def test_the_second_run_makes_nothing_and_changes_no_byte(tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = ensure(store)
    assert (first.made_ca, first.made_server_key, first.made_crl) == (True, True, True)
    assert first.made_gateways == ("gw1", "gw2")
    assert first.made_sites == ("site-0001", "site-0002")
    before = content(store)
    assert ensure(store).changed is False
    assert content(store) == before


def test_a_new_site_gets_a_key_and_nobody_elses_changes(tmp_path: Path) -> None:
    store = tmp_path / "store"
    ensure(store)
    before = content(store)
    assert ensure(store, sites=[*SITES, "site-0003"]).made_sites == ("site-0003",)
    after = content(store)
    assert {name for name in after if after[name] != before.get(name)} == {
        "index.json",
        "sites/site-0003/1/cert.pem",
        "sites/site-0003/1/key.pem",
        "sites/site-0003/1/psk.pem",
    }


def test_a_site_that_left_the_plan_keeps_its_key_for_its_return(tmp_path: Path) -> None:
    store = tmp_path / "store"
    ensure(store)
    kid = ks.KeyStore(path=store).site_key(site="site-0002").kid
    assert ensure(store, sites=["site-0001"]).changed is False
    assert ensure(store).changed is False
    assert ks.KeyStore(path=store).site_key(site="site-0002").kid == kid


def test_a_dry_run_says_the_same_and_writes_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    said = ensure(store, dry_run=True)
    assert not store.exists()
    assert said == ensure(store)


def test_only_the_owner_can_look_in(tmp_path: Path) -> None:
    store = tmp_path / "store"
    old = os.umask(0)
    try:
        ensure(store)
    finally:
        os.umask(old)
    for path in (store, *store.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_store_that_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir(mode=0o755)
    with pytest.raises(ks.KeyStoreError, match=r"mode 0755: others could read all keys. Run: chmod 0700"):
        ensure(store)


def test_the_index_holds_fingerprints_and_no_secret(tmp_path: Path) -> None:
    store = tmp_path / "store"
    ensure(store)
    text = (store / "index.json").read_text()
    entry = json.loads(text)["sites"]["site-0001"]["1"]
    assert entry["state"] == "issued"
    assert entry["psk_fingerprint"].startswith("SHA256:")
    for name, raw in content(store).items():
        if name.endswith(("key.pem", "psk.pem", "ca.key", "server-tls-crypt-v2.pem")):
            assert not any(line in text for line in raw.decode().splitlines() if len(line) > 30)


def test_a_crash_before_the_index_loses_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    ensure(store)
    before = json.loads((store / "index.json").read_text())
    (store / "index.json").unlink()
    assert ensure(store).changed is False
    assert json.loads((store / "index.json").read_text()) == before


def test_a_crash_inside_a_write_leaves_no_half_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"
    real, count = atomic_file.write_atomic, 0

    def dying(path: Path, data: bytes, mode: int = 0o600) -> None:
        nonlocal count
        count += 1
        if count == stop:
            raise KeyboardInterrupt
        real(path, data, mode)

    monkeypatch.setattr(ks, "write_atomic", dying)
    for stop in range(1, 20):
        shutil.rmtree(store, ignore_errors=True)
        count = 0
        try:
            ensure(store)
        except KeyboardInterrupt:
            survived = content(store)
            count = -1000
            ensure(store)
            after = content(store)
            for name, raw in survived.items():
                if name not in {"lock", "index.json", "ca.key"}:
                    assert after[name] == raw, (stop, name)
        for site in SITES:
            ks.KeyStore(path=store).site_key(site=site)
        assert not list(store.rglob("*.new"))


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"
    ensure(store)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(
        ks.KeyStoreError, match=r"site-0009/1 cannot be written: No space left on device. No key was lost"
    ):
        ensure(store, sites=["site-0009"])
    assert not list(store.rglob("*.new"))


@pytest.mark.parametrize("name", ["ca.pem", "server-tls-crypt-v2.pem"])
def test_a_lost_ca_or_server_key_is_never_silently_replaced(tmp_path: Path, name: str) -> None:
    store = tmp_path / "store"
    ensure(store)
    (store / name).unlink()
    with pytest.raises(ks.KeyStoreError, match=r"is gone, but keys made with it.*Restore it from the backup"):
        ensure(store, sites=[*SITES, "site-0003"])


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("lose", "says"),
    [
        ("ca.pem", r"ca.pem is gone, but keys made with it are still there"),
        ("ca.key", r"ca.key is gone, but ca.pem is there.*Restore it from the backup"),
        ("server-tls-crypt-v2.pem", r"server-tls-crypt-v2.pem is gone, but keys"),
        (
            "sites/site-0001",
            r"the keys of site-0001 are gone, but index.json knows.*Restore sites/ID.*remove its entry",
        ),
        ("sites", r"the keys of site-0001, site-0002 are gone"),
        (
            "gateways/gw1/key.pem",
            r"gateways/gw1 is only partly there: key.pem missing. Restore it.*remove the whole directory",
        ),
        ("gateways/gw2/cert.pem", r"gateways/gw2 is only partly there: cert.pem missing"),
    ],
)
def test_what_was_lost_is_told_by_the_run_and_by_its_check_and_nothing_is_made(
    tmp_path: Path, lose: str, says: str, *, dry_run: bool
) -> None:
    store = tmp_path / "store"
    ensure(store)
    if (store / lose).is_dir():
        shutil.rmtree(store / lose)
    else:
        (store / lose).unlink()
    before = content(store)
    with pytest.raises(ks.KeyStoreError, match=says):
        ensure(store, sites=[*SITES, "site-0003"], dry_run=dry_run)
    assert content(store) == before


def test_a_lost_key_stays_known_while_its_site_is_out_of_the_plan(tmp_path: Path) -> None:
    store = tmp_path / "store"
    ensure(store)
    shutil.rmtree(store / "sites/site-0002")
    assert ensure(store, sites=["site-0001", "site-0003"]).made_sites == ("site-0003",)
    with pytest.raises(ks.KeyStoreError, match="the keys of site-0002 are gone"):
        ensure(store)


def test_with_its_entry_removed_from_the_index_a_site_gets_a_new_key(tmp_path: Path) -> None:
    store = tmp_path / "store"
    ensure(store)
    old = ks.KeyStore(path=store).site_key(site="site-0001").kid
    shutil.rmtree(store / "sites/site-0001")
    index = json.loads((store / "index.json").read_text())
    del index["sites"]["site-0001"]
    (store / "index.json").write_text(json.dumps(index))
    assert ensure(store).made_sites == ("site-0001",)
    new = ks.KeyStore(path=store).site_key(site="site-0001").kid
    assert new != old
    assert json.loads((store / "index.json").read_text())["sites"]["site-0001"]["1"]["kid"] == new


def test_a_check_refuses_a_store_that_others_can_read(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir(mode=0o755)
    with pytest.raises(ks.KeyStoreError, match="mode 0755"):
        ensure(store, dry_run=True)


@pytest.mark.parametrize(("call", "number"), [("open", errno.EROFS), ("pwrite", errno.ENOSPC)])
def test_a_store_that_cannot_be_written_is_one_clear_error_and_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    store = tmp_path / "store"
    ensure(store)
    real = getattr(os, call)

    def refuse(what: Any, how: Any, *more: Any, **named: Any) -> Any:
        if call == "pwrite" or how & os.O_CREAT:
            raise OSError(number, os.strerror(number), *([str(what)] if call == "open" else []))
        return real(what, how, *more, **named)

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(ks.KeyStoreError, match=rf"store cannot be written: {os.strerror(number)}.*No key was lost"):
        ensure(store, sites=[*SITES, "site-0003"])
    assert ensure(store).changed is False


def test_a_second_operator_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    store = tmp_path / "store"
    ensure(store)
    with (store / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        handle.write("anna@desk (pid 7) since 2026-01-01T00:00:00Z: make keys\n")
        handle.flush()
        with pytest.raises(ks.KeyStoreLockedError, match=r"in use by anna@desk \(pid 7\) since 2026"):
            ensure(store, sites=[*SITES, "site-0003"])
        # Who only looks whether all is there needs nobody to wait.
        assert ensure(store).changed is False
    ensure(store, sites=[*SITES, "site-0003"])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path, _: (path / "psk.pem").write_text("x"), "this is no OpenVPN tls-crypt-v2 client key"),
        (lambda path, other: shutil.copy(other / "psk.pem", path / "psk.pem"), "issued to site site-0002"),
        (lambda path, other: shutil.copy(other / "cert.pem", path / "cert.pem"), "carries the name site-0002"),
        (lambda path, other: shutil.copy(other / "key.pem", path / "key.pem"), "does not belong to its certificate"),
        (lambda path, _: (path / "key.pem").unlink(), "is missing from the key store. Restore it from the backup"),
    ],
)
def test_a_damaged_key_is_not_delivered(tmp_path: Path, damage: Any, says: str) -> None:
    store = tmp_path / "store"
    ensure(store)
    damage(store / "sites/site-0001/1", store / "sites/site-0002/1")
    with pytest.raises(ks.KeyStoreError, match=says):
        ks.KeyStore(path=store).site_key(site="site-0001")


def test_a_key_that_was_never_made_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ks.NoKeyError, match=r"site-0001 has no key in .*run site.yml"):
        ks.KeyStore(path=tmp_path / "store").site_key(site="site-0001")


def test_a_key_shows_no_secret_when_printed(tmp_path: Path) -> None:
    ensure(tmp_path / "store")
    key = ks.KeyStore(path=tmp_path / "store").site_key(site="site-0001")
    assert "BEGIN" not in repr(key)
    assert "BEGIN" not in json.dumps(key.public())
