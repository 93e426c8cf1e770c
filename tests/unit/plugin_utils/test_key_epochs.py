# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site's keys over time: made anew on purpose, seen on their way, destroyed when nobody needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import (
    KeyStore,
    KeyStoreError,
    NoKeyError,
    Seen,
)
from key_support import new_store, quick_vault

if TYPE_CHECKING:
    from pathlib import Path

SITES = ["site-0001", "site-0002"]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyStore:
    quick_vault(monkeypatch)
    found = new_store(tmp_path)
    found.ensure(fleet="lab", key_type="p256", gateways=[], sites=SITES)
    return found


def see(store: KeyStore, epoch: int, state: str, *, site: str = "site-0001", back: bool = False) -> int:
    return store.mark(seen=[Seen(site=site, epoch=epoch, state=state, back=back)])


def state(store: KeyStore, epoch: int, *, site: str = "site-0001") -> str:
    return str(store.index()[site][epoch]["state"])


def regenerate(store: KeyStore, *sites: str, dry_run: bool = False) -> dict[str, int]:
    return store.regenerate(sites=sites or ["site-0001"], key_type="p256", reason="laptop lost", dry_run=dry_run)


def test_a_new_epoch_stands_beside_the_old_one(store: KeyStore) -> None:
    first = store.site_key(site="site-0001")
    assert regenerate(store) == {"site-0001": 2}
    assert store.epochs(site="site-0001") == [1, 2]
    assert store.epochs(site="site-0002") == [1]
    newest, old = store.site_key(site="site-0001"), store.site_key(site="site-0001", epoch=1)
    assert (newest.epoch, old.kid) == (2, first.kid)
    assert newest.kid != first.kid
    assert newest.psk != first.psk
    assert newest.private_key != first.private_key
    assert store.ledger.tail(1)[0]["reason"] == "laptop lost"
    assert store.ensure(fleet="lab", key_type="p256", gateways=[], sites=SITES).changed is False


def test_a_dry_run_of_it_says_the_epochs_and_makes_nothing(store: KeyStore) -> None:
    assert regenerate(store, *SITES, dry_run=True) == {"site-0001": 2, "site-0002": 2}
    assert store.epochs(site="site-0001") == [1]


def test_who_never_had_a_key_gets_none_by_it(store: KeyStore) -> None:
    for dry_run in (True, False):
        with pytest.raises(NoKeyError, match=r"site-0009: no key was ever made.*Run site\.yml first"):
            regenerate(store, "site-0001", "site-0009", dry_run=dry_run)
    assert store.epochs(site="site-0001") == [1]


def test_epochs_are_counted_as_numbers(store: KeyStore) -> None:
    for _ in range(10):
        regenerate(store)
    assert store.epochs(site="site-0001") == list(range(1, 12))
    assert store.site_key(site="site-0001").epoch == 11


def test_what_sites_hold_is_entered_once_and_with_its_time(store: KeyStore) -> None:
    count = len(list(store.ledger.entries()))
    assert store.mark(seen=[Seen(site=site, epoch=1, state="staged") for site in SITES]) == 2
    assert store.mark(seen=[Seen(site=site, epoch=1, state="staged") for site in SITES]) == 0
    assert see(store, 1, "confirmed") == 1
    assert (state(store, 1), state(store, 1, site="site-0002")) == ("confirmed", "staged")
    assert store.index()["site-0001"][1]["times"].keys() == {"issued", "staged", "confirmed"}
    assert [entry["event"] for entry in store.ledger.entries()][count:] == ["staged", "staged", "confirmed"]
    assert store.verify() == []


def test_a_key_that_is_staged_again_stays_what_it_is(store: KeyStore) -> None:
    see(store, 1, "confirmed")
    assert see(store, 1, "staged") == 0
    assert state(store, 1) == "confirmed"


def test_a_site_that_went_back_is_believed(store: KeyStore) -> None:
    see(store, 1, "active")
    assert see(store, 1, "staged", back=True) == 1
    assert state(store, 1) == "staged"
    assert see(store, 1, "staged", back=True) == 0


def test_several_states_of_one_key_at_once_are_taken_in_order(store: KeyStore) -> None:
    seen = [Seen(site="site-0001", epoch=1, state=name) for name in ("staged", "confirmed", "active", "staged")]
    assert store.mark(seen=seen) == 2
    assert state(store, 1) == "confirmed"
    assert store.verify() == []


def test_a_key_we_never_made_is_no_news_and_a_state_that_is_none_is_an_error(store: KeyStore) -> None:
    assert see(store, 7, "staged") == 0
    assert see(store, 1, "staged", site="site-0009") == 0
    for wrong in ("there", "issued", "destroyed", ""):
        with pytest.raises(
            KeyStoreError, match=f"site-0001: no key can be seen to be '{wrong}', only accepted, staged"
        ):
            see(store, 1, wrong)


def test_an_old_key_is_destroyed_for_good_and_only_once(store: KeyStore) -> None:
    regenerate(store)
    assert store.destroy(site="site-0001", epoch=1, reason="its time is over", dry_run=True) is True
    assert store.epochs(site="site-0001") == [1, 2]
    assert store.destroy(site="site-0001", epoch=1, reason="its time is over") is True
    assert store.epochs(site="site-0001") == [2]
    assert state(store, 1) == "destroyed"
    assert store.destroy(site="site-0001", epoch=1, reason="again") is False
    last = store.ledger.tail(1)[0]
    assert (last["event"], last["epoch"], last["reason"]) == ("destroyed", 1, "its time is over")
    assert last["kid"] == store.index()["site-0001"][1]["kid"]
    assert store.verify() == []
    assert store.ensure(fleet="lab", key_type="p256", gateways=[], sites=SITES).changed is False
    assert see(store, 1, "staged") == 0
    with pytest.raises(NoKeyError, match=r"no key of epoch 1 in .*It has: 2"):
        store.site_key(site="site-0001", epoch=1)


@pytest.mark.parametrize("dry_run", [False, True])
def test_the_newest_key_and_one_that_may_be_needed_stay(store: KeyStore, *, dry_run: bool) -> None:
    with pytest.raises(KeyStoreError, match="the key of site-0001 of epoch 1 is its newest"):
        store.destroy(site="site-0001", epoch=1, reason="x", dry_run=dry_run)
    regenerate(store)
    for name in ("staged", "active", "confirmed"):
        see(store, 1, name)
        with pytest.raises(KeyStoreError, match=f"epoch 1 is {name}, and no newer one is confirmed"):
            store.destroy(site="site-0001", epoch=1, reason="x", dry_run=dry_run)
    see(store, 2, "confirmed")
    assert store.destroy(site="site-0001", epoch=1, reason="x", dry_run=dry_run) is True
    with pytest.raises(NoKeyError, match="never had a key of epoch 9"):
        store.destroy(site="site-0001", epoch=9, reason="x", dry_run=dry_run)


def test_a_note_is_a_line_of_the_ledger_and_nothing_else(store: KeyStore) -> None:
    before = store.index()
    store.note("revealed", site="site-0001", epoch=1, reason="link is down")
    store.note("backup", reason="to the safe")
    first, second = store.ledger.tail(2)
    assert (first["event"], first["kid"]) == ("revealed", before["site-0001"][1]["kid"])
    assert (second["event"], second["site"], second["reason"]) == ("backup", "", "to the safe")
    assert store.index() == before
    assert store.verify() == []
