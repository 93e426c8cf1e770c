# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A generation on probation: its timer, its guard, and a kill or a power cut at every step."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import bundle as bundles
from ansible_collections.spokewright.fleet.plugins.plugin_utils import delivery

if TYPE_CHECKING:
    from pathlib import Path
from unit.roles.site_agent_support import (
    ONE,
    THREE,
    TWO,
    UNIT,
    Site,
    cut_power,
    fire,
    generations,
    killed_at,
    make,
    settle,
    time_is_up,
)


def test_a_generation_whose_guard_is_no_unit_is_whole_as_well(site: Site) -> None:
    """One that an earlier release staged has it in unit.conf."""
    plain = make("plain\n", leave_out=(bundles.GUARD,))
    settle(site, plain)
    assert site.run("show")["links"] is True
    settle(site, ONE)
    assert site.run("show")["links"] is True
    site.run("revert")
    assert delivery.settled(shown=site.run("show"), digest=plain.digest)


def test_a_timer_is_armed_before_the_client_restarts_and_disarmed_by_confirm(site: Site) -> None:
    site.stage(ONE)
    site.run("activate", "1", "77")
    calls = site.calls()
    armed = next(at for at, call in enumerate(calls) if call.startswith("systemd-run") and "--on-active=77" in call)
    assert armed < next(at for at, call in enumerate(calls) if call.startswith("restart"))
    assert "generations/1/agent.sh deadman 1" in calls[armed]
    site.forget_calls()
    site.run("confirm", "1")
    assert "stop spokewright-deadman.timer" in site.calls()


def test_the_dead_man_goes_back_to_what_was_confirmed(site: Site) -> None:
    settle(site, ONE)
    site.stage(TWO)
    site.run("activate", "2", "60")
    site.forget_calls()
    fire(site, "2")
    shown = site.run("show")
    assert (shown["current"], shown["confirmed"], shown["pending"], shown["reverted"]) == (1, 1, 0, 2)
    assert f"restart {UNIT}" in site.calls()
    refused = site.run("confirm", "2")
    assert refused["reason"] == "not-current"
    assert refused["message"] == "generation 1 is current, not 2: the site went back by itself"


def test_the_dead_man_leaves_a_first_generation_running(site: Site) -> None:
    site.stage(ONE)
    site.run("activate", "1", "60")
    fire(site, "1")
    shown = site.run("show")
    assert (shown["current"], shown["pending"], shown["service"]) == (1, 0, "active")
    assert site.run("activate", "1", "60")["ok"]
    assert site.run("confirm", "1")["changed"] is True


def test_a_dead_man_that_fires_after_confirm_does_nothing(site: Site) -> None:
    settle(site, ONE)
    settle(site, TWO)
    site.forget_calls()
    fire(site, "2")
    assert site.run("show")["current"] == 2
    assert not [call for call in site.calls() if call.startswith("restart")]


def test_after_a_power_cut_on_probation_the_unit_guard_goes_back(site: Site) -> None:
    settle(site, ONE)
    site.stage(TWO)
    site.run("activate", "2", "60")
    site.start("guard")
    assert site.run("show")["current"] == 2
    (site.base / "state/pending").write_text("2 another-boot started\n")
    site.start("guard")
    shown = site.run("show")
    assert (shown["current"], shown["pending"], shown["reverted"]) == (1, 0, 2)


def test_a_client_that_does_not_start_is_left_at_once(site: Site) -> None:
    settle(site, ONE)
    site.stage(make("broken\n"))
    failed = site.run("activate", "2", "60")
    assert failed["reason"] == "service-failed"
    assert "did not start on generation 2; went back to 1" in failed["message"]
    shown = site.run("show")
    assert (shown["current"], shown["pending"], shown["service"]) == (1, 0, "active")


