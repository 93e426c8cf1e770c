# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tasks that let sites do something: for many at once, and for the host they run for. The engine is played."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.spokewright.fleet.plugins.action import site_generation
from ansible_collections.spokewright.fleet.plugins.plugin_utils import one_site, site_run
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import Progress, SiteResult
from unit.action.action_tools import act
from unit.plugin_utils.fleet_files import HEADER, site_line, write_fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

DIGEST = "338abfcf1052103fef1bfb577fee0ce4c8f6add4e761f8d91c640e3d0d3f63bc"
DEAD = "site-0002"


class Engine:
    """Serves every site but one, and remembers what it was asked for."""

    asked: Mapping[str, Any]

    def __init__(self, **asked: Any) -> None:
        type(self).asked = asked
        self.verb, self.dry_run = str(asked["verb"]), bool(asked["dry_run"])
        self.timeouts = SimpleNamespace(deadline=10.0)
        self.began: dict[str, float] = {}

    def carry_out(
        self,
        *,
        sites: Sequence[str],
        workers: int = 32,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> dict[str, SiteResult]:
        type(self).asked = {**self.asked, "sites": list(sites), "workers": workers}
        results = {site: self.one(site) for site in sites}
        if on_progress:
            for done, one in enumerate(results.values(), start=1):
                on_progress(Progress(done=done, failed=0, total=len(results), last=one))
        return results

    def one(self, site: str) -> SiteResult:
        self.began[site] = 1.0
        if site == DEAD:
            return SiteResult(site=site, ok=False, reason="unreachable", message=f"{site}: nothing answers.")
        message = "would send bundle" if self.dry_run else "staged as generation 2"
        receipt = {"verb": "stage", "generation": 2, "digest": DIGEST}
        return SiteResult(site=site, ok=True, changed=True, message=message, receipt=receipt)

    def differences(self, *, results: Mapping[str, SiteResult]) -> list[dict[str, str]]:
        return [{"before": "", "after": site} for site in results]


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> type[Engine]:
    monkeypatch.setattr(site_run, "SiteRun", Engine)
    monkeypatch.setattr(one_site, "seen_by", lambda **_receipt: [])
    return Engine


@pytest.fixture
def plan(tmp_path: Path) -> str:
    return str(write_fleet(tmp_path))


def host(name: str) -> dict[str, Any]:
    return {"inventory_hostname": name, "ansible_play_batch": ["site-0001", DEAD]}


def test_all_hosts_of_the_play_in_one_go_and_a_dead_one_is_no_failed_task(plan: str, engine: type[Engine]) -> None:
    said = act("site_generation", {"plan": plan, "verb": "stage"}, variables=host("site-0001"))

    assert engine.asked["sites"] == ["site-0001", DEAD]
    assert "failed" not in said
    assert (said["changed"], said["ok_sites"], said["failed_sites"]) == (True, ["site-0001"], [DEAD])
    assert said["msg"] == "stage: 2 sites, 1 changed, 0 as they should be, 1 failed"
    assert "report" not in said


def test_the_run_and_not_its_worker_process_owns_the_lock(plan: str, engine: type[Engine]) -> None:
    act("site_generation", {"plan": plan, "verb": "stage"}, variables=host("site-0001"))

    assert engine.asked["owner"] == os.getppid()


def test_the_options_reach_the_engine(plan: str, engine: type[Engine]) -> None:
    act(
        "site_generation",
        {"plan": plan, "verb": "forget", "generation": 1, "sites": ["site-0001"], "workers": 3, "deadman_seconds": 7},
    )

    asked = {name: engine.asked[name] for name in ("verb", "generation", "sites", "workers", "deadman_seconds")}
    assert asked == {"verb": "forget", "generation": "1", "sites": ["site-0001"], "workers": 3, "deadman_seconds": 7}


def test_a_host_that_is_no_site_is_named(plan: str) -> None:
    with pytest.raises(AnsibleActionFail, match=r"gw1: not in the registry of .*Run this task in a play for"):
        act("site_generation", {"plan": plan, "verb": "show", "sites": ["gw1"]})
    with pytest.raises(AnsibleActionFail, match=r"gw1: not in the registry of .*Run this task in a play for"):
        act("site_bundle", {"plan": plan, "verb": "show"}, variables=host("gw1"))


@pytest.mark.parametrize("option", ["workers", "deadman_seconds"])
@pytest.mark.parametrize("value", [0, -3])
def test_numbers_that_would_serve_nobody_are_refused(plan: str, engine: type[Engine], option: str, value: int) -> None:
    engine.asked = {}
    with pytest.raises(AnsibleActionFail, match=rf"^{option} is {value}\. It has to be 1 or more; leave it out for"):
        act("site_generation", {"plan": plan, "verb": "activate", option: value}, variables=host("site-0001"))
    if option == "deadman_seconds":
        with pytest.raises(AnsibleActionFail, match=rf"^{option} is {value}\."):
            act("site_bundle", {"plan": plan, "verb": "activate", option: value}, variables=host("site-0001"))

    assert engine.asked == {}


def test_a_site_that_left_the_registry_while_the_run_went_on_is_named(plan: str, tmp_path: Path) -> None:
    write_fleet(tmp_path, sites="\n".join([HEADER, site_line(1, group="canary")]) + "\n")

    with pytest.raises(AnsibleActionFail, match=r"site-0002: not in .*changed after this run began, run again\.$"):
        act("site_generation", {"plan": plan, "verb": "stage"}, variables=host("site-0001"))


def test_the_report_is_written_and_its_path_told(plan: str, tmp_path: Path) -> None:
    base = tmp_path / "reports" / "keys"

    said = act("site_generation", {"plan": plan, "verb": "stage", "report": str(base)}, variables=host("site-0001"))

    assert said["msg"].endswith(f"1 failed. Report: {said['report']}")
    latest = json.loads(base.with_name("keys-latest.json").read_text(encoding="utf-8"))
    assert (latest["fleet"], latest["verb"], latest["summary"]["failed"]) == ("test", "stage", 1)
    assert latest["sites"][DEAD]["message"] == "site-0002: nothing answers."
    assert f"{DEAD}: nothing answers." in base.with_name("keys-latest.txt").read_text(encoding="utf-8")


def test_check_mode_says_what_would_travel_where(plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(site_generation.display, "display", lambda line, **_how: shown.append(line))

    sites = ["site-0003", DEAD, "site-0001"]
    act("site_generation", {"plan": plan, "verb": "stage", "sites": sites}, check=True, variables=host("site-0001"))

    assert [line for line in shown if "WARNING" not in line] == [
        "  site-0001: would send bundle",
        "  site-0003: would send bundle",
        "  stage: 3 sites, 2 would change, 0 as they should be, 1 failed",
    ]


def test_check_mode_writes_no_report(plan: str, tmp_path: Path) -> None:
    args = {"plan": plan, "verb": "stage", "report": str(tmp_path / "reports" / "keys")}

    said = act("site_generation", args, check=True, diff=True, variables=host("site-0001"))

    assert said["msg"] == "stage: 2 sites, 1 would change, 0 as they should be, 1 failed"
    assert said["sites"]["site-0001"]["diff"] == [{"before": "", "after": "site-0001"}]
    assert "diff" not in said["sites"][DEAD]
    assert not (tmp_path / "reports").exists()


def test_a_report_that_cannot_be_written_costs_no_site_its_verdict(
    plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(site_generation.display, "warning", said.append)
    (tmp_path / "reports").write_text("in the way", encoding="utf-8")
    args = {"plan": plan, "verb": "stage", "report": str(tmp_path / "reports" / "keys")}

    answer = act("site_generation", args, variables=host("site-0001"))

    assert answer["ok_sites"] == ["site-0001"]
    assert any("could not be written" in line for line in said)


def test_one_site_on_its_own(plan: str, engine: type[Engine]) -> None:
    said = act("site_bundle", {"plan": plan, "verb": "stage"}, diff=True, variables=host("site-0003"))

    assert (said["failed"], said["changed"], said["msg"]) == (False, True, "staged as generation 2")
    assert (said["generation"], said["digest"]) == (2, DIGEST)
    assert said["diff"] == [{"before": "", "after": "site-0003"}]
    assert engine.asked["owner"] == os.getppid()
    assert engine.asked["deadman_seconds"] == 120


def test_a_site_that_cannot_be_served_is_a_failed_host_with_its_reason(plan: str) -> None:
    said = act("site_bundle", {"plan": plan, "verb": "stage"}, check=True, variables=host(DEAD))

    assert (said["failed"], said["changed"], said["reason"]) == (True, False, "unreachable")
    assert said["msg"] == "site-0002: nothing answers."
