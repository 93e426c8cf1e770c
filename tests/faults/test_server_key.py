# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new server key and a new CA for the whole fleet while probes run: killed half-way, with sites without power.

Nobody is without traffic for longer than six seconds, and whoever was off comes back by itself or blocks the change.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import time
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import open_store
from ansible_collections.spokewright.fleet.plugins.plugin_utils.server_keys import fingerprint
from faultlib.measure import Measurement
from faultlib.ready import load_view
from faults.cases import IN_LONG
from integration.labtools import (
    PLAN,
    ROOT,
    Run,
    begin,
    daemon_pids,
    fleet,
    fleet_of,
    kill,
    lab,
    on,
    playbook,
    up,
    wait_for,
    wait_up,
    well,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollover import There

SITES = int(os.environ.get("SPOKEWRIGHT_ROTATION_SITES") or 5)
LONGEST_SECONDS = 6.0
# Each takes some minutes: by its name, or with `make e2e LONG=1`.
RUNS = int(os.environ.get("RUNS") or 2)
SEED = int(os.environ.get("SEED") or time.time())
ALL = [f"site-{number:04}" for number in range(1, SITES + 1)]
OFF = ALL[-1]
LOGS = ROOT / ".cache" / "rotation"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module", autouse=True)
def running_fleet() -> Iterator[None]:
    """Shared by all tests here."""
    # Every site of the fleet has to be ready, so there are none but these.
    with fleet_of(SITES, exactly=True):
        yield


def rotate(reason: str, *more: str) -> Run:
    return playbook("rotate_server_key.yml", "-e", f"reason='{reason}'", *more)


def server_key() -> tuple[str, str]:
    """The fingerprint of the server key that gateways are given, and how far a rotation of it is."""
    found = open_store(load_fleet(plan_file=PLAN).plan).server_keys.read()
    return fingerprint(found.serving), found.phase


@contextlib.contextmanager
def nobody_silent(name: str, *, sites: list[str]) -> Iterator[None]:
    """Probes run between the core and these sites, both ways; in the end each is judged by its longest hole."""
    LOGS.mkdir(parents=True, exist_ok=True)
    with Measurement(view=load_view(), out=LOGS / f"{name}.json", sites=sites) as measurement:
        assert measurement.wait_steady(seconds=60), measurement.silent()
        began = time.monotonic()
        yield
        assert measurement.wait_steady(seconds=30, after=2.0), measurement.silent()
        time.sleep(1.2)
        found = measurement.stop().figures(fault=began)
    assert {one.site for one in found} == set(sites)
    longest = {site: max(one.longest for one in found if one.site == site) for site in sites}
    sys.stdout.write(f"{ {site: round(seconds, 2) for site, seconds in longest.items()} }\n")
    assert {site: seconds for site, seconds in longest.items() if seconds > LONGEST_SECONDS} == {}


def ca() -> There:
    """The fleet's CAs."""
    plan = load_fleet(plan_file=PLAN).plan
    return open_store(plan).authorities(fleet=plan.name, key_type=plan.tunnels.key_type).there()


def whole() -> None:
    """Books, keys and fleet are as they should be."""
    for command in (("ledger", "verify"), ("keystore", "check")):
        checked = fleet(*command)
        assert checked.status == 0, checked.output
    assert well(set(ALL))


def killed(reason: str, *, after: float, name: str = "rotate_server_key.yml") -> None:
    """Begin a rotation and kill it with all its processes."""
    process = begin(name, "-e", f"reason='{reason}'")
    time.sleep(after)
    kill(process)


def power_off(site: str) -> None:
    assert lab("kill", site).status == 0


def power_on(site: str) -> None:
    assert lab("boot", site).status == 0


@pytest.mark.case("rotation-server-key", short=IN_LONG)
def test_a_new_server_key_silences_nobody_and_a_site_that_was_off_comes_back_by_itself() -> None:
    wait_up(set(ALL), seconds=60)
    reason, present = f"measured {SEED}", ALL[:-1]
    (before, _phase), daemons = server_key(), daemon_pids()

    # It has no power before it has a PSK for the next server key: that would shut it out, so no gateway changes.
    power_off(OFF)
    try:
        blocked = rotate(reason)
    finally:
        power_on(OFF)
    words = " ".join(blocked.output.split())
    assert blocked.status != 0
    assert f"1 site would be shut out, so no gateway is changed. {OFF}: it has not confirmed its PSK" in words
    assert daemon_pids() == daemons

    # Now it gets both, and is off during all the rest. A limited run touches no gateway.
    limited = rotate(reason, "--limit", OFF)
    assert limited.status == 0, limited.output[-3000:]
    assert daemon_pids() == daemons
    power_off(OFF)
    try:
        with nobody_silent("server-key", sites=present):
            done = rotate(reason)
    finally:
        power_on(OFF)
    assert {site for site, line in done.recap.items() if line.failed or line.unreachable} == {OFF}, done.output[-3000:]
    # As far as its files can tell, it was off for a day.
    on(OFF, "find /etc/spokewright -exec touch -h -d '1 day ago' {} +")
    wait_up(set(ALL), seconds=60)

    assert server_key()[0] != before
    assert server_key()[1] == "one"
    assert daemon_pids().keys() == daemons.keys()
    assert not set(daemon_pids().values()) & set(daemons.values())
    caught_up = rotate(reason)
    assert (caught_up.status, set(caught_up.changed)) == (0, {OFF}), caught_up.output[-3000:]
    idle = rotate(reason)
    assert (idle.status, idle.changed) == (0, {})
    assert on(OFF, "ls /etc/spokewright/current/").output.split().count("other-psk.key") == 0
    whole()


@pytest.mark.case("rotation-server-key-killed", short=IN_LONG)
def test_it_can_be_killed_at_any_moment_and_the_same_command_goes_on() -> None:
    wait_up(set(ALL), seconds=60)
    chance = random.Random(SEED)  # noqa: S311 - moments, no keys
    began = time.monotonic()
    assert rotate(f"undisturbed {SEED}").status == 0
    length = time.monotonic() - began
    for number in range(1, RUNS + 1):
        (before, _phase), reason = server_key(), f"killed {SEED} {number}"
        with nobody_silent(f"server-key-killed-{number}", sites=ALL):
            moment = chance.uniform(0.2 * length, length)
            killed(reason, after=moment)
            sys.stdout.write(f"killed after {moment:.1f} s of {length:.1f}: {server_key()[1]}\n")
            wait_up(set(ALL), seconds=60)
            done = rotate(reason)
        assert done.status == 0, done.output[-3000:]
        assert server_key()[0] != before
        assert server_key()[1] == "one"
        whole()
    assert rotate(reason).changed == {}


@pytest.mark.case("rotation-server-key-back", short=IN_LONG)
def test_it_is_taken_back_and_who_was_left_behind_is_served_out_of_band() -> None:
    wait_up(set(ALL), seconds=60)
    before, reason = server_key()[0], f"taken back {SEED}"
    begun = rotate(reason, "--limit", ",".join(ALL))
    assert begun.status == 0, begun.output[-3000:]
    assert server_key() == (before, "next")
    back = playbook("rotate_server_key.yml", "-e", "abort=true")
    assert back.status == 0, back.output[-3000:]
    assert server_key() == (before, "one")
    whole()

    power_off(OFF)
    try:
        left = rotate(reason, "-e", f"leave_behind={OFF}")
    finally:
        power_on(OFF)
    assert left.status == 0, left.output[-3000:]
    assert server_key()[0] != before
    assert up() == set(ALL) - {OFF}
    served = playbook("sites.yml", "--limit", OFF)
    assert served.status == 0, served.output[-3000:]
    whole()


@pytest.mark.case("rotation-ca", short=IN_LONG)
def test_another_ca_silences_nobody_and_waits_for_a_site_that_is_off() -> None:
    wait_up(set(ALL), seconds=60)
    before, reason, present = ca(), f"measured {SEED}", ALL[:-1]
    # It trusts both, and then it is off: the new CA issues, the former one stays until the site has a key of the new.
    limited = playbook("rotate_ca.yml", "-e", f"reason='{reason}'", "--limit", OFF)
    assert limited.status == 0, limited.output[-3000:]
    assert ca().phase == "next"
    power_off(OFF)
    try:
        with nobody_silent("ca", sites=present):
            waits = playbook("rotate_ca.yml", "-e", f"reason='{reason}'")
    finally:
        power_on(OFF)
    words = " ".join(waits.output.split())
    assert waits.status != 0
    assert f"{OFF}: its key of epoch" in words, waits.output[-3000:]
    assert "of the new CA, is issued and not confirmed" in words
    found = ca()
    assert (found.phase, found.other) == ("former", before.serving)
    on(OFF, "find /etc/spokewright -exec touch -h -d '1 day ago' {} +")
    wait_up(set(ALL), seconds=60)

    with nobody_silent("ca-end", sites=ALL):
        done = playbook("rotate_ca.yml", "-e", f"reason='{reason}'")
    assert done.status == 0, done.output[-3000:]
    assert (ca().phase, ca().serving) == ("one", found.serving)
    idle = playbook("rotate_ca.yml", "-e", f"reason='{reason}'")
    assert (idle.status, idle.changed) == (0, {}), idle.output[-3000:]
    whole()


@pytest.mark.case("rotation-ca-killed", short=IN_LONG)
def test_another_ca_can_be_killed_at_any_moment_too() -> None:
    wait_up(set(ALL), seconds=60)
    chance = random.Random(SEED)  # noqa: S311 - moments, no keys
    began = time.monotonic()
    assert playbook("rotate_ca.yml", "-e", f"reason='undisturbed {SEED}'").status == 0
    length = time.monotonic() - began
    for number in range(1, RUNS + 1):
        before, reason = ca(), f"killed {SEED} {number}"
        with nobody_silent(f"ca-killed-{number}", sites=ALL):
            moment = chance.uniform(0.2 * length, length)
            killed(reason, after=moment, name="rotate_ca.yml")
            sys.stdout.write(f"killed after {moment:.1f} s of {length:.1f}: {ca().phase}\n")
            wait_up(set(ALL), seconds=60)
            done = playbook("rotate_ca.yml", "-e", f"reason='{reason}'")
        assert done.status == 0, done.output[-3000:]
        assert ca().serving != before.serving
        assert ca().phase == "one"
        whole()


@pytest.mark.case("rotation-ca-keys-killed", short=IN_LONG)
def test_another_ca_goes_on_when_it_was_killed_while_its_keys_were_on_their_way() -> None:
    wait_up(set(ALL), seconds=60)
    before, reason = ca(), f"keys killed {SEED}"
    running = begin("rotate_ca.yml", "-e", f"reason='{reason}'")

    def keys_are_on_their_way() -> bool:
        current = PLAN.parent / "rollouts/current"
        name = current.read_text().strip() if current.exists() else ""
        state = PLAN.parent / "rollouts" / name / "state.json"
        found = json.loads(state.read_text()) if name and state.exists() else {}
        return (found.get("what"), found.get("reason"), found.get("outcome")) == ("keys", reason, "open")

    with nobody_silent("ca-keys-killed", sites=ALL):
        wait_for("the keys of the new CA are on their way", keys_are_on_their_way, seconds=300)
        kill(running)
        assert ca().phase == "former"
        wait_up(set(ALL), seconds=60)
        done = playbook("rotate_ca.yml", "-e", f"reason='{reason}'")
    assert done.status == 0, done.output[-3000:]
    assert ca().phase == "one"
    assert ca().serving != before.serving
    assert playbook("rotate_ca.yml", "-e", f"reason='{reason}'").changed == {}
    whole()