def test_a_client_that_cannot_be_enabled_is_left_at_once(site: Site) -> None:
    settle(site, ONE)
    (site.home / "enabled").unlink()
    (site.home / "cannot-enable").touch()
    site.stage(TWO)
    failed = site.run("activate", "2", "60")
    assert failed["reason"] == "service-failed"
    assert "the client cannot be enabled on generation 2; went back to 1" in failed["message"]
    shown = site.run("show")
    assert (shown["current"], shown["pending"], shown["enabled"]) == (1, 0, False)


@pytest.mark.parametrize(
    "gone",
    ["enabled", "root/etc/openvpn/client/spokewright.conf", f"root/etc/systemd/system/{UNIT}.d/spokewright.conf"],
)
def test_a_site_that_would_not_come_up_at_its_next_boot_is_seen_and_mended(site: Site, gone: str) -> None:
    settle(site, ONE)
    shown = site.run("show")
    assert (shown["enabled"], shown["links"]) == (True, True)
    assert delivery.settled(shown=shown, digest=ONE.digest)
    (site.home / gone).unlink()
    shown = site.run("show")
    assert (shown["enabled"], shown["links"]) == (gone != "enabled", gone == "enabled")
    assert not delivery.settled(shown=shown, digest=ONE.digest)
    assert site.run("activate", "1", "60")["changed"] is True
    assert delivery.settled(shown=site.run("show"), digest=ONE.digest)


def test_a_site_that_cannot_go_back_now_does_so_later(site: Site) -> None:
    settle(site, ONE)
    site.stage(TWO)
    site.run("activate", "2", "60")
    # A file system that has become read-only lets no link be made.
    site.tool("ln", "#!/bin/sh\nexit 1\n")
    fire(site, "2")
    shown = site.run("show")
    assert (shown["current"], shown["pending"]) == (2, 2)
    refused = site.run("revert", "2")
    assert (refused["reason"], site.run("show")["pending"]) == ("unwritable", 2)
    (site.bin / "ln").unlink()
    cut_power(site)
    shown = site.run("show")
    assert (shown["current"], shown["pending"], shown["reverted"]) == (1, 0, 2)


@pytest.mark.parametrize("verb", ["deadman", "guard", "revert", "activate"])
def test_a_power_cut_at_any_step_of_going_back_ends_on_the_confirmed_generation(tmp_path: Path, verb: str) -> None:
    calm = Site(tmp_path / "calm", "dash")
    settle(calm, ONE)
    calm.stage(make("broken\n") if verb == "activate" else TWO)
    if verb != "activate":
        calm.run("activate", "2", "60")
    if verb == "deadman":
        time_is_up(calm)
    if verb == "guard":
        (calm.base / "state/pending").write_text("2 another-boot started\n")
    if verb == "revert":
        calm.run("confirm", "2")
    words = {"activate": ("activate", "2", "60"), "guard": ("guard",)}.get(verb, (verb, "2"))
    for step in range(1, 80):
        site, killed = killed_at(calm, tmp_path / f"step-{step}", step, *words)
        confirmed = (site.base / "state/confirmed").read_text()
        cut_power(site)
        shown = site.run("show")
        assert (shown["current"], shown["pending"]) == (int(confirmed), 0), (step, shown)
        if not killed:
            assert (shown["current"], step > 5) == (1, True)
            return
    pytest.fail("the verb never ended by itself")


def test_a_power_cut_at_any_step_of_the_first_activation_with_a_guard_unit_finds_a_guard(tmp_path: Path) -> None:
    calm = Site(tmp_path / "calm", "dash")
    settle(calm, make("before\n", leave_out=(bundles.GUARD,)))
    calm.stage(TWO)
    for step in range(1, 80):
        site, killed = killed_at(calm, tmp_path / f"step-{step}", step, "activate", "2", "60")
        cut_power(site)
        shown = site.run("show")
        assert (shown["current"], shown["pending"]) == (1, 0), (step, shown)
        if not killed:
            assert step > 5
            return
    pytest.fail("the verb never ended by itself")


