# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that is wrong with a configuration is said at once, and nothing that is wrong passes."""

from __future__ import annotations

import json
import typing as t

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils.health_config import HealthConfigError, parse
from ansible_collections.spokewright.fleet.plugins.plugin_utils import health_plan

GIVEN: dict[str, t.Any] = {
    "gateway": {
        "inside": {"interface": "inside0", "address": "10.200.0.2"},
        "transports": {
            "frame_relay": {"interface": "fr0", "address": "198.19.0.2"},
            "internet": {"interface": "inet0", "address": "198.19.128.2"},
        },
    },
    "peer": {
        "inside": {"interface": "inside1", "address": "10.200.0.3"},
        "transports": {
            "frame_relay": {"interface": "fr1", "address": "198.19.0.3"},
            "internet": {"interface": "inet1", "address": "198.19.128.3"},
        },
    },
    "adverts": [{"address": "10.200.0.3", "vrrp_id": 10}, {"address": "198.18.0.3", "vrrp_id": 40}],
    "lease_seconds": 3,
    "inside": {"vip": "10.200.0.1"},
    "transports": [{"name": "frame_relay", "vip": "198.19.0.1"}, {"name": "internet", "vip": "198.19.128.1"}],
    "instances": ["tun0", "tun1"],
    "probes": {"inside": ["10.200.0.10"], "transports": {"frame_relay": ["198.19.127.254"]}},
    "advert_seconds": 0.1,
    "priority": 100,
    "score_file": "/run/spokewright/score",
    "penalties": {"path": 40, "further_transport": 10, "instance": 20, "routing": 5},
    "instance_patience": 10,
    "cure_pause": 60,
    "routing": True,
    "storm": {"share": 0.3, "sessions": 20, "seconds": 20, "drops": 10},
}


def planned(**other: t.Any) -> dict[str, t.Any]:
    return health_plan.config(**{**GIVEN, **other})


def test_what_the_role_writes_is_what_the_daemon_reads() -> None:
    config = parse(text=json.dumps(planned()))

    assert [(one.name, one.peer, one.penalty, one.tracked, one.probes) for one in config.networks] == [
        ("inside", "10.200.0.3", 40, True, ("10.200.0.10",)),
        ("frame_relay", "198.19.0.3", 40, True, ("198.19.127.254",)),
        ("internet", "198.19.128.3", 10, False, ()),
    ]
    assert (config.peers, config.lease_seconds) == ((("10.200.0.3", 10), ("198.18.0.3", 40)), 3)
    assert [(vip.address, vip.interface) for vip in config.vips] == [
        ("10.200.0.1", "inside0"),
        ("198.19.0.1", "fr0"),
        ("198.19.128.1", "inet0"),
    ]
    assert config.routing == (("/run/frr/zebra.vty",), ("/run/frr/bgpd.vty", "/run/frr/ospfd.vty"))
    assert (config.floor, config.interval) == (-99, 0.3)
    assert (config.storm_share, config.storm_sessions, config.storm_seconds, config.storm_drops) == (0.3, 20, 20, 10)
    assert config.instances[1].status == "/run/openvpn-server/status-tun1.log"
    assert parse(text=json.dumps(planned(routing=False))).routing == ()


@pytest.mark.parametrize(("advert", "interval"), [(0.02, 0.1), (0.05, 0.15), (0.1, 0.3), (0.2, 0.6), (1, 3.0)])
def test_the_interval_follows_the_adverts(advert: float, interval: float) -> None:
    assert planned(advert_seconds=advert)["interval"] == interval


def test_a_path_that_does_not_exist_cannot_be_probed() -> None:
    with pytest.raises(health_plan.HealthPlanError, match=r"has outside, transports\.radio, which no path is called"):
        planned(probes={"outside": [], "transports": {"radio": ["192.0.2.1"]}})


def test_all_faults_are_told_at_once_each_with_place_value_and_rule() -> None:
    data = planned()
    data["interval"] = "fast"
    data["floor"] = -254
    data["networks"][1]["probes"] = ["198.19.127.254", "router"]
    data["networks"][2]["name"] = "inside"
    data["networks"][0]["penalty"] = 100
    data["instances"][0]["socket"] = "tun0.sock"
    data["instances"][1] = "tun1"
    data["speed"] = 1
    del data["cure_pause"]

    with pytest.raises(HealthConfigError) as caught:
        parse(text=json.dumps(data))

    assert str(caught.value).splitlines() == [
        f"speed: nobody knows this field; there are {', '.join(planned())}",
        'interval: "fast" is not a number from 0.1 to 30.0',
        "floor: -254 is not a number from -253 to -1",
        "networks[0].penalty: 100 is not a number from 0 to 99",
        'networks[1].probes: "router" is not an IPv4 address',
        'instances[1]: "tun1" is not an object',
        'instances[0].socket: "tun0.sock" is not an absolute path',
        "cure_pause: it is missing",
        'networks: the name "inside" is there more than once',
    ]


@pytest.mark.parametrize(
    ("text", "said"), [("[]", r"the file: \[\] is not an object"), ("{", "it is not JSON"), ("", "it is not JSON")]
)
def test_what_is_no_object_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(HealthConfigError, match=said) as caught:
        parse(text=text)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, None, [], 0])
def test_no_number_is_taken_that_is_none(value: t.Any) -> None:
    with pytest.raises(HealthConfigError, match="interval"):
        parse(text=json.dumps({**planned(), "interval": value}))
