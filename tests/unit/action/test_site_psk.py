# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys made, made anew, destroyed and looked at by tasks."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.spokewright.fleet.plugins.action import site_psk
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import Seen
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore, open_store
from unit.action.action_tools import act
from unit.plugin_utils.fleet_files import HEADER, site_line, write_fleet

if TYPE_CHECKING:
    from pathlib import Path

SITES = ["site-0001", "site-0002", "site-0003", "site-0004"]


@pytest.fixture
def plan(tmp_path: Path) -> str:
    return str(write_fleet(tmp_path))


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(site_psk.display, "warning", said.append)
    return said


def store_of(plan: str) -> KeyStore:
    from pathlib import Path  # noqa: PLC0415

    return open_store(load_fleet(plan_file=Path(plan)).plan)


def secrets_of(plan: str) -> set[str]:
    """Every line of every private key in the store."""
    store = store_of(plan)
    lines: set[str] = set()
    for site, epochs in store.index().items():
        for epoch in epochs:
            key = store.site_key(site=site, epoch=epoch)
            lines |= {line for part in (key.psk, key.private_key) for line in part.reveal().splitlines()}
    return {line for line in lines if len(line) > 40 and not line.startswith("-----")}


def test_the_first_run_makes_everything_and_says_loudly_what_to_back_up(plan: str, warned: list[str]) -> None:
    made = act("site_psk", {"plan": plan}, diff=True)

    assert made["changed"] is True
    assert made["made"] == dict.fromkeys(SITES, 1)
    assert (made["ca"], made["server_key"], made["crl"], made["gateways"]) == (True, True, True, ["gw1", "gw2"])
    assert {one["epoch"] for one in made["sites"].values()} == {1}
    assert {one["state"] for one in made["sites"].values()} == {"issued"}
    assert all(re.fullmatch("SHA256:[0-9a-f]{32,}", one["psk_fingerprint"]) for one in made["sites"].values())
    assert "4 keys of sites made; fleet CA, server key, revocation list, certificate of gw1" in made["msg"]
    assert "ca\ncrl\nserver key\ncertificate of gw1\ncertificate of gw2\nsite-0001 epoch 1\n" in made["diff"]["after"]
    (warning,) = warned
    assert warning.startswith(f"{made['made_store_key']} was made: it alone opens the key store")
    assert "Back it up NOW" in warning


def test_no_answer_holds_a_key(plan: str) -> None:
    said = [
        act("site_psk", {"plan": plan}, diff=True),
        act("site_psk", {"plan": plan, "sites": ["site-0003"], "regenerate": True, "reason": "x"}, diff=True),
        act("site_psk_info", {"plan": plan, "verify": True}),
    ]

    secret = secrets_of(plan)
    assert len(secret) > 50
    assert [line for line in secret if line in json.dumps(said)] == []
    assert "PRIVATE KEY" not in json.dumps(said)


def test_a_second_run_makes_nothing_and_does_not_warn_again(plan: str, warned: list[str]) -> None:
    act("site_psk", {"plan": plan})
    warned.clear()

    for check in (False, True):
        again = act("site_psk", {"plan": plan}, check=check, diff=True)
        assert (again["changed"], again["made"], again["made_store_key"], warned) == (False, {}, "", [])
        assert again["msg"].endswith("holds what is wanted of 4 sites")
        assert "diff" not in again


def test_check_mode_says_what_would_be_made_and_makes_nothing(plan: str, tmp_path: Path, warned: list[str]) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())

    said = act("site_psk", {"plan": plan}, check=True, diff=True)

    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (said["changed"], said["made"], said["ca"], warned) == (True, dict.fromkeys(SITES, 1), True, [])
    assert said["sites"]["site-0001"] == {
        "ok": True,
        "changed": True,
        "message": "would make its key of epoch 1",
        "epoch": 1,
    }
    assert "would have 4 keys of sites made" in said["msg"]
    assert act("site_psk", {"plan": plan})["made"] == said["made"]


def test_only_the_named_sites_get_keys(plan: str) -> None:
    made = act("site_psk", {"plan": plan, "sites": ["site-0003"]})

    assert list(made["sites"]) == ["site-0003"]
    assert list(store_of(plan).index()) == ["site-0003"]
    assert act("site_psk_info", {"plan": plan})["without_key"] == ["site-0001", "site-0002", "site-0004"]


def new_key(plan: str, **more: Any) -> dict[str, Any]:
    return {"plan": plan, "sites": ["site-0003"], "regenerate": True, "reason": "lost laptop", **more}


def test_a_new_key_is_made_beside_the_old_one_and_check_mode_knows_its_epoch(plan: str) -> None:
    act("site_psk", {"plan": plan})

    said = act("site_psk", new_key(plan), check=True, diff=True)
    assert (said["changed"], said["made"]) == (True, {"site-0003": 2})
    assert (said["diff"]["before"], said["diff"]["after"]) == (
        "site-0003 epoch 1\n",
        "site-0003 epoch 1\nsite-0003 epoch 2\n",
    )
    assert store_of(plan).epochs(site="site-0003") == [1]

    made = act("site_psk", new_key(plan), diff=True)
    assert made["made"] == said["made"]
    assert made["diff"] == said["diff"]
    assert made["sites"]["site-0003"]["epoch"] == 2
    assert store_of(plan).epochs(site="site-0003") == [1, 2]
    assert store_of(plan).epochs(site="site-0002") == [1]


