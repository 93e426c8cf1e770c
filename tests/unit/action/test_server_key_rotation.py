# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a server key's rotation as tasks: each once, the switch only when every site is ready, none by heart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.spokewright.fleet.plugins.plugin_utils import bundle as bundles
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import Seen
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_storage import SERVER_KEY
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore, open_store
from ansible_collections.spokewright.fleet.plugins.plugin_utils.server_keys import fingerprint
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tls_crypt_v2 import ServerKey
from unit.action.action_tools import act
from unit.plugin_utils.fleet_files import write_fleet

SITES = ["site-0001", "site-0002", "site-0003", "site-0004"]


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
    return act("server_key_rotation", {"plan": plan, "state": state, **args}, check=check, diff=diff)


def serving(plan: str) -> str:
    return fingerprint(store_of(plan).server_keys.read().serving)


def events(plan: str) -> list[tuple[str, str]]:
    """What the ledger says of server keys: event and reason."""
    lines = store_of(plan).ledger.entries()
    return [(one["event"], one["reason"]) for one in lines if one["event"].startswith("server-key")]


def test_from_one_key_to_the_next_each_step_once(plan: str) -> None:
    old = serving(plan)
    asked = step(plan, "next", reason="stolen", check=True, diff=True)
    assert (asked["changed"], asked["phase"]) == (True, "one")
    assert asked["diff"] == {
        "before_header": "server keys",
        "after_header": "server keys",
        "before": f"serving {old}\n",
        "after": f"serving {old}\nnext (to be made)\n",
    }
    assert step(plan, "next")["changed"] is False

    made = step(plan, "next", reason="stolen", diff=True)
    assert (made["changed"], made["phase"], made["reason"]) == (True, "next", "stolen")
    new = made["diff"]["after"].split()[-1]
    for reason in ("stolen", ""):
        again = step(plan, "next", reason=reason)
        assert (again["changed"], again["phase"], again["reason"]) == (False, "next", "stolen")
    assert serving(plan) == old

    confirm(plan, SITES)
    would = step(plan, "serving", check=True, diff=True)
    assert (would["changed"], would["diff"]["after"]) == (True, f"serving {new}\nformer {old}\n")
    assert step(plan, "serving")["phase"] == "former"
    assert step(plan, "serving")["changed"] is False
    assert serving(plan) == new

    ended = step(plan, "alone", reason="stolen", diff=True)
    assert (ended["changed"], ended["phase"]) == (True, "one")
    assert ended["diff"]["after"] == f"serving {new}\n"
    for state in ("alone", "next", "serving", "undone"):
        assert step(plan, state, reason="stolen")["changed"] is False
    assert events(plan)[1:] == [
        ("server-key-made", "stolen"),
        ("server-key-serves", "stolen"),
        ("server-key-retired", "stolen"),
    ]
    assert store_of(plan).verify() == []


def test_a_site_that_is_not_ready_blocks_the_switch_unless_it_is_left_behind(plan: str) -> None:
    step(plan, "next", reason="stolen")
    confirm(plan, SITES[:2])
    looked = step(plan, "looked")
    lacks = "it has not confirmed its PSK for the next server key"
    assert looked["not_ready"] == dict.fromkeys(SITES[2:], lacks)
    with pytest.raises(
        AnsibleActionFail,
        match=rf"2 sites would be shut out, so no gateway is changed\. site-0003: {lacks}; site-0004: .*"
        r"-e leave_behind=site-0003,site-0004\.",
    ):
        step(plan, "serving")
    with pytest.raises(AnsibleActionFail, match="leave_behind: site-0099: not in the registry"):
        step(plan, "serving", leave_behind=["site-0099"])
    assert step(plan, "serving", leave_behind=SITES[2:])["phase"] == "former"


def test_a_newer_key_that_is_not_confirmed_blocks_it_too(plan: str) -> None:
    step(plan, "next", reason="stolen")
    confirm(plan, SITES)
    act("site_psk", {"plan": plan, "sites": ["site-0001"], "regenerate": True, "reason": "lost"})
    assert step(plan, "looked")["not_ready"] == {"site-0001": "its newest key, of epoch 2, is issued and not confirmed"}
    confirm(plan, ["site-0001"])
    assert step(plan, "looked")["not_ready"] == {}


def test_it_is_taken_back_from_wherever_it_is(plan: str) -> None:
    old = serving(plan)
    step(plan, "next", reason="stolen")
    confirm(plan, SITES)
    step(plan, "serving")
    assert step(plan, "undone")["phase"] == "next"
    assert serving(plan) == old
    assert step(plan, "undone")["changed"] is False
    # What the sites have confirmed holds either way.
    assert step(plan, "looked")["not_ready"] == {}
    assert step(plan, "alone", reason="no")["phase"] == "one"
    assert serving(plan) == old
    assert store_of(plan).verify() == []
    anew = step(plan, "next", reason="stolen")
    assert (anew["changed"], anew["phase"]) == (True, "next")
    assert set(step(plan, "looked")["not_ready"]) == set(SITES)


def test_another_reason_waits_until_the_rotation_under_way_has_ended(plan: str) -> None:
    step(plan, "next", reason="stolen")
    with pytest.raises(
        AnsibleActionFail,
        match=r"another server key is on its way, for 'stolen'\. Finish that first: .*-e reason='stolen'",
    ):
        step(plan, "next", reason="another")


def test_a_key_that_a_killed_run_left_without_a_line_is_the_one_that_was_asked_for(plan: str) -> None:
    store = store_of(plan)
    store.storage.seal(SERVER_KEY, store.server_keys.read().with_next(ServerKey.generate()).to_text())
    found = step(plan, "next", reason="stolen")
    assert (found["changed"], found["phase"], found["reason"]) == (True, "next", "stolen")
    assert events(plan)[1:] == [("server-key-made", "stolen")]
    confirm(plan, SITES)
    assert step(plan, "looked")["not_ready"] == {}


def test_there_is_nothing_to_rotate_before_the_first_run(tmp_path: Path) -> None:
    path = str(write_fleet(tmp_path))
    with pytest.raises(AnsibleActionFail, match=r"has no server key yet\. Run playbooks/site\.yml first"):
        step(path, "next", reason="x")


def test_no_answer_holds_a_key(plan: str) -> None:
    said = [step(plan, "next", reason="x", diff=True)]
    confirm(plan, SITES)
    said += [step(plan, "serving", diff=True), step(plan, "looked", diff=True)]
    servers = store_of(plan).server_keys.read()
    assert servers.other is not None
    for key in (servers.serving, servers.other):
        assert key.to_pem().splitlines()[1] not in json.dumps(said)
