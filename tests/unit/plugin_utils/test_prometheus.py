# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The metrics of a look, read back by the rules of Prometheus' text format."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.prometheus import exposition

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(?:,|$)')
SAMPLE = re.compile(rf"({NAME})\{{(.*)\}} (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
LOOK = 1_800_000_000
VIPS = ["10.200.0.1", "203.0.113.1"]

Labels = frozenset[tuple[str, str]]


def read(text: str) -> dict[str, dict[Labels, float]]:
    """Read an exposition strictly: HELP, TYPE, then the samples of that name, no name and no sample twice."""
    assert text.endswith("\n")
    found: dict[str, dict[Labels, float]] = {}
    name = ""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("# HELP "):
            name, _space, said = line.removeprefix("# HELP ").partition(" ")
            assert re.fullmatch(NAME, name)
            assert said
            assert name not in found
            assert lines[number + 1] == f"# TYPE {name} gauge"
            found[name] = {}
        elif not line.startswith("# TYPE "):
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] == name
            labels = _labels(match[2])
            assert labels not in found[name], line
            found[name][labels] = float(match[3])
    assert all(found.values()), "a metric without a sample"
    return found


def _labels(text: str) -> Labels:
    pairs = []
    place = 0
    while place < len(text):
        match = LABEL.match(text, place)
        assert match, text
        unescaped = re.sub(r"\\(.)", lambda escape: "\n" if escape[1] == "n" else escape[1], match[2])
        pairs.append((match[1], unescaped))
        place = match.end()
    assert len({label for label, _value in pairs}) == len(pairs)
    return frozenset(pairs)


def site(number: int, **different: Any) -> dict[str, Any]:
    return {
        "id": f"site-{number:04d}",
        "group": "north",
        "verdict": "up",
        "since": "2027-01-15T07:00:00Z",
        "last_seen": "2027-01-15T08:00:00Z",
        "epoch": 2,
        "key_issued": "2027-01-14T08:00:00Z",
        "oob": "not asked",
        "held_until": None,
        **different,
    }


def gateway(name: str, **different: Any) -> dict[str, Any]:
    instance = {"name": "tun0", "sessions": 2, "handshakes": 1, "error": ""}
    return {"name": name, "reachable": True, "vips": [], "instances": [instance], **different}


def report(*sites: dict[str, Any], gateways: tuple[dict[str, Any], ...] = (), fleet: str = "test") -> dict[str, Any]:
    return {
        "fleet": fleet,
        "time": "2027-01-15T08:00:00Z",
        "summary": {"well": False},
        "problems": ["gw2 cannot be asked"],
        "vips": VIPS,
        "gateways": list(gateways),
        "sites": list(sites),
    }


def value(text: str, name: str, **labels: str) -> float | None:
    wanted = frozenset({"fleet": "test", **labels}.items())
    return read(text).get(f"spokewright_{name}", {}).get(wanted)


def test_a_look_with_everything_in_it() -> None:
    down = site(2, verdict="down", since=None, epoch=None, key_issued=None)
    text = exposition(
        report(
            site(1, group="canary", oob="up"),
            {**down, "oob": "down"},
            gateways=(gateway("gw1", vips=VIPS), gateway("gw2", reachable=False, instances=[])),
        )
    )

    assert value(text, "look_timestamp_seconds") == LOOK
    assert value(text, "fleet_well") == 0
    assert value(text, "pair_problems") == 1
    assert value(text, "gateway_reachable", gateway="gw1") == 1
    assert value(text, "gateway_reachable", gateway="gw2") == 0
    assert value(text, "vip_held", gateway="gw1", vip=VIPS[1]) == 1
    assert value(text, "instance_up", gateway="gw1", instance="tun0") == 1
    assert value(text, "instance_sessions", gateway="gw1", instance="tun0") == 2
    assert value(text, "instance_handshakes", gateway="gw1", instance="tun0") == 1
    assert value(text, "sites", group="canary", verdict="up") == 1
    assert value(text, "sites", group="north", verdict="up") == 0
    assert value(text, "sites", group="north", verdict="down") == 1
    assert value(text, "site_up", site="site-0001", group="canary") == 1
    assert value(text, "site_up", site="site-0002", group="north") == 0
    assert value(text, "site_session_start_timestamp_seconds", site="site-0001", group="canary") == LOOK - 3600
    assert value(text, "site_last_seen_timestamp_seconds", site="site-0002", group="north") == LOOK
    assert value(text, "site_key_epoch", site="site-0001", group="canary") == 2
    assert value(text, "site_key_age_seconds", site="site-0001", group="canary") == 86400
    assert value(text, "site_oob_up", site="site-0001", group="canary") == 1
    assert value(text, "site_oob_up", site="site-0002", group="north") == 0


def test_a_held_site_says_until_when() -> None:
    held = site(1, verdict="held", held_until="2027-01-15T08:10:00Z")
    text = exposition(report(held, site(2)))

    assert value(text, "site_held_until_timestamp_seconds", site="site-0001", group="north") == LOOK + 600
    assert value(text, "sites", group="north", verdict="held") == 1
    assert "site-0002" not in str(read(text)["spokewright_site_held_until_timestamp_seconds"])


def test_what_a_look_did_not_find_has_no_sample() -> None:
    text = exposition(report(site(1, verdict="never seen", since=None, last_seen=None, epoch=None, key_issued=None)))

    assert set(read(text)) == {
        "spokewright_look_timestamp_seconds",
        "spokewright_fleet_well",
        "spokewright_pair_problems",
        "spokewright_sites",
        "spokewright_site_up",
    }


def test_an_address_that_nobody_holds_is_told_and_an_instance_that_is_silent_has_no_number() -> None:
    silent = {"name": "tun0", "sessions": 0, "handshakes": 0, "error": "no answer"}
    text = exposition(report(gateways=(gateway("gw1", instances=[silent]),)))

    assert [value(text, "vip_held", gateway="gw1", vip=vip) for vip in VIPS] == [0, 0]
    assert value(text, "instance_up", gateway="gw1", instance="tun0") == 0
    assert "spokewright_instance_sessions" not in read(text)


@pytest.mark.parametrize("name", ['qu"ote', "back\\slash", "new\nline", 'all\\"\n\\n', "ümlaut"])
def test_labels_are_escaped(name: str) -> None:
    found = read(exposition(report(fleet=name)))

    assert found["spokewright_fleet_well"] == {frozenset({("fleet", name)}): 0}
