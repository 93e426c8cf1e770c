# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is remembered between looks, and what the verdict makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.evidence import Evidence, assemble
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet, load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.sightings import (
    MOST_STARTS,
    Sighting,
    read_sightings,
    sightings_file,
    update_sightings,
    write_sightings,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.status import judge_fleet
from unit.plugin_utils.fleet_files import write_fleet

if TYPE_CHECKING:
    from pathlib import Path

VIPS = ["10.200.0.1", "192.168.32.1", "203.0.113.1"]
SITE = "site-0001"
HERE, COPY, INTERNET = "192.168.32.16", "192.168.32.99", "203.0.113.16"


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return load_fleet(plan_file=write_fleet(tmp_path))


def look(
    fleet: Fleet,
    *,
    at: float,
    since: int = 0,
    host: str = HERE,
    gateway: str = "gw1",
    pid: int = 7,
    kid: str = "a" * 16,
    stale: int = 0,
) -> Evidence:
    """The site has a session that began at `since` (0: none); the other gateway one that began at `stale`."""

    def answer(*, owner: bool, began: int) -> dict[str, Any]:
        client = {
            "common_name": SITE,
            "real_address": f"{host}:4711",
            "virtual_address": "10.101.0.16",
            "connected_since": began,
            "bytes_received": 1,
            "bytes_sent": 1,
        }
        return {
            "time": at,
            "addresses": VIPS if owner else [],
            "instances": [{"name": "tun0", "pid": pid, "version": "", "clients": [client] if began else []}],
            "keys": {SITE: (kid, 1, float(began))},
            "echoes": [],
        }

    other = {"gw1": "gw2", "gw2": "gw1"}[gateway]
    return assemble(
        fleet=fleet, answers={gateway: answer(owner=True, began=since), other: answer(owner=False, began=stale)}
    )


def verdict_after(fleet: Fleet, looks: list[dict[str, Any]]) -> tuple[str, str]:
    """The verdict of the last look, each look remembering the ones before it, by way of the file."""
    path = sightings_file(fleet)
    for one in looks:
        evidence = look(fleet, **one)
        seen = update_sightings(fleet=fleet, evidence=evidence, sightings=read_sightings(path), now=int(one["at"]))
        write_sightings(path, seen)
    verdict = judge_fleet(fleet=fleet, evidence=evidence, sightings=read_sightings(path))[SITE]
    return verdict.verdict, verdict.why


UP = "connected to tun0 on gw1"
AGAIN = "its session began anew"


@pytest.mark.parametrize(
    ("looks", "verdict", "why"),
    [
        pytest.param([{"at": 100, "since": 90}] * 5, "up", UP, id="one session, seen five times"),
        pytest.param(
            [{"at": 1000, "since": 10}, {"at": 1100, "since": 1090}, {"at": 1200, "since": 1190}],
            "up",
            UP,
            id="began anew twice",
        ),
        pytest.param(
            [{"at": since + 5, "since": since} for since in (10, 1000, 1100, 1200)],
            "flapping",
            f"{UP}, but {AGAIN} 3 times in the last 3 min",
            id="began anew three times",
        ),
        pytest.param(
            [{"at": since + 5, "since": since} for since in (1000, 1010, 1020)],
            "up",
            UP,
            id="of the first session nobody knows why it began",
        ),
        pytest.param(
            [{"at": since + 5, "since": since} for since in (10, 1000, 1400, 1800)],
            "up",
            UP,
            id="three times, in more than ten minutes",
        ),
        pytest.param(
            [*({"at": since + 5, "since": since} for since in (10, 1000, 1100, 1200)), {"at": 1801, "since": 1200}],
            "up",
            UP,
            id="it was flapping ten minutes ago",
        ),
        pytest.param(
            [{"at": 10 * turn, "since": 10 * turn, "gateway": f"gw{turn % 2 + 1}"} for turn in range(1, 9)],
            "up",
            UP,
            id="the addresses went to and fro",
        ),
        pytest.param(
            [{"at": 10 * turn, "since": 10 * turn, "pid": turn} for turn in range(1, 9)],
            "up",
            UP,
            id="the daemon was restarted",
        ),
        pytest.param(
            [{"at": 10 * turn, "since": 10 * turn, "kid": f"{turn:016x}"} for turn in range(1, 9)],
            "up",
            UP,
            id="new keys",
        ),
        pytest.param(
            [*({"at": since, "since": since} for since in (10, 20, 30, 40)), {"at": 45}],
            "down",
            f"no gateway has a session of it; {AGAIN} 3 times in the last 25 s",
            id="down at this moment",
        ),
        pytest.param(
            [{"at": 20, "since": 10}, {"at": 30, "since": 25, "host": COPY}],
            "up",
            UP,
            id="another address, once",
        ),
        pytest.param(
            [{"at": 20, "since": 10}, {"at": 30, "since": 25, "host": COPY}, {"at": 40, "since": 35}],
            "duplicate session",
            f"more than one box comes with its key, in turn from {HERE} and {COPY}: 2 changes in the last 30 s",
            id="two boxes in turn",
        ),
        pytest.param(
            [{"at": 20, "since": 10}, {"at": 5010, "since": 5000, "host": COPY}, {"at": 5030, "since": 5020}],
            "duplicate session",
            f"more than one box comes with its key, in turn from {HERE} and {COPY}: 2 changes in the last 30 s",
            id="two boxes in turn, the first of them for long",
        ),
        pytest.param(
            [{"at": 20, "since": 10}, {"at": 30, "since": 25, "host": INTERNET}, {"at": 40, "since": 35}],
            "up",
            UP,
            id="its other transport, and back",
        ),
        pytest.param(
            [{"at": 20, "since": 10}, {"at": 30, "since": 25, "host": COPY}, {"at": 1000, "since": 990}],
            "up",
            UP,
            id="it came back to an address it had long ago",
        ),
        pytest.param(
            [{"at": 40, "since": 35, "stale": 10}, {"at": 50, "since": 35, "stale": 10}],
            "up",
            UP,
            id="a stale session on the standby",
        ),
    ],
)
def test_verdict_with_a_memory(fleet: Fleet, looks: list[dict[str, Any]], verdict: str, why: str) -> None:
    assert verdict_after(fleet, looks) == (verdict, why)


def test_what_was_seen_once_is_remembered(fleet: Fleet) -> None:
    path = sightings_file(fleet)
    evidence = look(fleet, at=100, since=90)

    write_sightings(path, update_sightings(fleet=fleet, evidence=evidence, sightings={}, now=1234))

    seen = read_sightings(path)
    assert (seen[SITE].when, seen[SITE].real_host) == (1234, HERE)
    later = judge_fleet(fleet=fleet, evidence=look(fleet, at=200), sightings=seen)
    assert (later[SITE].verdict, later["site-0002"].verdict) == ("down", "never seen")


def test_the_memory_of_an_older_version_is_understood(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"site-0001": {"when": 7, "real_host": "192.168.32.16"}}', encoding="utf-8")

    assert read_sightings(tmp_path / "s.json") == {SITE: Sighting(when=7, real_host=HERE)}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"site-0001": {"odd": 1}}', '{"site-0001": {"starts": [1]}}'])
def test_a_broken_memory_only_means_that_nothing_is_remembered(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text, encoding="utf-8")

    assert read_sightings(tmp_path / "s.json") == {}


def test_the_memory_stays_small(fleet: Fleet) -> None:
    seen: dict[str, Sighting] = {}
    for turn in range(1, 200):
        evidence = look(fleet, at=turn, since=turn)
        seen = update_sightings(fleet=fleet, evidence=evidence, sightings=seen, now=turn)

    assert len(seen[SITE].starts) == MOST_STARTS