@pytest.mark.parametrize("verb", ["activate", "confirm", "revert"])
def test_a_dead_man_killed_at_any_step_is_finished_by_the_next_run(tmp_path: Path, verb: str) -> None:
    calm = Site(tmp_path / "calm", "dash")
    settle(calm, ONE)
    calm.stage(TWO)
    calm.run("activate", "2", "60")
    time_is_up(calm)
    for step in range(1, 80):
        site, killed = killed_at(calm, tmp_path / f"step-{step}", step, "deadman", "2")
        went_back = site.run("show")["current"] == 1
        words = (verb,) if verb == "revert" else (verb, "1")
        if went_back or verb != "confirm":
            assert site.run(*words)["ok"], step
            shown = site.run("show")
            assert (shown["current"], shown["confirmed"], shown["pending"]) == (1, 1, 0), step
            assert (site.home / "active").read_text().startswith("one"), step
        if not killed:
            assert step > 5
            return
    pytest.fail("the verb never ended by itself")


@pytest.mark.parametrize("verb", ["stage", "activate", "confirm", "revert", "forget"])
def test_killed_at_any_step_nothing_is_lost_and_the_next_run_finishes(tmp_path: Path, verb: str) -> None:
    calm = Site(tmp_path / "calm", "dash")
    settle(calm, ONE)
    if verb != "stage":
        calm.stage(TWO)
    if verb in {"confirm", "revert"}:
        calm.run("activate", "2", "60")
    if verb == "revert":
        calm.run("confirm", "2")
    if verb == "forget":
        settle(calm, TWO)
    words = {
        "stage": ("stage", TWO.digest),
        "activate": ("activate", "2", "60"),
        "revert": ("revert",),
        "forget": ("forget", "1"),
    }.get(verb, (verb, "2"))
    stdin = TWO.archive if verb == "stage" else b""
    for step in range(1, 80):
        site, killed = killed_at(calm, tmp_path / f"step-{step}", step, *words, stdin=stdin)
        shown = site.run("show")
        assert all(one["intact"] for one in shown["generations"]), (step, shown)
        assert shown["current"] in {1, 2}, (step, shown)
        again = site.run(*words, stdin=stdin)
        assert again["ok"], (step, again)
        if verb == "revert":
            shown = site.run("show")
            assert (shown["current"], shown["pending"], shown["service"]) == (1, 0, "active"), step
            assert (site.home / "active").read_text().startswith("one"), step
            assert site.run("revert")["current"] == 1, step
        elif verb == "forget":
            assert (generations(site), again["previous"]) == (["2"], 0), step
        else:
            assert site.run("activate", "2", "60")["ok"], step
            assert site.run("confirm", "2")["ok"], step
            assert site.run("show")["current"] == site.run("show")["confirmed"] == 2, step
            assert (site.home / "active").read_text().startswith("two"), step
        assert not list(site.base.rglob(".[io][nl][cd]*")), step
        if not killed:
            assert step > (3 if verb == "forget" else 5)
            return
    pytest.fail("the verb never ended by itself")


def test_revert_goes_back_once(site: Site) -> None:
    settle(site, ONE)
    settle(site, TWO)
    settle(site, THREE)
    assert site.run("revert")["generation"] == 2
    again = site.run("revert")
    assert (again["changed"], again["current"]) == (False, 2)
    assert again["message"] == "went back from generation 3 to 2 before"
    assert site.run("activate", "3", "60")["changed"] is True
    assert site.run("revert")["current"] == 2


def test_a_probation_that_was_prolonged_is_not_cut_short_by_the_first_timer(site: Site) -> None:
    settle(site, ONE)
    site.stage(TWO)
    site.run("activate", "2", "60")
    time_is_up(site)
    site.run("activate", "2", "2")
    began = time.monotonic()
    site.start("deadman", "2")
    assert time.monotonic() - began > 1
    assert site.run("show")["current"] == 1
