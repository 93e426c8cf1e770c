# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store's own key: a file, a program, and everything that can be wrong with either."""

from __future__ import annotations

import os
import pty
import stat
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import store_key as sk
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore, KeyStoreError, StoreKeyError
from key_support import new_store, quick_vault

if TYPE_CHECKING:
    from pathlib import Path

SITES = ["site-0001"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_vault(monkeypatch)


def ensure(store: KeyStore, *, sites: list[str] | None = None, dry_run: bool = False) -> Path | None:
    made = store.ensure(fleet="lab", key_type="p256", gateways=[], sites=sites or SITES, dry_run=dry_run)
    return made.made_store_key


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_it_is_made_on_first_use_closed_and_random_and_told_once(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    assert ensure(store, dry_run=True) == tmp_path / "store.key"
    assert not (tmp_path / "store.key").exists()
    assert ensure(store) == tmp_path / "store.key"
    assert stat.S_IMODE((tmp_path / "store.key").stat().st_mode) == 0o600
    assert len((tmp_path / "store.key").read_bytes().strip()) >= 64
    assert ensure(store) is None
    other = new_store(tmp_path / "other")
    ensure(other)
    assert other.key.read() != store.key.read()
    assert [entry["event"] for entry in store.ledger.entries()].count("store-key-made") == 1


def test_a_key_that_is_there_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "store.key").write_text("what lay in the safe since\n")
    (tmp_path / "store.key").chmod(0o600)
    store = new_store(tmp_path)
    assert ensure(store) is None
    assert store.key.read() == b"what lay in the safe since"


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_lost_key_is_never_made_anew(tmp_path: Path, *, dry_run: bool) -> None:
    ensure(new_store(tmp_path))
    (tmp_path / "store.key").unlink()
    with pytest.raises(
        StoreKeyError, match=r"store\.key is missing. Without it no key in the store can be read. Restore"
    ):
        ensure(new_store(tmp_path), sites=["site-0001", "site-0002"], dry_run=dry_run)
    with pytest.raises(StoreKeyError, match="is missing"):
        ensure(new_store(tmp_path))
    with pytest.raises(StoreKeyError, match="is missing"):
        new_store(tmp_path).site_key(site="site-0001")
    assert not (tmp_path / "store.key").exists()


@pytest.mark.parametrize(
    "left", ["ca.key.vault", "server-tls-crypt-v2.vault", "gateways/gw1.vault", "sites/site-0001/1.vault"]
)
def test_whatever_encrypted_file_is_left_no_key_is_made(tmp_path: Path, left: str) -> None:
    whole = new_store(tmp_path / "whole")
    whole.ensure(fleet="lab", key_type="p256", gateways=["gw1"], sites=SITES)
    store = new_store(tmp_path)
    (store.path / left).parent.mkdir(mode=0o700, parents=True)
    store.path.chmod(0o700)
    (store.path / left).write_bytes((whole.path / left).read_bytes())
    with pytest.raises(KeyStoreError, match=r"is missing|is gone"):
        ensure(store)
    assert not (tmp_path / "store.key").exists()


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_wrong_key_is_named_and_nothing_is_made(tmp_path: Path, *, dry_run: bool) -> None:
    store = new_store(tmp_path)
    ensure(store)
    (tmp_path / "store.key").write_text("another one\n")
    before = sorted(store.path.rglob("*"))
    with pytest.raises(
        StoreKeyError, match=r"the key .*store\.key does not open .*ca\.key\.vault: it is the key of another"
    ):
        ensure(new_store(tmp_path), sites=["site-0009"], dry_run=dry_run)
    with pytest.raises(StoreKeyError, match="does not open"):
        new_store(tmp_path).site_key(site="site-0001")
    with pytest.raises(StoreKeyError, match="does not open"):
        new_store(tmp_path).regenerate(sites=SITES, key_type="p256", reason="x")
    assert sorted(path for path in store.path.rglob("*") if path.name != "operation.json") == [
        path for path in before if path.name != "operation.json"
    ]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    ensure(new_store(tmp_path))
    (tmp_path / "store.key").chmod(mode)
    with pytest.raises(
        StoreKeyError, match=rf"has mode {mode:04o}: others could read it. Run: chmod 0600 .*store\.key"
    ):
        new_store(tmp_path).site_key(site="site-0001")


def test_an_empty_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.key").touch(mode=0o600)
    with pytest.raises(StoreKeyError, match="is empty"):
        ensure(new_store(tmp_path))


def test_a_program_can_say_the_key(tmp_path: Path) -> None:
    store = KeyStore(path=tmp_path / "store", key=program(tmp_path / "ask.sh", "echo from-the-manager-of-secrets"))
    assert ensure(store) is None
    assert store.key.read() == b"from-the-manager-of-secrets"
    (tmp_path / "plain").write_text("from-the-manager-of-secrets")
    (tmp_path / "plain").chmod(0o600)
    assert KeyStore(path=store.path, key=tmp_path / "plain").site_key(site="site-0001").epoch == 1


def test_a_client_program_is_told_which_key_is_wanted(tmp_path: Path) -> None:
    asked = program(tmp_path / "manager-client.py", f'echo "$@" >{tmp_path}/asked\necho word')
    assert sk.StoreKey(asked).read() == b"word"
    assert (tmp_path / "asked").read_text() == "--vault-id spokewright\n"
    plain = program(tmp_path / "manager.sh", f'echo "[$@]" >{tmp_path}/asked\necho word')
    sk.StoreKey(plain).read()
    assert (tmp_path / "asked").read_text() == "[]\n"


def test_a_program_is_asked_once(tmp_path: Path) -> None:
    store = KeyStore(
        path=tmp_path / "store",
        key=program(tmp_path / "ask.sh", f"echo x >>{tmp_path}/times\necho a-long-enough-random-word"),
    )
    ensure(store)
    store.site_key(site="site-0001")
    assert (tmp_path / "times").read_text() == "x\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("echo 'the safe is shut' >&2; exit 3", r"ended with status 3 and said: the safe is shut"),
        ("exit 3", r"ended with status 3 and said: nothing"),
        ("exit 0", r"ended well but printed no key"),
        ("sleep 5; echo word", r"gave no answer within 0\.2 s"),
    ],
)
def test_a_program_that_fails_is_told_with_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    if "sleep" in text:
        monkeypatch.setattr(sk, "SCRIPT_SECONDS", 0.2)
    store = KeyStore(path=tmp_path / "store", key=program(tmp_path / "ask.sh", text))
    with pytest.raises(StoreKeyError, match=says):
        ensure(store)
    assert not list((tmp_path / "store").rglob("*.vault"))


