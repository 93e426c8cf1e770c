# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every site begins anew, once, or again and again: the owner tells of a storm when it is one, and stays the owner."""

from __future__ import annotations

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from faultlib import scene
from faults.cases import BOTH_ROLES, TIMEOUT, case
from faults.stage import SITE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faults.stage import Stage, Trial

pytestmark = [TIMEOUT]

CONFIG = "/etc/spokewright/health.json"
METRICS = "/run/spokewright/health.prom"
UNIT = "spokewright-health"
# As many sites as there are here are a storm; the role's own number is for a fleet.
FEW_SESSIONS = 2
PAUSE_SECONDS = 3.0
# Twenty seconds of signs, and a status file that each daemon writes every ten.
TOLD_SECONDS = 60.0
QUIET_SECONDS = 35.0
OVER_SECONDS = 75.0


@contextlib.contextmanager
def alarmed_by_few(host: str) -> Iterator[None]:
    """The health daemon of this gateway takes a handful of sites seriously."""
    edit = (
        f"import json; text = json.load(open('{CONFIG}')); text['storm_sessions'] = {FEW_SESSIONS}; "
        f"json.dump(text, open('{CONFIG}', 'w'))"
    )
    scene.must(host, f'cp -p {CONFIG} {CONFIG}.kept && python3 -c "{edit}" && systemctl restart {UNIT}')
    try:
        yield
    finally:
        scene.must(host, f"mv -f {CONFIG}.kept {CONFIG} && systemctl restart {UNIT}")


def restart_clients(stage: Stage) -> None:
    """All at once."""
    with ThreadPoolExecutor(max_workers=len(stage.view.lans)) as pool:
        list(pool.map(lambda site: scene.must(site, "systemctl restart openvpn-client@spokewright"), stage.view.lans))


def told(host: str, *, since: float) -> list[str]:
    """The lines of the journal about storms."""
    lines = scene.must(host, f"journalctl --unit={UNIT} --since=@{since:.0f} --output=cat --quiet").splitlines()
    return [line for line in lines if line.startswith("storm=")]


def wait_told(stage: Stage, host: str, word: str, *, since: float, seconds: float, restarting: bool) -> str:
    """Wait for a line that begins so; `restarting`: the sites begin anew all the time meanwhile."""
    deadline = time.monotonic() + seconds
    while True:
        if restarting:
            restart_clients(stage)
        time.sleep(PAUSE_SECONDS)
        found = [line for line in told(host, since=since) if line.startswith(word)]
        if found:
            return found[-1]
        assert time.monotonic() < deadline, f"{host} has not said {word} in {seconds:.0f} s: {health(host)}"


def health(host: str) -> dict[str, object]:
    """What the health daemon has written last."""
    found: dict[str, object] = json.loads(scene.must(host, f"cat {scene.HEALTH}"))
    return found


def metric(host: str) -> str:
    """What a collector of metrics gets to know."""
    lines = scene.must(host, f"cat {METRICS}").splitlines()
    return next(line for line in lines if line.startswith("spokewright_health_storm "))


def assert_stayed(stage: Stage, trial: Trial) -> None:
    """The addresses never left, and nobody else answered for them."""
    trial.assert_one_owner(trial.owner)
    assert [trial.role_changes(vip) for vip in stage.view.vips.values()] == [0] * len(stage.view.vips)


@case("storm-alarm")
@BOTH_ROLES
def test_sites_that_begin_anew_again_and_again_are_told_as_a_storm_and_nothing_moves(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="storm-alarm") as trial, alarmed_by_few(owner):
        since, trial.fault = time.time(), time.monotonic()
        begun = wait_told(stage, owner, "storm=yes", since=since, seconds=TOLD_SECONDS, restarting=True)
        during, alarm = health(owner), metric(owner)
        lasted = time.monotonic() - trial.fault
        over = wait_told(stage, owner, "storm=no", since=since, seconds=OVER_SECONDS, restarting=False)
        calm = metric(owner)
        trial.settle()
        lines = told(owner, since=since)
        trial.notes += lines

    assert 'command="tools/fleet hold GROUP"' in begun
    assert "handshakes a second" in begun
    assert lines == [begun, over], "one line when it begins, one when it is over"
    assert (alarm.split()[-1], calm.split()[-1]) == ("1", "0")
    assert during["score"] == 0
    assert_stayed(stage, trial)
    trial.assert_sites(within=lasted + SITE_SECONDS)


@case("clients-restarted")
@BOTH_ROLES
def test_sites_that_begin_anew_once_are_no_storm(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="clients-restarted") as trial, alarmed_by_few(owner):
        since, trial.fault = time.time(), time.monotonic()
        restart_clients(stage)
        trial.settle(seconds=QUIET_SECONDS + SITE_SECONDS, after=QUIET_SECONDS)
        lines = told(owner, since=since)

    assert lines == []
    assert_stayed(stage, trial)
    trial.assert_sites()
