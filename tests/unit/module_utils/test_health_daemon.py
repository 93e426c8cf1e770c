# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon itself, looking at this machine's loopback device: what it writes, when, and what a new one does."""

from __future__ import annotations

import json
import os
import threading
import time
import typing as t

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils.health_config import parse
from ansible_collections.spokewright.fleet.plugins.module_utils.health_daemon import Daemon, main
from ansible_collections.spokewright.fleet.plugins.module_utils.health_rival import RivalWatch
from ansible_collections.spokewright.fleet.plugins.module_utils.health_rules import MISSES, STANDBY_SUCCESSES, SUCCESSES

if t.TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="echo requests need root")

INTERVAL = 0.1
HERE, NOWHERE = "127.0.0.1", "192.0.2.1"


class Gateway:
    """A directory with what the daemon writes, and a daemon whose clock is ours."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.now, self.said = directory, 1000.0, list[str]()
        self.probe = HERE

    def config(self) -> dict[str, t.Any]:
        network = {
            "name": "inside",
            "interface": "lo",
            "source": HERE,
            "peer": "127.0.0.2",
            "probes": [HERE],
            "penalty": 40,
            "tracked": True,
        }
        # Another name for the same check, so that a probe can fall silent.
        network["probes"] = [self.probe]
        return {
            "interval": INTERVAL,
            "directory": str(self.directory),
            "score_file": str(self.directory / "score"),
            "floor": -99,
            "vips": [{"address": "192.0.2.77", "interface": "lo"}],
            "peers": [],
            "lease_seconds": 0,
            "networks": [network],
            "instances": [],
            "instance_penalty": 20,
            "instance_patience": 10.0,
            "cure_pause": 60.0,
            "routing": [],
            "routing_penalty": 5,
            "storm_share": 0.3,
            "storm_sessions": 20,
            "storm_seconds": 20,
            "storm_drops": 10,
        }

    def start(self) -> Daemon:
        return Daemon(config=parse(text=json.dumps(self.config())), log=lambda _priority, line: self.said.append(line))

    def look(self, daemon: Daemon, times: int = 1, *, late: bool = False) -> None:
        for _ in range(times):
            self.now += INTERVAL
            daemon.look(now=self.now, late=late)
            time.sleep(0.002)

    @property
    def score(self) -> str:
        path = self.directory / "score"
        return path.read_text().strip() if path.exists() else "none"

    @property
    def report(self) -> dict[str, t.Any]:
        found: dict[str, t.Any] = json.loads((self.directory / "health.json").read_text())
        return found

    def bad(self) -> list[str]:
        return [check["name"] for check in self.report["checks"] if not check["well"]]


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    made = Gateway(tmp_path)
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    return made


def test_a_path_that_answers_is_well_and_nothing_is_written_before_that_is_known(gateway: Gateway) -> None:
    (gateway.directory / "score").write_text("-40\n")
    daemon = gateway.start()
    gateway.look(daemon)
    assert gateway.score == "-40"

    gateway.look(daemon)
    assert gateway.score == "0"
    assert (gateway.report["score"], gateway.report["role"], gateway.bad()) == (0, "standby", [])


def test_a_silent_path_is_scored_after_three_misses_and_told_in_one_line(gateway: Gateway) -> None:
    gateway.probe = NOWHERE
    daemon = gateway.start()
    gateway.look(daemon, MISSES)
    assert gateway.score == "none"

    gateway.look(daemon)
    assert gateway.score == "-40"
    assert gateway.bad() == ["inside 192.0.2.1"]
    (line,) = [line for line in gateway.said if line.startswith("check=")]
    assert line.startswith('check="inside 192.0.2.1" well=no since=')
    assert 'score_before=0 score_after=-40 detail="no answer"' in line


def test_looks_that_come_late_blame_nobody(gateway: Gateway) -> None:
    gateway.probe = NOWHERE
    daemon = gateway.start()
    gateway.look(daemon, 50, late=True)

    assert gateway.score == "none"


def test_a_new_daemon_does_not_forget_what_the_last_one_found(gateway: Gateway) -> None:
    gateway.probe = NOWHERE
    gateway.look(gateway.start(), MISSES + 1)
    since = gateway.report["checks"][1]["since"]

    document = (gateway.directory / "health.json").read_text().replace(NOWHERE, HERE)
    (gateway.directory / "health.json").write_text(document)
    gateway.probe = HERE
    daemon = gateway.start()
    gateway.look(daemon, SUCCESSES + STANDBY_SUCCESSES)
    assert gateway.score == "-40"
    assert gateway.report["checks"][1]["since"] == since

    gateway.look(daemon)
    assert gateway.score == "0"


def test_a_hold_gives_the_addresses_away_and_is_removed_when_it_is_over(gateway: Gateway) -> None:
    daemon = gateway.start()
    gateway.look(daemon, 2)
    hold = gateway.directory / "hold"
    hold.write_text(str(time.time() + 1000))
    gateway.look(daemon)
    assert gateway.score == "-254"
    assert (gateway.report["score"], gateway.report["role"]) == (-254, "fault")
    assert gateway.report["hold_until"] == pytest.approx(time.time() + 30, abs=2)

    gateway.now += 30
    gateway.look(daemon)
    assert (gateway.score, hold.exists(), gateway.report["hold_until"]) == ("0", False, None)


def test_a_deaf_owner_gives_the_addresses_away_for_as_long_as_the_other_one_has_them(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {**gateway.config(), "lease_seconds": 3}
    monkeypatch.setattr(gateway, "config", lambda: config)
    daemon = gateway.start()
    gateway.look(daemon, 2)
    assert (gateway.score, daemon._rival is not None) == ("0", True)

    monkeypatch.setattr(RivalWatch, "meet", lambda *_args, **_given: None)
    monkeypatch.setattr(RivalWatch, "yielding", True)
    gateway.look(daemon, MISSES + 2)
    assert gateway.score == "-254"
    assert (gateway.report["score"], gateway.report["role"], gateway.bad()) == (-254, "fault", ["adverts"])
    assert "none of its adverts arrive here" in gateway.said[-1]

    monkeypatch.setattr(RivalWatch, "yielding", False)
    gateway.look(daemon)
    assert gateway.score == "0"


def test_without_a_fence_nobody_gives_way_by_what_arp_says(gateway: Gateway) -> None:
    daemon = gateway.start()

    assert (daemon._rival, daemon._keepalived) == (None, None)


def test_a_hold_is_obeyed_at_once_and_not_at_the_next_turn(tmp_path: Path) -> None:
    config = Gateway(tmp_path).config() | {"interval": 30.0}
    daemon = Daemon(config=parse(text=json.dumps(config)), log=lambda _priority, _line: None)
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        _until((tmp_path / "health.json").exists)
        (tmp_path / "hold.new").write_text(str(time.time() + 20))
        (tmp_path / "hold.new").replace(tmp_path / "hold")
        _until((tmp_path / "score").exists)
        assert (tmp_path / "score").read_text() == "-254\n"
    finally:
        daemon.stop()
        thread.join()


def _until(well: t.Callable[[], bool]) -> None:
    """Long before the next turn, which is 30 s away."""
    deadline = time.monotonic() + 10
    while not well():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_hold_that_says_nothing_is_removed_and_does_nothing(gateway: Gateway) -> None:
    daemon = gateway.start()
    gateway.look(daemon, 2)
    (gateway.directory / "hold").write_text("soon")
    gateway.look(daemon)

    assert (gateway.score, (gateway.directory / "hold").exists()) == ("0", False)


@pytest.mark.parametrize("text", ["-20\n", "", None])
def test_a_score_that_is_not_ours_is_written_again(text: str | None, gateway: Gateway) -> None:
    daemon = gateway.start()
    gateway.look(daemon, 2)
    path = gateway.directory / "score"
    path.unlink()
    if text is not None:
        path.write_text(text)
    gateway.look(daemon)

    assert gateway.score == "0"


def test_the_score_is_a_new_file_only_when_it_changes(gateway: Gateway) -> None:
    daemon = gateway.start()
    gateway.look(daemon, 2)
    before = (gateway.directory / "score").stat().st_ino
    gateway.look(daemon, 20)

    assert (gateway.directory / "score").stat().st_ino == before
    assert sorted(path.name for path in gateway.directory.iterdir()) == ["health.json", "health.prom", "score"]


def test_frr_counts_only_when_it_stays_silent(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {**gateway.config(), "routing": [[str(gateway.directory / "zebra.vty")]]}
    monkeypatch.setattr(gateway, "config", lambda: config)
    daemon = gateway.start()
    gateway.look(daemon, MISSES + 2)
    assert (gateway.score, gateway.bad()) == ("0", ["routing"])
    assert gateway.report["checks"][-1]["detail"] == "no answer from zebra"

    gateway.look(daemon, int(config["instance_patience"] / INTERVAL))
    assert gateway.score == "-5"


def test_metrics_say_the_same(gateway: Gateway) -> None:
    gateway.probe = NOWHERE
    gateway.look(gateway.start(), MISSES + 1)
    rows = (gateway.directory / "health.prom").read_text().splitlines()

    assert "spokewright_health_score -40" in rows
    assert 'spokewright_health_check_well{check="inside 192.0.2.1"} 0' in rows
    assert 'spokewright_health_check_penalty{check="inside 192.0.2.1"} 40' in rows
    assert 'spokewright_health_role{role="standby"} 1' in rows
    assert len(rows) == len(set(rows))


def test_the_program_judges_its_configuration(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    file = gateway.directory / "health.json"
    file.write_text(json.dumps(gateway.config()))
    assert main(["--check", str(file)]) == 0

    file.write_text(json.dumps({**gateway.config(), "interval": 0, "floor": 1}))
    assert main(["--check", str(file)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{file}: interval: 0 is not a number from 0.1 to 30.0",
        f"{file}: floor: 1 is not a number from -253 to -1",
    ]
    assert main(["--check", str(gateway.directory / "none")]) == 1
