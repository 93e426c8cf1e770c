# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold and release on a site: its client stays stopped, across boots and beside wrong clocks, and never for ever."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import delivery
from unit.roles.site_agent_support import ONE, TWO, UNIT, make, settle
from unit.roles.site_hold_support import HOLDER, INIT, WHO, Held

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["dash", "bash", "busybox"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Held:
    one = Held(tmp_path, request.param)
    settle(one, ONE)
    one.forget_calls()
    return one


def test_a_hold_stops_the_client_and_says_until_when(site: Held) -> None:
    receipt = site.hold(7200)
    assert (receipt["changed"], receipt["held_by"], receipt["held_reason"]) == (True, *WHO)
    # Here and below: a second may end between two looks at the clock.
    assert 7190 <= receipt["held"] <= 7200
    assert not site.runs
    shown = site.run("show")
    assert 7190 <= shown["held"] <= 7200
    assert (shown["held_by"], shown["held_reason"], shown["service"]) == (*WHO, "inactive")
    # It is there again after a boot.
    wanted = site.root / f"etc/systemd/system/multi-user.target.wants/{HOLDER}"
    assert f"ExecStart=/bin/sh {site.base}/state/hold.sh holder" in wanted.read_text()
    assert "Restart=on-failure" in wanted.read_text()


def test_what_would_end_it_runs_before_the_client_is_stopped(site: Held) -> None:
    site.hold(7200)
    calls = site.calls()
    assert calls.index("daemon-reload") < calls.index(f"restart {HOLDER}") < calls.index(f"stop {UNIT}")


def test_nothing_starts_the_client_of_a_held_site(site: Held) -> None:
    site.hold(7200)
    site.stage(TWO)
    for words in (("activate", "2", "60"), ("revert",), ("activate", "1", "60")):
        refused = site.run(*words)
        assert (refused["ok"], refused["reason"], refused["held_by"]) == (False, "held", WHO[0]), words
        assert "by ann@desk: storm of" in refused["message"]
        assert refused["message"].endswith("release it first")
    site.start("guard")
    assert site.run("confirm", "1")["changed"] is False
    subprocess.run([str(site.bin / "systemctl"), "restart", UNIT], check=True)
    assert not site.runs
    assert (site.run("show")["current"], site.run("show")["pending"]) == (1, 0)


def test_a_release_starts_it_and_leaves_nothing_behind(site: Held) -> None:
    site.hold(7200)
    assert site.left_behind
    receipt = site.run("release")
    assert (receipt["changed"], receipt["held"]) == (True, 0)
    assert site.runs
    assert site.left_behind == []
    assert not (site.home / "holder").exists()
    again = site.run("release")
    assert (again["ok"], again["changed"], again["message"]) == (True, False, "not held")
    assert site.run("show")["held"] == 0


def test_a_second_hold_is_no_change_and_another_time_is_one(site: Held) -> None:
    site.hold(7200)
    site.forget_calls()
    again = site.hold(7200)
    assert (again["ok"], again["changed"]) == (True, False)
    assert not [call for call in site.calls() if call.startswith(("stop", "restart", "start", "daemon-reload"))]
    longer = site.hold(10000)
    assert longer["changed"] is True
    assert 9990 <= longer["held"] <= 10000
    shorter = site.hold(60)
    assert shorter["changed"] is True
    assert 50 <= shorter["held"] <= 60
    other = site.hold(60, who=("bob@desk", "the same storm"))
    assert (other["changed"], other["held_by"]) == (True, "bob@desk")
    assert not site.runs


def test_a_hold_of_which_a_part_is_gone_is_made_whole(site: Held) -> None:
    site.hold(7200)
    (site.home / "holder").unlink()
    assert site.hold(7200)["changed"] is True
    (site.home / "active").touch()
    assert site.hold(7200)["changed"] is True
    assert not site.runs
    assert (site.home / "holder").exists()


def test_the_site_ends_it_by_itself(site: Held) -> None:
    site.hold(2)
    began = time.monotonic()
    assert site.holder() == 0
    assert 1 <= time.monotonic() - began < 5
    assert site.runs
    assert site.left_behind == []


def test_a_client_that_does_not_start_is_tried_again(site: Held) -> None:
    site.hold(1)
    (site.home / "cannot-start").touch()
    assert site.holder() == 1
    assert HOLDER in site.left_behind
    (site.home / "cannot-start").unlink()
    assert site.holder() == 0
    assert site.runs
    assert site.left_behind == []


def test_a_holder_that_comes_to_a_hold_of_another_length_waits_on(site: Held) -> None:
    site.hold(7200)
    site.ran_for(7000)
    assert 190 <= site.run("show")["held"] <= 200
    site.hold(7200)
    assert site.run("show")["held"] > 7190


@pytest.mark.parametrize("clock", [-60 * 365 * 86400, 0], ids=["1966", "right"])
def test_no_clock_makes_it_longer(site: Held, clock: int) -> None:
    """The site has run for the whole length since, whatever its clock says now."""
    site.hold(3600)
    site.change("hold", lambda one: [one[0], str(int(one[1]) - clock), *one[2:]])
    site.ran_for(3590)
    assert 1 <= site.run("show")["held"] <= 10
    site.ran_for(20)
    assert site.run("show")["held"] == 0


def test_the_end_by_the_clock_counts_too(site: Held) -> None:
    """It was switched off for a while, or stood still."""
    site.hold(3600)
    site.change("hold", lambda one: [one[0], str(int(time.time()) + 5), *one[2:]])
    assert 1 <= site.run("show")["held"] <= 5
    site.change("hold", lambda one: [one[0], str(int(time.time()) - 5), *one[2:]])
    assert site.run("show")["held"] == 0


def test_a_clock_that_is_behind_and_then_put_right_does_not_end_it(site: Held) -> None:
    """The controller says what time it is, so the end lies where a right clock will find it."""
    ahead = int(time.time()) + 20 * 365 * 86400
    site.hold(3600, now=ahead)
    end = int((site.base / "state/hold").read_text().split()[1])
    assert end == ahead + 3600
    assert site.run("show")["held"] > 3590
    site.run("release")
    # And with a clock that is ahead of the controller's, it is the site's own.
    site.hold(3600, now=5)
    assert int((site.base / "state/hold").read_text().split()[1]) >= time.time() + 3590


def test_across_boots_what_was_noted_counts_and_a_minute_more(site: Held) -> None:
    with open("/proc/uptime", encoding="ascii") as file:  # noqa: PTH123 - no file of this machine
        up = int(float(file.read().split()[0]))
    length = up + 7200
    site.hold(min(length, 86400))
    whole = int((site.base / "state/hold").read_text().split()[0])
    site.change("hold", lambda one: [*one[:2], "another-boot", one[3]])
    first = site.run("show")["held"]
    # A machine that has run for a day has used up every hold.
    assert max(0, whole - up - 75) <= first <= max(0, whole - up - 60)
    # A box that boots and boots, and never runs for a minute, is free after some boots.
    end = (site.base / "state/hold").read_text().split()[1]
    (site.base / "state/held").write_text(f"{end} {whole - 60} another-boot 5\n")
    assert site.run("show")["held"] == 0


def test_a_file_that_cannot_be_understood_holds_nobody(site: Held) -> None:
    site.hold(3600)
    for text in ("", "\n\n\n", "x y z 1\nann\nwhy\n", "3600\n", "3600 99999999999 boot\n"):
        (site.base / "state/hold").write_text(text)
        assert site.run("show")["held"] == 0, text
    assert site.holder() == 0
    assert site.runs


def test_a_hold_that_is_over_stands_in_nobodys_way(site: Held) -> None:
    site.hold(3600)
    site.change("hold", lambda one: [one[0], "5", *one[2:]])
    site.stage(TWO)
    assert site.run("activate", "2", "60")["ok"]
    assert site.runs
    site.holder()
    assert site.left_behind == []


def test_a_site_on_probation_is_not_held(site: Held) -> None:
    """It would go back by itself, and start its client."""
    site.stage(TWO)
    site.run("activate", "2", "60")
    refused = site.hold(3600)
    assert (refused["ok"], refused["reason"]) == (False, "on-probation")
    assert "generation 2 is on probation for another" in refused["message"]
    assert site.runs
    assert site.left_behind == []


@pytest.mark.parametrize("seconds", [0, 86401])
def test_a_time_that_makes_no_sense_is_refused_by_the_site_too(site: Held, seconds: int) -> None:
    refused = site.hold(seconds)
    assert (refused["ok"], refused["reason"]) == (False, "bad-time")
    assert site.runs


def test_a_client_is_not_stopped_when_nothing_would_start_it_again(site: Held) -> None:
    (site.home / "no-holder").touch()
    refused = site.hold(3600)
    assert (refused["ok"], refused["reason"]) == (False, "service-failed")
    assert site.runs
    assert site.run("show")["held"] == 0


def test_a_site_that_runs_nothing_is_not_held(tmp_path: Path) -> None:
    empty = Held(tmp_path, "dash")
    assert empty.hold(3600)["reason"] == "no-generation"


def test_a_client_that_does_not_stop_is_told_and_so_is_the_hold_that_is_in_force(site: Held) -> None:
    (site.home / "cannot-stop").touch()
    refused = site.hold(3600)
    assert (refused["ok"], refused["reason"]) == (False, "service-failed")
    assert refused["message"].startswith("the client did not stop.")
    assert refused["held"] >= 3590
    assert refused["held_by"] == WHO[0]


def test_whatever_it_refuses_a_site_says_whether_it_is_held(site: Held) -> None:
    assert site.hold(0)["held"] == 0
    site.hold(3600)
    assert 3590 <= site.hold(0)["held"] <= 3600
    (site.root / "etc/spokewright/current").unlink()
    refused = site.hold(3600)
    assert (refused["reason"], refused["held_by"]) == ("no-generation", WHO[0])


def test_a_release_ends_the_hold_that_was_seen_and_no_other(site: Held) -> None:
    site.hold(7200)
    seen = site.run("show")["hold"]
    # The same words a little later: no change, and another hold.
    assert site.hold(7200, now=time.time() + 60)["changed"] is False
    refused = site.run("release", seen)
    assert (refused["ok"], refused["changed"], refused["reason"]) == (False, False, "held-anew")
    assert refused["message"].startswith(f"held anew by {WHO[0]}: {WHO[1]}, for another ")
    assert refused["held"] > 0
    assert not site.runs
    assert site.run("release", site.run("show")["hold"])["changed"] is True
    assert site.runs
    assert site.run("release", seen)["message"] == "not held"


def test_a_site_that_was_held_as_it_should_be_is_settled(site: Held) -> None:
    site.hold(7200)
    told = site.run("stage", ONE.digest)
    assert (told["ok"], told["changed"], told["held_by"]) == (True, False, WHO[0])
    assert delivery.settled(shown=told, digest=ONE.digest)


@pytest.mark.parametrize("verb", ["hold", "release", "holder"])
def test_killed_at_any_step_nobody_is_held_for_ever(tmp_path: Path, verb: str) -> None:
    """Whatever a kill leaves: the next start of the unit, or the client itself after a boot, ends it."""
    killed = 0
    for step in range(1, 60):
        home = tmp_path / str(step)
        home.mkdir()
        site = Held(home, "dash")
        settle(site, ONE)
        if verb != "hold":
            site.hold(1 if verb == "holder" else 3600)
        for name in ("rm", "mv", "chmod", "sync", "systemctl", "ln", "mkdir"):
            real = site.bin / "systemctl.real" if name == "systemctl" else f"/usr/bin/{name}"
            if name == "systemctl":
                (site.bin / name).rename(real)
            site.tool(
                name,
                f'#!/bin/sh\necho . >>"{home}/steps"\n'
                f'[ "$(wc -l <"{home}/steps")" -ne {step} ] || {{ kill -9 $PPID; exit 1; }}\nexec {real} "$@"\n',
            )
        words = (verb, "3600", str(int(time.time())), *WHO) if verb == "hold" else (verb,)
        ran = site.start(*words)
        (home / "steps").write_text(".\n" * 1000)
        if ran.returncode == 0:
            assert killed == step - 1
            break
        killed += 1
        # A boot: systemd starts the client if it may, and what would end the hold if it is there.
        (home / "active").unlink(missing_ok=True)
        subprocess.run([str(site.bin / "systemctl"), "start", UNIT], check=True)
        if (site.base / "state/hold").exists():
            wanted = site.root / f"etc/systemd/system/multi-user.target.wants/{HOLDER}"
            assert wanted.exists(), f"killed at step {step}: held, and nothing would end it"
            assert (site.base / "state/hold.sh").exists()
            site.change("hold", lambda one: [one[0], "5", *one[2:]])
            assert site.start("holder").returncode == 0
        assert site.runs, f"killed at step {step}"
        assert site.run("release")["ok"]
        assert site.left_behind == []
    assert killed > 3


@pytest.fixture(params=["sysv", "busybox"])
def plain(request: pytest.FixtureRequest, tmp_path: Path) -> Held:
    """A site without systemd."""
    one = Held(tmp_path, "busybox")
    (one.root / "run/systemd/system").rmdir()
    if request.param == "sysv":
        for level in "23456":
            (one.root / f"etc/rc{level}.d").mkdir()
    (one.root / "etc/inittab").write_text("::sysinit:/etc/init.d/rcS\n")
    (one.root / "etc/init.d").mkdir()
    (one.root / "etc/init.d/rcS").write_text("for i in /etc/init.d/S??*; do $i start; done\n")
    return one


def test_without_systemd_the_guard_sits_it_out(plain: Held) -> None:
    settle(plain, make_with(INIT))
    assert plain.runs
    receipt = plain.hold(2)
    assert (receipt["ok"], receipt["changed"]) == (True, True)
    assert not plain.runs
    assert plain.left_behind == ["hold"]
    began = time.monotonic()
    plain.start("guard")
    assert 1 <= time.monotonic() - began < 5
    assert plain.left_behind == []
    plain.hold(3600)
    assert plain.hold(3600)["changed"] is False
    assert plain.run("release")["ok"]
    assert plain.runs


def test_without_systemd_a_client_that_runs_on_is_no_success(plain: Held) -> None:
    settle(plain, make_with(INIT.replace('state/hold" ] ||', 'state/hold" ] || :')))
    refused = plain.hold(3600)
    assert plain.runs
    assert (refused["ok"], refused["reason"]) == (False, "service-failed")
    assert refused["held"] >= 3590


def test_without_systemd_an_older_generation_is_left_alone(plain: Held) -> None:
    settle(plain, make_with(INIT, agent="#!/bin/sh\n"))
    refused = plain.hold(3600)
    assert (refused["ok"], refused["reason"]) == (False, "too-old")
    assert "generation 1 knows no holds" in refused["message"]
    assert plain.runs
    assert plain.left_behind == []


def make_with(init: str, *, agent: str | None = None) -> Any:
    return make("one\n", more={"init.sh": init, "openrc.sh": init, **({"agent.sh": agent} if agent else {})})