@pytest.mark.parametrize("spoken", ["printf 'the key of a store\\r\\n'", "printf 'the key of a store'"])
def test_what_a_program_says_is_understood_as_by_ansible(tmp_path: Path, spoken: str) -> None:
    assert sk.StoreKey(program(tmp_path / "ask.sh", spoken)).read() == b"the key of a store"
    # A space belongs to the key there, so it does here.
    assert sk.StoreKey(program(tmp_path / "space.sh", "printf ' key \\n'")).read() == b" key "
    with pytest.raises(StoreKeyError, match="ended well but printed no key"):
        sk.StoreKey(program(tmp_path / "blank.sh", "printf ' \\n'")).read()


def test_a_program_has_no_terminal_to_ask_on(tmp_path: Path) -> None:
    asking = program(tmp_path / "ask.sh", "read answer </dev/tty && echo $answer")
    pid, terminal = pty.fork()
    if pid == 0:
        code = 1
        try:
            sk.StoreKey(asking).read()
        except StoreKeyError as exc:
            code = 7 if "ended with status" in str(exc) else 2
        finally:
            os._exit(code)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    finally:
        os.close(terminal)


@pytest.mark.parametrize("word", ["x", "correct horse", "21-bytes-of-any-text."])
def test_no_store_is_locked_with_what_can_be_guessed(tmp_path: Path, word: str) -> None:
    weak = tmp_path / "weak.key"
    weak.write_text(f"{word}\n")
    weak.chmod(0o600)
    said = rf"weak\.key holds or says is {len(word)} bytes long: that can be guessed.*openssl rand -base64 48"
    with pytest.raises(StoreKeyError, match=said):
        ensure(KeyStore(path=tmp_path / "store", key=weak))
    assert not list((tmp_path / "store").rglob("*.vault"))


def test_a_program_that_fails_is_not_asked_for_every_site(tmp_path: Path) -> None:
    key = sk.StoreKey(program(tmp_path / "ask.sh", f"echo x >>{tmp_path}/times; echo shut >&2; exit 3"))
    for _site in range(3):
        with pytest.raises(StoreKeyError, match="ended with status 3 and said: shut"):
            key.read()
    assert (tmp_path / "times").read_text() == "x\n"
    # The next piece of work may find the safe open.
    program(tmp_path / "ask.sh", "echo word")
    key.forget()
    assert key.read() == b"word"


def test_a_key_file_with_the_mode_of_a_program_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "store.key").write_text("a key\n")
    (tmp_path / "store.key").chmod(0o700)
    with pytest.raises(StoreKeyError, match=r"cannot be run: .*If it is a key file and no program, run: chmod 0600"):
        ensure(new_store(tmp_path))


def test_no_message_shows_the_key(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    ensure(store)
    word = store.key.read().decode()
    assert word not in repr(store.key)
    (store.path / "ca.key.vault").write_text("$ANSIBLE_VAULT;1.1;AES256\nzz\n")
    with pytest.raises(KeyStoreError, match=r"ca\.key\.vault") as caught:
        ensure(new_store(tmp_path))
    assert word not in str(caught.value)
