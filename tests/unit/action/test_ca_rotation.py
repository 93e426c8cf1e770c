# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps by which another CA takes the place of the fleet's, as tasks, and what hosts are given meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.spokewright.fleet.plugins.plugin_utils import bundle as bundles
from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.gateway_material import check_material
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import Seen
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore, open_store
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_check import check_store
from unit.action.action_tools import act
from unit.plugin_utils.fleet_files import write_fleet

SITES = ["site-0001", "site-0002", "site-0003", "site-0004"]
GATEWAY = "gw1"


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = str(write_fleet(tmp_path))
    act("site_psk", {"plan": path})
    confirm(path, SITES)
    return path


def store_of(plan: str) -> KeyStore:
    return open_store(load_fleet(plan_file=Path(plan)).plan)


def confirm(plan: str, sites: list[str]) -> None:
    """As a delivery enters it: the sites have confirmed the bundle that the key store makes today."""
    store, fleet = store_of(plan), load_fleet(plan_file=Path(plan))
    for site in (one for one in fleet.sites if one.id in sites):
        made = bundles.build(site=site, key=store.site_key(site=site.id))
        store.mark(seen=[Seen(site=site.id, epoch=made.epoch, state="confirmed", carries=made.carries)])


def step(plan: str, state: str, *, check: bool = False, diff: bool = False, **args: Any) -> dict[str, Any]:
    return act("ca_rotation", {"plan": plan, "state": state, **args}, check=check, diff=diff)


def trusted(plan: str) -> tuple[int, int, int]:
    """How many CAs a site trusts and a gateway trusts, and how many revocation lists a gateway is given."""
    store = store_of(plan)
    key = store.gateway_key(name=GATEWAY)
    check_material(key=key, store=store.path)
    return (
        len(certificates.split(text=store.site_key(site=SITES[0]).ca)),
        len(certificates.split(text=key.ca)),
        len(certificates.crl_split(text=key.crl)),
    )


def gateway_issuer(plan: str) -> str:
    store = store_of(plan)
    key = store.gateway_key(name=GATEWAY)
    (issuer,) = [ca for ca in certificates.split(text=key.ca) if certificates.is_of(ca=ca, certificate=key.certificate)]
    return certificates.fingerprint(certificate=issuer)


def whole(plan: str) -> None:
    assert check_store(store=store_of(plan)).problems == []


def test_from_one_ca_to_the_next_each_step_once(plan: str) -> None:
    old = gateway_issuer(plan)
    assert trusted(plan) == (1, 1, 1)
    asked = step(plan, "next", reason="lost", check=True, diff=True)
    assert (asked["changed"], asked["diff"]["after"]) == (True, f"serving {old}\nnext (to be made)\n")

    made = step(plan, "next", reason="lost", diff=True)
    new = made["diff"]["after"].split()[-1]
    assert (made["phase"], made["reason"]) == ("next", "lost")
    assert step(plan, "next", reason="lost")["changed"] is False
    # Gateways know nothing of it yet, so none of them restarts.
    assert trusted(plan) == (2, 1, 1)
    assert gateway_issuer(plan) == old
    whole(plan)

    confirm(plan, SITES)
    assert step(plan, "serving")["phase"] == "former"
    assert step(plan, "serving")["changed"] is False
    assert trusted(plan) == (2, 2, 2)
    assert gateway_issuer(plan) == new
    whole(plan)

    would = step(plan, "keys", reason="lost", check=True)
    assert (would["changed"], would["msg"]) == (True, f"would make 4 keys of the CA {new}")
    assert step(plan, "keys", reason="lost")["msg"] == f"made 4 keys of the CA {new}"
    assert step(plan, "keys", reason="lost")["changed"] is False
    confirm(plan, SITES)
    for site in SITES:
        store_of(plan).mark(seen=[Seen(site=site, epoch=1, state="retired")])

    ended = step(plan, "alone", reason="lost", diff=True)
    assert (ended["phase"], ended["diff"]["after"]) == ("one", f"serving {new}\n")
    assert trusted(plan) == (1, 1, 1)
    # What the former CA issued is gone; the books still know it.
    assert store_of(plan).epochs(site=SITES[0]) == [2]
    assert store_of(plan).index()[SITES[0]][1]["state"] == "destroyed"
    for state in ("next", "serving", "keys", "alone"):
        assert step(plan, state, reason="lost")["changed"] is False
    whole(plan)


