# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every key a site ever had ends at once, in the books and on the revocation list; it comes back only with another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import Seen
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore, open_store
from unit.action.action_tools import act
from unit.plugin_utils.fleet_files import write_fleet

GONE, STAYS = "site-0004", "site-0003"


@pytest.fixture
def plan(tmp_path: Path) -> str:
    """site-0004 has two keys, the first one destroyed, and no line any more; site-0003 has one and a line."""
    path = write_fleet(tmp_path)
    act("site_psk", {"plan": str(path)})
    act("site_psk", {"plan": str(path), "sites": [GONE], "regenerate": True, "reason": "x"})
    store_of(str(path)).mark(seen=[Seen(site=GONE, epoch=2, state="confirmed")])
    act("site_psk", {"plan": str(path), "sites": [GONE], "state": "absent", "epoch": 1, "reason": "x"})
    set_line(path, there=False)
    return str(path)


def set_line(plan: Path, *, there: bool) -> None:
    registry = plan.parent / "sites.csv"
    lines = registry.read_text(encoding="utf-8").splitlines()
    kept = plan.parent / "kept"
    if there:
        lines.append(kept.read_text(encoding="utf-8"))
    else:
        (line,) = [line for line in lines if line.startswith(GONE)]
        kept.write_text(line, encoding="utf-8")
        lines.remove(line)
    registry.write_text("\n".join(lines) + "\n", encoding="utf-8")


def store_of(plan: str) -> KeyStore:
    return open_store(load_fleet(plan_file=Path(plan)).plan)


def revoke(plan: str, site: str, *, check: bool = False, **more: Any) -> dict[str, Any]:
    args = {"plan": plan, "sites": [site], "reason": "stolen", **more}
    return act("key_revocation", args, check=check, diff=True)


def states(plan: str, site: str) -> dict[int, str]:
    return {epoch: one["state"] for epoch, one in store_of(plan).index()[site].items()}


def on_the_list(plan: str) -> set[int]:
    return certificates.crl_serials(crl=(store_of(plan).path / "crl.pem").read_text(encoding="ascii"))


def test_every_key_ends_with_its_certificate_also_one_that_is_destroyed(plan: str) -> None:
    entries = store_of(plan).index()[GONE]
    would = revoke(plan, GONE, check=True)
    assert (would["changed"], would["revoked"]) == (True, {GONE: [1, 2]})
    assert would["msg"] == "site-0004: epoch 1, 2 would be revoked"
    assert on_the_list(plan) == set()

    done = revoke(plan, GONE)
    assert (done["changed"], done["revoked"], done["made"]) == (True, {GONE: [1, 2]}, {})
    assert states(plan, GONE) == {1: "revoked", 2: "revoked"}
    assert on_the_list(plan) == {int(one["certificate_serial"], 16) for one in entries.values()}
    assert set(done["denied_key_ids"]) == {one["kid"] for one in entries.values()}
    assert f"{entries[2]['kid']} {entries[2]['psk_fingerprint']}" in done["diff"]["before"]
    assert store_of(plan).verify() == []
    assert {line["reason"] for line in store_of(plan).ledger.entries() if line["event"] == "revoked"} == {"stolen"}

    again = revoke(plan, GONE)
    assert (again["changed"], again["msg"]) == (False, "every key of these sites is revoked already")


def test_nothing_that_is_seen_later_brings_a_revoked_key_back(plan: str) -> None:
    revoke(plan, GONE)
    store_of(plan).mark(seen=[Seen(site=GONE, epoch=2, state="confirmed", back=True)])
    assert states(plan, GONE) == {1: "revoked", 2: "revoked"}


def test_a_site_that_comes_back_gets_another_key(plan: str) -> None:
    revoke(plan, GONE)
    set_line(Path(plan), there=True)
    made = act("site_psk", {"plan": plan})
    assert made["made"] == {GONE: 3}
    assert states(plan, GONE) == {1: "revoked", 2: "revoked", 3: "issued"}
    assert act("site_psk", {"plan": plan})["changed"] is False


def test_a_site_that_stays_gets_its_new_key_in_the_same_step_and_only_once(plan: str) -> None:
    done = revoke(plan, STAYS, reissue=True)
    assert (done["revoked"], done["made"]) == ({STAYS: [1]}, {STAYS: 2})
    assert states(plan, STAYS) == {1: "revoked", 2: "issued"}
    for state in ("issued", "staged", "confirmed"):
        if state != "issued":
            store_of(plan).mark(seen=[Seen(site=STAYS, epoch=2, state=state)])
        again = revoke(plan, STAYS, reissue=True)
        assert (again["changed"], states(plan, STAYS)) == (False, {1: "revoked", 2: state})
        assert again["msg"].startswith("site-0003: its key of epoch 2 was made for this reason before, and is let in.")
    another = revoke(plan, STAYS, reissue=True, reason="leaked once more")
    assert (another["revoked"], another["made"]) == ({STAYS: [2]}, {STAYS: 3})


@pytest.mark.parametrize(
    ("site", "more", "text"),
    [
        (STAYS, {}, "site-0003 is in the registry, so the next run would make it a new key. Remove its line from"),
        (GONE, {"reissue": True}, "site-0004 is not in the registry, so it cannot have a new key."),
        ("site-0666", {}, "site-0666: no key was ever made for it. Check the id"),
        (GONE, {"reason": " "}, "a revocation wants a reason."),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_revoked(
    site: str, more: dict[str, Any], text: str, plan: str
) -> None:
    before = store_of(plan).index()
    with pytest.raises(AnsibleActionFail) as caught:
        revoke(plan, site, **more)
    assert str(caught.value).startswith("Nothing was revoked. ")
    assert text in str(caught.value)
    assert store_of(plan).index() == before
