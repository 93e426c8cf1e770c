# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one file says of two server keys, and what follows from it for the ledger, the sites' keys and their bundles."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import tls_crypt_v2
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollover import lines, replay
from ansible_collections.spokewright.fleet.plugins.plugin_utils.server_keys import EVENTS, ServerKeys, fingerprint
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_check import check_store
from key_support import quick_vault
from unit.plugin_utils.stores import SITES, killed_at, reopened, store_in

if TYPE_CHECKING:
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.ledger import Event

OLD, NEW = tls_crypt_v2.ServerKey(raw=b"o" * 128), tls_crypt_v2.ServerKey(raw=b"n" * 128)
BOTH = ServerKeys(serving=OLD).with_next(NEW)
REASON = "gw2 was stolen"


@pytest.mark.parametrize("keys", [ServerKeys(serving=OLD), BOTH, BOTH.turned(), BOTH.turned().turned()])
def test_the_file_holds_what_was_written(keys: ServerKeys) -> None:
    assert ServerKeys.from_text(keys.to_text()) == keys


def test_the_file_of_one_key_is_openvpns_own() -> None:
    assert ServerKeys(serving=OLD).to_text() == OLD.to_pem()


def test_turning_goes_there_and_back() -> None:
    turned = BOTH.turned()
    assert (turned.serving, turned.other, turned.phase) == (NEW, OLD, "former")
    assert turned.turned() == BOTH
    assert turned.alone() == ServerKeys(serving=NEW)
    assert ServerKeys(serving=OLD).turned() == ServerKeys(serving=OLD)


@pytest.mark.parametrize("damage", ["someday\n", "next\n"])
def test_a_damaged_file_is_refused(damage: str) -> None:
    with pytest.raises(tls_crypt_v2.TlsCryptV2Error):
        ServerKeys.from_text(OLD.to_pem() + damage + ("" if damage == "next\n" else NEW.to_pem()))


def told_of(keys: ServerKeys, entries: list[dict[str, str]]) -> list[Event]:
    return lines(keys.there(), said=replay(entries, events=EVENTS), events=EVENTS)


def test_the_ledger_is_told_what_it_lacks_and_no_more() -> None:
    entries = [{"event": "server-key-made", "fingerprint": fingerprint(OLD), "reason": ""}]
    for keys, event in (
        (BOTH, "server-key-made"),
        (BOTH.turned(), "server-key-serves"),
        (BOTH, "server-key-serves"),
        (BOTH.turned(), "server-key-serves"),
        (BOTH.turned().alone(), "server-key-retired"),
    ):
        told = told_of(keys, entries)
        assert [one.event for one in told] == [event]
        entries += [{"event": one.event, "fingerprint": one.fingerprint, "reason": REASON} for one in told]
        assert told_of(keys, entries) == []
    assert replay(entries, events=EVENTS).reasons[fingerprint(NEW)] == REASON


def test_every_key_of_every_site_gets_a_second_psk_with_a_secret_of_its_own(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    names = [(site, epoch) for site in SITES for epoch in store.epochs(site=site)]
    before = {(site, epoch): store.site_key(site=site, epoch=epoch) for site, epoch in names}
    with store.operation("test"):
        store.server_keys.make_next(reason=REASON)
    servers = store.server_keys.read()
    assert servers.other is not None
    for (site, epoch), old in before.items():
        key = store.site_key(site=site, epoch=epoch)
        assert key.other_psk is not None
        assert (key.psk.reveal(), key.kid, key.certificate) == (old.psk.reveal(), old.kid, old.certificate)
        opened = tls_crypt_v2.unwrap(server=servers.other, text=key.other_psk.reveal())
        assert opened.payload == tls_crypt_v2.unwrap(server=servers.serving, text=key.psk.reveal()).payload
        assert opened.secret != tls_crypt_v2.unwrap(server=servers.serving, text=key.psk.reveal()).secret
    assert store.server_keys.settled()


def test_a_key_that_is_made_meanwhile_is_one_for_both(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    with store.operation("test"):
        store.server_keys.make_next(reason=REASON)
    for phase in ("next", "former"):
        store.regenerate(sites=["site-0001"], key_type="p256", reason="meanwhile")
        assert store.server_keys.read().phase == phase
        assert store.site_key(site="site-0001").other_psk is not None
        if phase == "next":
            with store.operation("test"):
                store.server_keys.turn(reason=REASON)
    assert check_store(store=store).problems == []


def rotation(store: KeyStore) -> None:
    with store.operation("test"):
        store.server_keys.make_next(reason=REASON)
        store.server_keys.turn(reason=REASON)
        store.server_keys.leave_alone(reason=REASON)


def finish(store: KeyStore) -> None:
    """What the same command does with whatever it finds."""
    with store.operation("test"):
        if REASON not in store.server_keys.books().reasons.values():
            store.server_keys.make_next(reason=REASON)
        store.server_keys.settle(reason=REASON)
        if store.server_keys.read().phase == "next":
            store.server_keys.turn(reason=REASON)
        store.server_keys.leave_alone(reason=REASON)


def test_killed_at_any_write_every_key_is_whole_and_the_next_run_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_vault(monkeypatch)
    step, moments = 0, 0
    while True:
        step += 1
        folder = tmp_path / str(step)
        folder.mkdir()
        store = store_in(folder)
        old = fingerprint(store.server_keys.read().serving)
        if not killed_at(step, functools.partial(rotation, store)):
            break
        moments += 1
        for site in SITES:
            for epoch in store.epochs(site=site):
                assert reopened(store).site_key(site=site, epoch=epoch).epoch == epoch, step
        finish(reopened(store))
        found = check_store(store=reopened(store))
        assert found.problems == [], step
        assert fingerprint(reopened(store).server_keys.read().serving) != old
        retired = [one for one in reopened(store).ledger.entries() if one["event"] == "server-key-retired"]
        assert [one["fingerprint"] for one in retired] == [old]
    assert moments > 10
