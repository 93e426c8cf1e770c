# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two ends of a rotation as tasks: made once for a reason, retired only behind a confirmed key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import Seen
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore, open_store
from unit.action.action_tools import act
from unit.plugin_utils.fleet_files import write_fleet

SITES = ["site-0001", "site-0002", "site-0003", "site-0004"]
PAIR = SITES[:2]


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = str(write_fleet(tmp_path))
    act("site_psk", {"plan": path})
    see(path, 1, "confirmed", SITES)
    return path


def store_of(plan: str) -> KeyStore:
    return open_store(load_fleet(plan_file=Path(plan)).plan)


def see(plan: str, epoch: int, state: str, sites: list[str]) -> None:
    store_of(plan).mark(seen=[Seen(site=site, epoch=epoch, state=state) for site in sites])


def rotate(plan: str, *, check: bool = False, diff: bool = False, **args: Any) -> dict[str, Any]:
    return act("key_rotation", {"plan": plan, "sites": SITES, **args}, check=check, diff=diff)


def epochs(plan: str) -> dict[str, int]:
    return {site: max(found) for site, found in store_of(plan).index().items()}


def test_young_keys_are_not_due_and_a_reason_makes_them_so_once(plan: str) -> None:
    idle = rotate(plan)
    assert (idle["changed"], idle["to_do"], idle["not_due"]) == (False, [], SITES)

    asked = rotate(plan, check=True, diff=True, reason="lost", sites=PAIR)
    assert (asked["changed"], asked["due"]) == (True, PAIR)
    assert asked["diff"]["after"] == "site-0001 epoch 2 (to be made)\nsite-0002 epoch 2 (to be made)\n"
    fingerprint = store_of(plan).index()["site-0001"][1]["psk_fingerprint"]
    assert f"{fingerprint} confirmed\n" in asked["diff"]["before"]
    kid = store_of(plan).index()["site-0001"][1]["kid"]
    would = f"would make its key of epoch 2, bring it, then end epoch 1 ({kid} {fingerprint}): lost (epoch 1)"
    assert asked["sites"]["site-0001"]["message"] == would
    assert epochs(plan) == dict.fromkeys(SITES, 1)

    made = rotate(plan, reason="lost", sites=PAIR)
    assert (made["changed"], made["due"]) == (True, PAIR)
    assert epochs(plan) == {**dict.fromkeys(SITES, 1), **dict.fromkeys(PAIR, 2)}

    again = rotate(plan, reason="lost", sites=PAIR)
    assert (again["changed"], again["under_way"], again["to_do"]) == (False, PAIR, PAIR)
    new = store_of(plan).index()["site-0001"][2]
    goes_on = rotate(plan, reason="lost", sites=PAIR, check=True)["sites"]["site-0001"]["message"]
    assert goes_on == (
        f"would bring epoch 2 ({new['kid']} {new['psk_fingerprint']}), then end epoch 1 ({kid} {fingerprint}): "
        "its key of epoch 2 is issued"
    )
    see(plan, 2, "confirmed", PAIR)
    ends = rotate(plan, reason="lost", sites=PAIR, check=True)["sites"]["site-0001"]["message"]
    assert ends == f"would end epoch 1 ({kid} {fingerprint}): its key of epoch 1 is not retired yet"
    rotate(plan, state="retired", sites=PAIR)
    done = rotate(plan, reason="lost", sites=PAIR)
    assert (done["changed"], done["not_due"]) == (False, PAIR)


def test_a_key_is_retired_only_behind_a_confirmed_one(plan: str) -> None:
    rotate(plan, reason="lost", sites=PAIR)
    see(plan, 2, "active", PAIR)
    assert rotate(plan, state="retired")["retired"] == {}

    see(plan, 2, "confirmed", PAIR[:1])
    would = rotate(plan, state="retired", check=True)
    old = store_of(plan).index()["site-0001"][1]["kid"]
    assert (would["retired"], would["denied_key_ids"]) == ({"site-0001": [1]}, [old])
    assert store_of(plan).index()["site-0001"][1]["state"] == "confirmed"

    did = rotate(plan, state="retired")
    assert (did["changed"], did["retired"], did["denied_key_ids"]) == (True, {"site-0001": [1]}, [old])
    assert act("site_psk_info", {"plan": plan, "sites": []})["denied_key_ids"] == [old]
    after = rotate(plan, state="retired")
    assert (after["changed"], after["denied_key_ids"]) == (False, [old])
    assert store_of(plan).verify() == []


def test_a_site_that_is_not_named_keeps_its_old_key(plan: str) -> None:
    rotate(plan, reason="lost")
    see(plan, 2, "confirmed", SITES)
    assert rotate(plan, state="retired", sites=PAIR)["retired"] == {site: [1] for site in PAIR}


def test_no_answer_holds_a_key(plan: str) -> None:
    said = json.dumps([rotate(plan, reason="x", diff=True), rotate(plan, state="retired", diff=True)])
    store = store_of(plan)
    for site in SITES:
        secret = store.site_key(site=site).psk.reveal()
        assert not [line for line in secret.splitlines() if len(line) > 40 and line in said]


def test_an_age_that_makes_no_sense_is_refused(plan: str) -> None:
    with pytest.raises(AnsibleActionFail, match="days: 0: a key becomes at least 1 day old"):
        rotate(plan, days=0)