def test_without_an_epoch_every_run_makes_another_key_with_one_it_does_not(plan: str) -> None:
    act("site_psk", {"plan": plan})

    assert act("site_psk", new_key(plan, epoch=2))["made"] == {"site-0003": 2}
    again = act("site_psk", new_key(plan, epoch=2))
    assert (again["changed"], again["made"]) == (False, {})
    assert act("site_psk", new_key(plan))["made"] == {"site-0003": 3}


def test_a_site_without_a_key_gets_its_first_one_by_regenerate(plan: str) -> None:
    assert act("site_psk", new_key(plan))["made"] == {"site-0003": 1}
    assert store_of(plan).epochs(site="site-0003") == [1]


def test_the_reason_is_in_the_ledger(plan: str) -> None:
    act("site_psk", {"plan": plan})
    act("site_psk", new_key(plan))

    assert [line["site"] for line in store_of(plan).ledger.entries() if line["reason"] == "lost laptop"] == [
        "site-0003"
    ]


def test_an_old_key_is_destroyed_once_and_only_when_a_newer_one_is_confirmed(plan: str) -> None:
    act("site_psk", {"plan": plan})
    act("site_psk", new_key(plan))
    store = store_of(plan)
    with store.operation("test", owner=os.getppid()):
        store.mark(
            seen=[Seen(site="site-0003", epoch=1, state="confirmed"), Seen(site="site-0003", epoch=2, state="staged")]
        )
    absent = {"plan": plan, "sites": ["site-0003"], "state": "absent", "epoch": 1, "reason": "replaced"}

    for check in (True, False):
        with pytest.raises(AnsibleActionFail, match="site-0003"):
            act("site_psk", absent, check=check)
    with store.operation("test", owner=os.getppid()):
        store.mark(seen=[Seen(site="site-0003", epoch=2, state="confirmed")])
    said = act("site_psk", absent, check=True, diff=True)
    assert (said["changed"], said["destroyed"]) == (True, {"site-0003": 1})
    assert store.epochs(site="site-0003") == [1, 2]
    done = act("site_psk", absent, diff=True)
    assert (done["changed"], done["destroyed"]) == (True, {"site-0003": 1})
    assert (done["diff"]["before"], done["diff"]["after"]) == (
        "site-0003 epoch 1\nsite-0003 epoch 2\n",
        "site-0003 epoch 2\n",
    )
    assert store.epochs(site="site-0003") == [2]
    assert act("site_psk", absent)["changed"] is False


