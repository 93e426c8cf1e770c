# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout that is given up: what becomes of each site and of its new key, by what the sites say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import rollout_abort
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import SiteResult
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout import Rollout
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_lines import DONE, FAILED, WAITING, SiteLine
from unit.plugin_utils.fleet_files import write_fleet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore, Seen

SITES = ("site-0001", "site-0002", "site-0003")


class Books:
    """Stands for the key store: each site's keys by epoch and state."""

    def __init__(self, states: dict[str, dict[int, str]]) -> None:
        self.states = states

    def index(self, *, sites: Sequence[str]) -> dict[str, dict[int, dict[str, Any]]]:
        return {site: {epoch: {"state": one} for epoch, one in self.states[site].items()} for site in sites}

    def mark(self, *, seen: Sequence[Seen]) -> int:
        for one in seen:
            self.states[one.site][one.epoch] = one.state
        return len(seen)


class Sites:
    """Stands for the sites: the epoch that each has confirmed, and who is on probation or cannot be asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, epochs: dict[str, int]) -> None:
        self.epochs = epochs
        self.away: set[str] = set()
        self.on_probation: set[str] = set()
        self.asked: list[tuple[str, list[str], str]] = []

        def run(*, verb: str, generation: str, **_others: Any) -> SimpleNamespace:
            def carry_out(*, sites: Sequence[str], on_progress: Any) -> dict[str, SiteResult]:
                assert on_progress is None
                if verb != "show":
                    self.asked.append((verb, list(sites), generation))
                if verb == "revert":
                    self.on_probation -= {*sites}
                return {site: self.answer(site) for site in sites}

            return SimpleNamespace(carry_out=carry_out)

        monkeypatch.setattr(rollout_abort, "SiteRun", run)

    def answer(self, site: str) -> SiteResult:
        if site in self.away:
            return SiteResult(site=site, ok=False, reason="unreachable", message="no route")
        pending = site in self.on_probation
        held = [{"generation": 1, "facts": {"epoch": self.epochs[site]}}, {"generation": 2, "facts": {"epoch": 2}}]
        receipt = {"current": 2 if pending else 1, "confirmed": 1, "pending": pending, "generations": held}
        return SiteResult(site=site, ok=True, receipt=receipt)


def begun(states: dict[str, str], *, what: str = "keys") -> Rollout:
    return Rollout(
        rollout="q4",
        fleet="test",
        what=what,
        reason="quarter 4",
        by="ann@noc",
        began=1.0,
        failed=0,
        unreachable=0,
        sites={site: SiteLine(group="north", wave="north", state=state) for site, state in states.items()},
    )


def give_up(tmp_path: Path, record: Rollout, books: Books) -> rollout_abort.Aborted:
    fleet = load_fleet(plan_file=write_fleet(tmp_path))
    return rollout_abort.abort(fleet=fleet, store=cast("KeyStore", books), record=record, by="ann@noc")


def test_an_abort_that_is_run_again_says_the_same_and_takes_up_who_was_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has run the new key, the second is on probation with it, the third cannot be asked."""
    sites = Sites(monkeypatch, {"site-0001": 2, "site-0002": 1, "site-0003": 1})
    sites.on_probation, sites.away = {"site-0002"}, {"site-0003"}
    books = Books(
        {
            "site-0001": {1: "confirmed", 2: "confirmed"},
            "site-0002": {1: "confirmed", 2: "active"},
            "site-0003": {1: "confirmed", 2: "staged"},
        }
    )
    record = begun({"site-0001": WAITING, "site-0002": WAITING, "site-0003": WAITING})
    first = give_up(tmp_path, record, books)
    assert (first.kept_new, first.went_back, first.keys_ended) == (["site-0001"], ["site-0002"], {"site-0002": 2})
    assert first.left == {"site-0003": "no route"}
    assert books.states["site-0003"] == {1: "confirmed", 2: "staged"}

    sites.away = set()
    second = give_up(tmp_path, record, books)
    assert (second.kept_new, second.went_back, second.left) == (["site-0001"], [], {})
    assert second.untouched == ["site-0002", "site-0003"]
    assert second.keys_ended == {"site-0003": 2}
    assert sites.asked[1:] == [("forget", ["site-0002"], "epoch 2"), ("forget", ["site-0003"], "epoch 2")]
    assert [one.why for one in record.halts] == ["aborted by ann@noc"]
    assert {site: line.state for site, line in record.sites.items()} == {
        "site-0001": DONE,
        "site-0002": "aborted",
        "site-0003": "aborted",
    }


def test_a_key_that_replaces_a_revoked_one_is_all_that_the_site_has_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Sites(monkeypatch, {"site-0001": 1})
    books = Books({"site-0001": {1: "revoked", 2: "revoked", 3: "issued"}})
    found = give_up(tmp_path, begun({"site-0001": WAITING}), books)
    assert (found.keys_ended, found.untouched) == ({}, ["site-0001"])
    assert books.states["site-0001"][3] == "issued"


@pytest.mark.parametrize(
    ("state", "reason", "keeps"), [(DONE, "", True), (FAILED, "soak", True), (FAILED, "gate", False)]
)
def test_who_has_confirmed_a_new_configuration_keeps_it_also_when_it_was_lost_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, reason: str, *, keeps: bool
) -> None:
    Sites(monkeypatch, {"site-0001": 1})
    record = begun({"site-0001": state}, what="configuration")
    record.sites["site-0001"].reason = reason
    found = give_up(tmp_path, record, Books({}))
    assert (found.kept_new == ["site-0001"]) is keeps