def test_a_site_that_does_not_trust_the_next_ca_blocks_the_turn(plan: str) -> None:
    step(plan, "next", reason="lost")
    confirm(plan, SITES[:3])
    lacks = "it has not confirmed that it trusts the next CA"
    with pytest.raises(AnsibleActionFail, match=rf"1 site would be shut out, .* site-0004: {lacks}\. .*rotate_ca\.yml"):
        step(plan, "serving")
    assert step(plan, "looked")["not_ready"] == {"site-0004": lacks}
    assert step(plan, "serving", leave_behind=["site-0004"])["phase"] == "former"


def test_a_site_without_a_key_of_the_new_ca_blocks_the_end(plan: str) -> None:
    step(plan, "next", reason="lost")
    confirm(plan, SITES)
    step(plan, "serving")
    with pytest.raises(AnsibleActionFail, match="site-0001: its newest key, of epoch 1, is of the former CA"):
        step(plan, "alone")
    step(plan, "keys", reason="lost")
    confirm(plan, SITES[:3])
    with pytest.raises(
        AnsibleActionFail, match="site-0004: its key of epoch 2, of the new CA, is issued and not confirmed"
    ):
        step(plan, "alone")
    assert step(plan, "alone", leave_behind=["site-0004"])["phase"] == "one"
    assert store_of(plan).epochs(site="site-0004") == [2]
    whole(plan)


def test_the_next_ca_is_taken_back_before_it_issues(plan: str) -> None:
    old = gateway_issuer(plan)
    step(plan, "next", reason="lost")
    assert step(plan, "alone", reason="no")["phase"] == "one"
    assert (trusted(plan), gateway_issuer(plan)) == ((1, 1, 1), old)
    whole(plan)


def test_who_is_revoked_meanwhile_is_on_both_lists(plan: str) -> None:
    step(plan, "next", reason="lost")
    confirm(plan, SITES)
    step(plan, "serving")
    store = store_of(plan)
    serial = certificates.serial(certificate=store.site_key(site=SITES[0]).certificate)
    store.revoke(sites=SITES[:1], reason="stolen")
    lists = certificates.crl_split(text=store_of(plan).gateway_key(name=GATEWAY).crl)
    assert [serial in certificates.crl_serials(crl=one) for one in lists] == [True, True]


def test_a_crash_between_the_file_and_what_follows_from_it_is_mended_by_the_next_run(plan: str) -> None:
    old = gateway_issuer(plan)
    step(plan, "next", reason="lost")
    confirm(plan, SITES)
    store, fleet = store_of(plan), load_fleet(plan_file=Path(plan))
    found = store.authorities(fleet=fleet.plan.name, key_type="p256").read()
    store.storage.write("ca.pem", found.turned().to_text())
    # As they are, the gateways can still be served, with certificates of the former CA.
    assert (trusted(plan), gateway_issuer(plan)) == ((2, 2, 2), old)
    again = step(plan, "serving")
    assert (again["changed"], again["phase"]) == (True, "former")
    assert gateway_issuer(plan) == again["msg"].split()[2]
    whole(plan)


def test_no_answer_holds_a_key(plan: str) -> None:
    said = [step(plan, "next", reason="x", diff=True)]
    confirm(plan, SITES)
    said += [step(plan, "serving", diff=True), step(plan, "keys", reason="x", diff=True)]
    for identity in store_of(plan).reader.ca_identities():
        assert identity.private_key.splitlines()[1] not in json.dumps(said)
