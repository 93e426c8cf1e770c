# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key store: stable, closed to others, and what is lost is told and never made anew."""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import pwd
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates, vault_format
from ansible_collections.spokewright.fleet.plugins.plugin_utils import key_store as ks
from key_support import new_store, quick_vault

SITES = ["site-0001", "site-0002"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_vault(monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> ks.KeyStore:
    found = new_store(tmp_path)
    ensure(found)
    return found


def ensure(store: ks.KeyStore, *, sites: list[str] | None = None, **more: Any) -> ks.Ensured:
    wanted = SITES if sites is None else sites
    # Each time as another process would: nothing is kept from the call before.
    fresh = ks.KeyStore(path=store.path, key=store.key.path)
    return fresh.ensure(fleet="lab", key_type="p256", gateways=["gw1", "gw2"], sites=wanted, **more)


def content(store: ks.KeyStore) -> dict[str, bytes]:
    path = store.path
    return {str(one.relative_to(path)): one.read_bytes() for one in sorted(path.rglob("*")) if one.is_file()}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


def reseal(store: ks.KeyStore, name: str, **fields: str) -> None:
    """Change what is inside an encrypted file, as nobody but the owner of its key could."""
    path = store.path / name
    record = json.loads(vault_format.decrypt(text=path.read_text(), secret=store.key.read()))
    path.write_text(vault_format.encrypt(text=json.dumps({**record, **fields}), secret=store.key.read()))


def test_the_second_run_makes_nothing_and_changes_no_byte(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    first = ensure(store)
    assert (first.made_ca, first.made_server_key, first.made_crl) == (True, True, True)
    assert first.made_gateways == ("gw1", "gw2")
    assert first.made_sites == ("site-0001", "site-0002")
    assert first.made_store_key == tmp_path / "store.key"
    before = content(store)
    assert ensure(store).changed is False
    assert content(store) == before


def test_a_new_site_gets_a_key_and_nobody_elses_changes(store: ks.KeyStore) -> None:
    before = content(store)
    assert ensure(store, sites=[*SITES, "site-0003"]).made_sites == ("site-0003",)
    assert changed(before, content(store)) == {
        "index/site-0003.json",
        "sites/site-0003/1.vault",
        "ledger.jsonl",
        "ledger.head",
        "operation.json",
    }


def test_a_site_that_left_the_plan_keeps_its_key_for_its_return(store: ks.KeyStore) -> None:
    kid = store.site_key(site="site-0002").kid
    assert ensure(store, sites=["site-0001"]).changed is False
    assert ensure(store).changed is False
    assert store.site_key(site="site-0002").kid == kid


def test_a_dry_run_says_the_same_and_writes_nothing(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    said = ensure(store, dry_run=True)
    assert list(tmp_path.iterdir()) == []
    assert said == ensure(store)


def test_only_the_owner_can_look_in(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    old = os.umask(0)
    try:
        ensure(store)
        store.regenerate(sites=SITES, key_type="p256", reason="x")
    finally:
        os.umask(old)
    for path in (store.path, *store.path.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_store_that_others_can_read_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, *, dry_run: bool
) -> None:
    store = new_store(tmp_path)
    store.path.mkdir(mode=0o755)
    with pytest.raises(ks.KeyStoreError, match=r"mode 0755: others could read all keys. Run: chmod 0700"):
        ensure(store, dry_run=dry_run)
    assert list(tmp_path.rglob("*")) == [store.path]


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("name", ["ca.key", "server-tls-crypt-v2.pem", "index.json"])
def test_a_store_from_before_encryption_is_refused_and_left_as_it_is(
    tmp_path: Path, name: str, *, dry_run: bool
) -> None:
    store = new_store(tmp_path)
    store.path.mkdir(mode=0o700)
    (store.path / name).write_text("plain")
    with pytest.raises(
        ks.KeyStoreError, match=rf"kept keys unencrypted: it holds {name}\. It is left as it is. Move it"
    ):
        ensure(store, dry_run=dry_run)
    assert sorted(tmp_path.rglob("*")) == [store.path, store.path / name]


def test_no_file_but_the_encrypted_ones_holds_a_secret(store: ks.KeyStore) -> None:
    secrets = []
    for site in SITES:
        key = store.site_key(site=site)
        secrets += [key.psk, key.private_key]
    for name in ("gw1", "gw2"):
        gateway = store.gateway_key(name=name)
        secrets += [gateway.private_key, gateway.server_key]
    lines = {line for one in secrets for line in one.reveal().splitlines() if not line.startswith("-----")}
    assert len(lines) > 10
    for name, raw in content(store).items():
        assert not any(line.encode() in raw for line in lines), name
        assert (b"PRIVATE" in raw) is False, name
        assert raw.startswith(b"$ANSIBLE_VAULT;1.1;AES256\n") is name.endswith(".vault"), name


def test_the_index_says_who_has_which_key_and_since_when(store: ks.KeyStore) -> None:
    entry = store.index()["site-0001"][1]
    key = store.site_key(site="site-0001")
    assert entry == {**key.public(), "state": "issued", "times": {"issued": entry["times"]["issued"]}}
    assert entry["psk_fingerprint"].startswith("SHA256:")
    assert store.index(sites=["site-0002", "site-0009"]).keys() == {"site-0002"}
    assert json.loads((store.path / "index/site-0001.json").read_text()).keys() == {"site", "epochs"}


@pytest.mark.parametrize("lose", ["index", "index/site-0001.json"])
def test_a_lost_index_is_made_again_from_the_ledger_with_its_states(store: ks.KeyStore, lose: str) -> None:
    store.regenerate(sites=["site-0001"], key_type="p256", reason="x")
    store.mark(seen=[ks.Seen(site="site-0001", epoch=1, state="confirmed")])
    store.mark(seen=[ks.Seen(site="site-0001", epoch=2, state="staged")])
    before = store.index()
    path = store.path / lose
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert ensure(store).changed is False
    assert store.index() == before
    assert store.verify() == []


def test_a_damaged_index_says_that_it_may_be_deleted(store: ks.KeyStore) -> None:
    path = store.path / "index/site-0001.json"
    before = path.read_bytes()
    entry = json.loads(before)["epochs"]["1"]
    for wrong in ({}, 7, {**entry, "state": "lost"}, {**entry, "epoch": None}, {**entry, "times": "x"}):
        path.write_text(json.dumps({"epochs": {"1": wrong}}))
        with pytest.raises(ks.KeyStoreError, match=r"site-0001\.json is no index of a site .*delete it, the next run"):
            store.index()
    for text in ("", "[]", "x", '{"epochs": {"a": {}}}', '{"epochs": {"1": {}}}'):
        path.write_text(text)
        with pytest.raises(ks.KeyStoreError, match=r"site-0001\.json is no index of a site .*delete it, the next run"):
            ensure(store)
    path.unlink()
    ensure(store)
    assert path.read_bytes() == before


def test_an_index_that_does_not_fit_the_ledger_is_named(store: ks.KeyStore) -> None:
    path = store.path / "index/site-0001.json"
    whole = path.read_text()
    path.write_text(whole.replace('"state": "issued"', '"state": "confirmed"'))
    [problem] = store.verify()
    assert problem == f"{path}: epoch 1: state is 'confirmed', but ledger.jsonl says 'issued'."
    path.write_text(whole.replace('"1": {', '"7": {'))
    assert store.ledger.verify() == [f"{path}: epoch 7: no line of ledger.jsonl says that it was issued."]


@pytest.mark.parametrize("line", ["{}", "[]", '{"seq": 3}', "x"])
def test_a_line_of_the_ledger_that_is_none_is_named_and_nothing_falls_over_it(store: ks.KeyStore, line: str) -> None:
    lines = store.ledger.path.read_text().splitlines()
    store.ledger.path.write_text("\n".join([*lines[:2], line, *lines[2:], ""]))
    assert any(problem.startswith(f"{store.ledger.path}:3: ") for problem in store.verify())
    (store.path / "index/site-0001.json").unlink()
    ensure(store)
    assert store.index()["site-0001"][1]["state"] == "issued"


@pytest.mark.parametrize("name", ["ca.pem", "server-tls-crypt-v2.vault"])
def test_a_lost_ca_or_server_key_is_never_silently_replaced(store: ks.KeyStore, name: str) -> None:
    (store.path / name).unlink()
    with pytest.raises(ks.KeyStoreError, match=r"is gone, but keys made with it.*Restore it from the backup"):
        ensure(store, sites=[*SITES, "site-0003"])


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("lose", "says"),
    [
        ("ca.pem", r"ca.pem is gone, but keys made with it are still there"),
        ("ca.key.vault", r"ca.key.vault is gone, but ca.pem is there.*Restore it from the backup"),
        ("server-tls-crypt-v2.vault", r"server-tls-crypt-v2.vault is gone, but keys"),
        (
            "sites/site-0001",
            r"the keys of site-0001 are gone, but it is on record.*Restore sites/ID.*tools/fleet key regenerate ID",
        ),
        ("sites/site-0001/1.vault", r"the keys of site-0001 are gone, but it is on record"),
        ("sites", r"the keys of site-0001, site-0002 are gone"),
        ("gateways/gw1.vault", r"gateways/gw1\.vault is gone, but its certificate gw1\.pem is there. Restore it"),
    ],
)
def test_what_was_lost_is_told_by_the_run_and_by_its_check_and_nothing_is_made(
    store: ks.KeyStore, lose: str, says: str, *, dry_run: bool
) -> None:
    path = store.path / lose
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = content(store)
    with pytest.raises(ks.KeyStoreError, match=says):
        ensure(store, sites=[*SITES, "site-0003"], dry_run=dry_run)
    assert changed(before, content(store)) <= {"operation.json"}


def test_many_lost_keys_are_counted(store: ks.KeyStore) -> None:
    sites = [f"site-{number:04d}" for number in range(1, 10)]
    ensure(store, sites=sites)
    shutil.rmtree(store.path / "sites")
    with pytest.raises(ks.KeyStoreError, match=r"the keys of site-0001, .*site-0005 and 4 more are gone"):
        ensure(store, sites=sites)


def test_the_certificate_beside_a_gateways_key_is_made_again(store: ks.KeyStore) -> None:
    path = store.path / "gateways/gw1.pem"
    before = path.read_bytes()
    path.unlink()
    assert ensure(store).changed is False
    assert path.read_bytes() == before


def test_a_gateway_of_which_nothing_is_left_gets_a_new_certificate(store: ks.KeyStore) -> None:
    old = store.gateway_key(name="gw1").certificate
    (store.path / "gateways/gw1.pem").unlink()
    (store.path / "gateways/gw1.vault").unlink()
    assert ensure(store).made_gateways == ("gw1",)
    assert store.gateway_key(name="gw1").certificate != old


def test_a_lost_key_stays_known_while_its_site_is_out_of_the_plan(store: ks.KeyStore) -> None:
    shutil.rmtree(store.path / "sites/site-0002")
    assert ensure(store, sites=["site-0001", "site-0003"]).made_sites == ("site-0003",)
    with pytest.raises(ks.KeyStoreError, match="the keys of site-0002 are gone"):
        ensure(store)


def test_a_lost_key_is_known_though_its_index_was_lost_with_it(store: ks.KeyStore) -> None:
    shutil.rmtree(store.path / "sites/site-0002")
    (store.path / "index/site-0002.json").unlink()
    for dry_run in (True, False):
        with pytest.raises(ks.KeyStoreError, match="the keys of site-0002 are gone"):
            ensure(store, dry_run=dry_run)
    shutil.rmtree(store.path / "index")
    with pytest.raises(ks.KeyStoreError, match="the keys of site-0002 are gone"):
        ensure(store)
    assert store.regenerate(sites=["site-0002"], key_type="p256", reason="x") == {"site-0002": 2}
    assert store.index()["site-0002"].keys() == {1, 2}
    assert ensure(store).changed is False
    assert store.verify() == []


def test_a_site_that_lost_its_key_is_given_the_next_one_on_purpose(store: ks.KeyStore) -> None:
    old = store.site_key(site="site-0001").kid
    shutil.rmtree(store.path / "sites/site-0001")
    assert store.regenerate(sites=["site-0001"], key_type="p256", reason="disk died") == {"site-0001": 2}
    assert ensure(store).changed is False
    new = store.site_key(site="site-0001")
    assert (new.epoch, new.kid != old) == (2, True)
    assert store.verify() == []


@pytest.mark.parametrize(("call", "number"), [("open", errno.EROFS), ("pwrite", errno.ENOSPC)])
def test_a_store_that_cannot_be_written_is_one_clear_error_and_read_all_the_same(
    store: ks.KeyStore, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    real = getattr(os, call)

    def refuse(what: Any, how: Any, *more: Any, **named: Any) -> Any:
        if call == "pwrite" or how & os.O_CREAT:
            raise OSError(number, os.strerror(number), *([str(what)] if call == "open" else []))
        return real(what, how, *more, **named)

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(ks.KeyStoreError, match=rf"store cannot be written: {os.strerror(number)}.*No key was lost"):
        ensure(store, sites=[*SITES, "site-0003"])
    assert ensure(store).changed is False


def test_root_writes_nothing_into_the_store_of_somebody_else(
    store: ks.KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(store)
    me = pwd.getpwuid(os.geteuid()).pw_name
    # Which user this is depends on where the test runs; that it is another than the owner does not.
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    said = rf"key store {store.path} belongs to {me}, and this runs as user 54321: .*Nothing was changed"
    with pytest.raises(ks.KeyStoreError, match=said):
        ensure(store, sites=[*SITES, "site-0003"])
    with pytest.raises(ks.KeyStoreError, match=said):
        store.note("revealed", site="site-0001", epoch=1)
    assert content(store) == before
    # Nothing is to be written for these.
    assert ensure(store).changed is False
    assert store.site_key(site="site-0001").epoch == 1


def test_a_file_that_only_somebody_else_may_read_is_told_as_such(
    store: ks.KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.read_text

    def read_text(path: Path, **more: Any) -> str:
        if path.name in {"operation.json", "1.vault"}:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, **more)

    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(ks.KeyStoreError, match=r"operation\.json cannot be read: Permission denied\. See to its owner"):
        ensure(store, sites=[*SITES, "site-0003"])
    with pytest.raises(ks.KeyStoreError, match=r"1\.vault cannot be read: Permission denied\.$"):
        store.site_key(site="site-0001")


def test_a_revocation_list_that_soon_ends_is_renewed_and_forgets_nobody(
    store: ks.KeyStore,
) -> None:
    ca = store.reader.ca_identity()
    long_ago = dt.datetime.now(tz=dt.UTC) - dt.timedelta(days=certificates.CRL_DAYS - 300)
    (store.path / "crl.pem").write_text(certificates.make_crl(ca=ca, revoked=[7], now=long_ago, number=4))
    made = ensure(store, dry_run=True)
    assert (made.made_crl, made.changed, made.made_sites) == (True, True, ())
    assert ensure(store).made_crl is True
    crl = (store.path / "crl.pem").read_text()
    assert certificates.crl_serials(crl=crl) == {7}
    assert certificates.crl_number(crl=crl) == 5
    assert certificates.crl_days_left(crl=crl, now=dt.datetime.now(tz=dt.UTC)) > 3000
    assert ensure(store).changed is False


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"psk": "x"}, "this is no OpenVPN tls-crypt-v2 client key"),
        ({"psk": "of the other"}, "issued to site site-0002"),
        ({"certificate": "of the other"}, "carries the name site-0002"),
        ({"private_key": "of the other"}, "does not belong to its certificate"),
        ({"private_key": "garbage"}, "no unencrypted PEM key"),
        ({"psk": None}, "opens, but what is inside is no key of ours"),
    ],
)
def test_a_damaged_key_is_not_delivered(store: ks.KeyStore, damage: dict[str, str], says: str) -> None:
    other = store.site_key(site="site-0002")
    theirs = {"psk": other.psk.reveal(), "certificate": other.certificate, "private_key": other.private_key.reveal()}
    fields = {name: theirs[name] if text == "of the other" else text for name, text in damage.items()}
    reseal(store, "sites/site-0001/1.vault", **fields)
    with pytest.raises(ks.KeyStoreError, match=says) as caught:
        store.site_key(site="site-0001")
    assert "sites/site-0001/1.vault" in str(caught.value)
    assert "Restore" in str(caught.value)


def test_the_key_of_another_epoch_is_not_delivered(store: ks.KeyStore) -> None:
    store.regenerate(sites=["site-0001"], key_type="p256", reason="x")
    shutil.copy(store.path / "sites/site-0001/1.vault", store.path / "sites/site-0001/2.vault")
    with pytest.raises(ks.KeyStoreError, match="is of epoch 1, not 2"):
        store.site_key(site="site-0001")


@pytest.mark.parametrize("name", ["sites/site-0001/1.vault", "gateways/gw1.vault", "server-tls-crypt-v2.vault"])
def test_a_changed_byte_of_an_encrypted_file_is_told(store: ks.KeyStore, name: str) -> None:
    path = store.path / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] = ord("0") if raw[len(raw) // 2] != ord("0") else ord("1")
    path.write_bytes(raw)
    with pytest.raises(ks.KeyStoreError, match=rf"{name}.*(file was changed|no whole ansible-vault file)"):
        store.gateway_key(name="gw1") if name.startswith("gate") else store.site_key(site="site-0001")


def test_a_gateways_key_is_proven(store: ks.KeyStore) -> None:
    key = store.gateway_key(name="gw1")
    assert certificates.common_name(certificate=key.certificate) == "gw1"
    assert "BEGIN OpenVPN tls-crypt-v2 server key" in key.server_key.reveal()
    reseal(store, "gateways/gw1.vault", certificate=store.gateway_key(name="gw2").certificate)
    with pytest.raises(ks.KeyStoreError, match=r"gateways/gw1\.vault: .*carries the name gw2"):
        store.gateway_key(name="gw1")
    with pytest.raises(ks.NoKeyError, match=r"gateway gw9 has no key in .*run site\.yml"):
        store.gateway_key(name="gw9")


def test_a_key_that_was_never_made_says_how_to_make_it(store: ks.KeyStore, tmp_path: Path) -> None:
    with pytest.raises(ks.NoKeyError, match=r"site-0001 has no key in .*run site\.yml"):
        new_store(tmp_path / "other").site_key(site="site-0001")
    with pytest.raises(ks.NoKeyError, match=r"site-0001 has no key of epoch 7 in .*It has: 1\."):
        store.site_key(site="site-0001", epoch=7)


def test_a_key_shows_no_secret_when_printed(store: ks.KeyStore) -> None:
    key, gateway = store.site_key(site="site-0001"), store.gateway_key(name="gw1")
    assert "BEGIN" not in repr(key) + repr(gateway) + repr([key.psk, gateway.server_key])
    assert "BEGIN" not in json.dumps(key.public())


def test_the_ledger_says_what_was_made_and_by_whom(store: ks.KeyStore) -> None:
    entries = list(store.ledger.entries())
    assert [entry["event"] for entry in entries] == [
        "store-key-made",
        "ca-made",
        "crl-made",
        "server-key-made",
        "gateway-issued",
        "gateway-issued",
        "issued",
        "issued",
    ]
    last, key = entries[-1], store.site_key(site="site-0002")
    assert (last["site"], last["epoch"], last["kid"]) == ("site-0002", 1, key.kid)
    assert last["fingerprint"] == key.public()["psk_fingerprint"]
    assert last["operation"].startswith("make keys #")


def test_more_keys_than_one_batch(store: ks.KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.spokewright.fleet.plugins.plugin_utils.key_maker.BATCH", 3)
    sites = [f"site-{number:04d}" for number in range(1, 12)]
    assert len(ensure(store, sites=sites).made_sites) == 9
    assert sorted(store.index()) == sites
    assert store.verify() == []
