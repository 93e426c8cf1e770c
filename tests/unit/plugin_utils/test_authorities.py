# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ca.pem says of two CAs, whom sites and gateways trust, and that a rollover can be killed at any write."""

from __future__ import annotations

import datetime as dt
import functools
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates
from ansible_collections.spokewright.fleet.plugins.plugin_utils.authorities import Authorities
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import Seen
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_check import check_store
from key_support import quick_vault
from unit.plugin_utils.stores import GATEWAYS, SITES, killed_at, reopened, store_in

if TYPE_CHECKING:
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.authority_store import AuthorityStore
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore

NOW = dt.datetime(2026, 11, 27, tzinfo=dt.UTC)
OLD = certificates.make_ca(fleet="test", key_type="p256", now=NOW)
NEW = certificates.make_ca(fleet="test", key_type="p256", now=NOW, follows=True)
BOTH = Authorities(serving=OLD.certificate).with_next(NEW.certificate)
REASON = "the controller was lost"


@pytest.mark.parametrize("found", [BOTH, BOTH.turned(), BOTH.alone()])
def test_the_file_holds_what_was_written(found: Authorities) -> None:
    assert Authorities.from_text(found.to_text()) == found
    # Whoever reads PEM finds the serving one first.
    assert certificates.split(text=found.to_text()) == list(found.all)
    assert certificates.fingerprint(certificate=found.to_text()) == found.there().serving


def test_gateways_trust_the_next_ca_when_it_issues_and_the_former_until_the_end() -> None:
    assert BOTH.of_gateways == (OLD.certificate,)
    assert BOTH.turned().of_gateways == BOTH.turned().all == (NEW.certificate, OLD.certificate)
    assert BOTH.turned().alone().of_gateways == (NEW.certificate,)
    assert BOTH.turned().turned() == BOTH.turned(), "there is no way back"


def test_the_next_ca_has_a_name_of_its_own_for_its_revocation_list() -> None:
    assert certificates.common_name(certificate=OLD.certificate) == "test fleet CA"
    assert certificates.common_name(certificate=NEW.certificate).startswith("test fleet CA ")


def test_each_certificate_finds_its_own_key() -> None:
    keys = OLD.private_key + NEW.private_key
    for one in (OLD, NEW):
        assert certificates.own_key(certificate=one.certificate, private_keys=keys) == one.private_key
    with pytest.raises(certificates.CertificateError, match="no private key is there for the certificate of test"):
        certificates.own_key(certificate=NEW.certificate, private_keys=OLD.private_key)


def of(store: KeyStore) -> AuthorityStore:
    return store.authorities(fleet="test", key_type="p256")


def rollover(store: KeyStore) -> None:
    """As the playbook does it, and what it does with whatever it finds."""
    with store.operation("test"):
        ca = of(store)
        if REASON not in ca.books().reasons.values() or ca.there().phase == "next":
            ca.make_next(reason=REASON)
            ca.turn(reason=REASON)
        ca.settle(reason=REASON)
        due = ca.to_reissue(sites=SITES)
        if due:
            store.regenerate(sites=due, key_type="p256", reason=REASON)
        ca.leave_alone(reason=REASON)


def test_a_site_whose_key_of_the_new_ca_was_given_up_gets_another(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    with store.operation("test"):
        ca = of(store)
        ca.make_next(reason=REASON)
        ca.turn(reason=REASON)
        ca.settle(reason=REASON)
        made = store.regenerate(sites=SITES, key_type="p256", reason=REASON)
        store.mark(seen=[Seen(site=SITES[0], epoch=made[SITES[0]], state="retired")])
        assert ca.to_reissue(sites=SITES) == [SITES[0]]
        assert "is of the former CA" in ca.outdated(sites=SITES[:1])[SITES[0]]


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
        old = of(store).there().serving
        if not killed_at(step, functools.partial(rollover, store)):
            break
        moments += 1
        left = reopened(store)
        for site in SITES:
            assert left.site_key(site=site).site == site, step
        assert left.gateway_key(name=GATEWAYS[0]).name == GATEWAYS[0], step
        rollover(reopened(store))
        whole = reopened(store)
        assert check_store(store=whole).problems == [], step
        assert (of(whole).there().phase, of(whole).settled()) == ("one", True)
        assert of(whole).there().serving != old
        retired = [one["fingerprint"] for one in whole.ledger.entries() if one["event"] == "ca-retired"]
        assert retired == [old], step
    assert moments > 10
