# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A look at a whole key store finds whatever is wrong with it, all at once, and touches nothing."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_check import check_store
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_rekey import rekey
from unit.plugin_utils.stores import SITES, killed_at, reopened, store_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_a_whole_store(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    before = {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}
    seen: list[tuple[int, int]] = []

    found = check_store(store=store, on_progress=lambda *step: seen.append(step))

    assert (found.problems, found.sites, found.keys) == ([], 2, 3)
    assert found.crl_days_left is not None
    assert found.crl_days_left > 3000
    assert seen == [(1, 2), (2, 2)]
    assert {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()} == before


def swap_keys(store: KeyStore) -> None:
    one, two = (store.path / f"sites/{site}/1.vault" for site in SITES)
    first = one.read_text()
    one.write_text(two.read_text())
    two.write_text(first)


def bend_index(store: KeyStore) -> None:
    path = store.path / "index/site-0001.json"
    data = json.loads(path.read_text())
    data["epochs"]["1"]["certificate_serial"] = "abc"
    path.write_text(json.dumps(data))


def flip_ledger(store: KeyStore) -> None:
    path = store.path / "ledger.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace("20", "21", 1)
    path.write_text("".join(lines))


def shorten_crl(store: KeyStore) -> None:
    early = dt.datetime.now(tz=dt.UTC) - dt.timedelta(days=certificates.CRL_DAYS - 90, hours=-1)
    crl = certificates.make_crl(ca=store.reader.ca_identity(), revoked=(), now=early)
    (store.path / "crl.pem").write_text(crl)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda s: (s.path / "sites/site-0002/1.vault").unlink(), "site-0002/1.vault is missing, but the index knows"),
        (lambda s: (s.path / "sites/site-0002/1.vault").chmod(0o640), "1.vault has mode 0640: others could read"),
        (lambda s: (s.path / "sites/site-0002").chmod(0o755), "site-0002 has mode 0755"),
        (lambda s: (s.path / "index/site-0001.json").unlink(), "site-0001/1.vault has no entry in the index"),
        (lambda s: (s.path / "gateways/gw1.vault").write_text("x"), "gateways/gw1.vault: it is not in ansible-vault"),
        (lambda s: (s.path / "crl.pem").unlink(), "has no revocation list"),
        (lambda s: (s.path / "crl.pem").write_text("nothing"), "revocation list"),
        (swap_keys, "sites/site-0001/1.vault: "),
        (bend_index, "index/site-0001.json: epoch 1: another certificate_serial than the key itself"),
        (flip_ledger, "ledger.jsonl:3: "),
        (shorten_crl, "lives for 90 more days; then no site gets in. Run playbooks/site.yml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, harm: Callable[[KeyStore], object], said: str) -> None:
    store = store_in(tmp_path)
    harm(store)

    found = check_store(store=reopened(store))

    assert found.fatal == []
    assert [problem for problem in found.problems if said in problem], found.problems


def test_everything_wrong_is_named_at_once(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    shorten_crl(store)
    swap_keys(store)
    (store.path / "gateways/gw1.vault").chmod(0o666)

    assert len(check_store(store=reopened(store)).problems) == 4


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda s: s.key.path.unlink(), "keystore.key is missing. Without it no key in the store can be read"),
        (lambda s: s.key.path.chmod(0o644), "keystore.key has mode 0644: others could read it"),
        (lambda s: s.key.path.write_text("another\n"), "keystore.key does not open"),
        (lambda s: (s.path / "ca.key.vault").unlink(), "ca.key.vault is missing"),
        (lambda s: (s.path / "server-tls-crypt-v2.vault").write_text(""), "server-tls-crypt-v2.vault: it is not in"),
    ],
)
def test_a_store_of_no_use(tmp_path: Path, harm: Callable[[KeyStore], object], said: str) -> None:
    store = store_in(tmp_path)
    harm(store)

    found = check_store(store=reopened(store))

    assert len(found.fatal) == 1
    assert said in found.fatal[0]
    assert found.keys == 0


def test_no_store_at_all(tmp_path: Path) -> None:
    found = check_store(store=KeyStore(path=tmp_path / "none", key=tmp_path / "key"))

    assert found.problems == [f"there is no key store at {tmp_path / 'none'}."]


def test_a_store_between_two_keys_is_whole_and_says_so(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    assert killed_at(20, lambda: rekey(store=reopened(store)))

    found = check_store(store=reopened(store))

    assert found.keys == 3
    assert len(found.problems) == 1
    assert "is being given another key since" in found.problems[0]
    assert "until then both" in found.problems[0]


def test_one_damaged_index_hides_nothing_that_is_wrong_elsewhere(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    (store.path / "index/site-0001.json").write_text("{}")
    (store.path / "sites/site-0002/1.vault").unlink()
    found = check_store(store=store)
    assert found.fatal == []
    assert any("site-0001.json is no index of a site" in problem for problem in found.problems)
    assert any("site-0002/1.vault is missing" in problem for problem in found.problems)
    (store.path / "ledger.head").unlink()
    (store.path / "ledger.head").mkdir(mode=0o700)
    assert any("ledger.head" in problem for problem in check_store(store=store).problems)