def test_of_several_sites_none_loses_its_key_when_one_of_them_must_keep_it(plan: str) -> None:
    act("site_psk", {"plan": plan})
    sites = ["site-0002", "site-0003"]
    act("site_psk", new_key(plan, sites=["site-0002"]))
    store = store_of(plan)
    with store.operation("test", owner=os.getppid()):
        store.mark(seen=[Seen(site="site-0002", epoch=2, state="confirmed")])

    with pytest.raises(AnsibleActionFail, match="site-0003"):
        act("site_psk", {"plan": plan, "sites": sites, "state": "absent", "epoch": 1, "reason": "x"})

    assert store.epochs(site="site-0002") == [1, 2]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"epoch": 0}, r"^epoch is 0\. Epochs are counted from 1\.$"),
        ({"state": "absent", "regenerate": True}, r"^state=absent destroys a key and regenerate=true makes one\."),
        ({"state": "absent", "sites": ["site-0001"], "reason": "x"}, r"for good, so it wants epoch\.$"),
        ({"state": "absent", "epoch": 1, "reason": "x"}, r"^state=absent wants sites, each by its id"),
        ({"state": "absent", "epoch": 1, "sites": ["site-0001"]}, r"^state=absent wants a reason\."),
        ({"regenerate": True, "reason": "x"}, r"^regenerate=true wants sites, each by its id: a whole fleet is never"),
        ({"regenerate": True, "reason": "x", "sites": []}, r"^regenerate=true wants sites"),
        ({"regenerate": True, "sites": ["site-0001"], "reason": " "}, r"^regenerate=true wants a reason\. It is kept"),
        (
            {"sites": ["site-0001", "site-9"]},
            r"^site-9: not in the registry of .*Check the ids against .*sites\.csv\.$",
        ),
        (
            {"epoch": 2},
            r"^epoch 2 was asked for: site-0001 is at epoch 1, .*Nothing was made\. A newer key is made with",
        ),
        (
            {"epoch": 3, "regenerate": True, "reason": "x", "sites": ["site-0001"]},
            r"site-0001 is at epoch 1\. Nothing was made\. regenerate=true makes epoch 3 only where 2 is the newest\.$",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(
    plan: str, tmp_path: Path, args: dict[str, Any], message: str
) -> None:
    for check in (True, False):
        with pytest.raises(AnsibleActionFail, match=message):
            act("site_psk", {"plan": plan, **args}, check=check)

    assert not list((tmp_path / "keystore").glob("sites/*"))


def test_a_second_operator_is_told_who_is_at_work(plan: str) -> None:
    with store_of(plan).operation("rotate everything"), pytest.raises(AnsibleActionFail) as refused:
        act("site_psk", new_key(plan))

    assert "rotate everything" in str(refused.value)
    assert "since" in str(refused.value)


def open_to_all(folder: Path) -> str:
    (folder / "keystore.key").chmod(0o644)
    return r"keystore\.key has mode 0644: others could read it\. Run: chmod 0600"


def foreign_key(folder: Path) -> str:
    (folder / "keystore.key").write_text("x" * 64 + "\n", encoding="ascii")
    return r"keystore\.key"


def lost_key(folder: Path) -> str:
    (folder / "keystore/sites/site-0004/1.vault").unlink()
    return "site-0004"


def lost_ca(folder: Path) -> str:
    (folder / "keystore/ca.key.vault").unlink()
    (folder / "keystore/ca.pem").unlink()
    return r"ca\."


@pytest.mark.parametrize("harm", [open_to_all, foreign_key, lost_key, lost_ca], ids=lambda one: one.__name__)
def test_what_is_wrong_with_the_store_is_said_and_not_that_it_is_in_use_by_this_run(
    plan: str, tmp_path: Path, harm: Any
) -> None:
    act("site_psk", {"plan": plan})
    words = harm(tmp_path)

    for check in (True, False):
        with pytest.raises(AnsibleActionFail, match=words) as refused:
            act("site_psk", {"plan": plan}, check=check)
        assert "in use" not in str(refused.value)


def test_info_tells_the_newest_key_and_all_epochs(plan: str) -> None:
    act("site_psk", {"plan": plan})
    act("site_psk", new_key(plan))

    said = act("site_psk_info", {"plan": plan})

    assert (said["changed"], said["msg"]) == (False, f"4 of 4 sites have a key in {said['key_store']}")
    assert said["sites"]["site-0003"]["epoch"] == 2
    assert list(said["sites"]["site-0003"]["epochs"]) == ["1", "2"]
    assert said["sites"]["site-0003"]["epochs"]["1"]["kid"] != said["sites"]["site-0003"]["kid"]
    assert (said["verified"], said["problems"]) == (0, [])


def test_info_before_the_first_key(plan: str, tmp_path: Path) -> None:
    said = act("site_psk_info", {"plan": plan, "sites": ["site-0001"]})

    assert (said["sites"], said["without_key"]) == ({"site-0001": {"epochs": {}}}, ["site-0001"])
    assert not (tmp_path / "keystore").exists()


def test_info_knows_sites_that_left_the_registry(plan: str, tmp_path: Path) -> None:
    act("site_psk", {"plan": plan})
    write_fleet(tmp_path, sites="\n".join([HEADER, site_line(1, group="canary")]) + "\n")

    assert list(act("site_psk_info", {"plan": plan})["sites"]) == ["site-0001"]
    assert act("site_psk_info", {"plan": plan, "sites": ["site-0003"]})["sites"]["site-0003"]["epoch"] == 1


def test_info_with_verify_opens_everything(plan: str) -> None:
    act("site_psk", {"plan": plan})

    said = act("site_psk_info", {"plan": plan, "verify": True})

    assert (said["failed"], said["verified"], said["problems"]) == (False, 4, [])
    assert "4 keys opened and whole, 0 problems" in said["msg"]


def swap_keys(store: Path) -> str:
    one, other = store / "sites/site-0002/1.vault", store / "sites/site-0003/1.vault"
    one.write_bytes(other.read_bytes())
    return "site-0002"


def flip_ledger(store: Path) -> str:
    text = (store / "ledger.jsonl").read_text(encoding="utf-8")
    (store / "ledger.jsonl").write_text(text.replace("site-0002", "site-0009", 1), encoding="utf-8")
    return "ledger.jsonl:"


def lose_key(store: Path) -> str:
    (store / "sites/site-0004/1.vault").unlink()
    return "site-0004"


def change_index(store: Path) -> str:
    path = store / "index/site-0001.json"
    entry = json.loads(path.read_text(encoding="utf-8"))
    entry["epochs"]["1"]["kid"] = "0" * 16
    path.write_text(json.dumps(entry), encoding="utf-8")
    return "index/site-0001.json: epoch 1: another kid than the key itself"


@pytest.mark.parametrize("harm", [swap_keys, flip_ledger, lose_key, change_index], ids=lambda one: one.__name__)
def test_info_with_verify_fails_and_names_what_is_wrong(plan: str, tmp_path: Path, harm: Any) -> None:
    act("site_psk", {"plan": plan})
    words = harm(tmp_path / "keystore")

    said = act("site_psk_info", {"plan": plan, "verify": True})

    assert said["failed"] is True
    assert any(words in problem for problem in said["problems"]), said["problems"]
    assert words in said["msg"]
