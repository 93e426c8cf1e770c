# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import vrrp


def gateway(name: str, last: int) -> dict[str, t.Any]:
    return {
        "name": name,
        "oob": {"interface": "oob0", "address": f"198.18.0.{last}"},
        "inside": {"interface": "inside0", "address": f"10.200.0.{last}"},
        "transports": {
            "frame_relay": {"interface": "fr0", "address": f"198.19.0.{last}"},
            "internet": {"interface": "inet0", "address": f"198.19.128.{last}"},
        },
    }


def members(**changes: t.Any) -> list[dict[str, t.Any]]:
    given: dict[str, t.Any] = {
        "gateway": gateway("gw1", 2),
        "peers": [gateway("gw2", 3)],
        "inside": {"vip": "10.200.0.1", "vrrp_id": 10},
        "transports": [
            {"name": "frame_relay", "vip": "198.19.0.1", "vrrp_id": 20},
            {"name": "internet", "vip": "198.19.128.1", "vrrp_id": 30},
        ],
        "oob": {"vrrp_id": 40},
    }
    return vrrp.members(**(given | changes))


def test_only_inside_and_the_first_transport_fail_with_their_carrier() -> None:
    assert [(item["name"], item["own_carrier"]) for item in members()] == [
        ("IN", True),
        ("OUT", True),
        ("OUT_INTERNET", False),
        ("HB", False),
    ]


def test_each_member_speaks_with_the_peer_on_its_own_network() -> None:
    assert members()[2]["peers"] == ["198.19.128.3"]
    assert members()[3] | {} == {
        "name": "HB",
        "role": "oob",
        "interface": "oob0",
        "source": "198.18.0.2",
        "peers": ["198.18.0.3"],
        "vrrp_id": 40,
        "vip": "",
        "token": "169.254.40.1",
        "own_carrier": False,
    }


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"oob": {"vrrp_id": 10}}, "vrrp_id 10 is used by inside and by oob"),
        ({"peers": [{"name": "gw2"}]}, "gateway gw2: no interface for inside"),
        (
            {"transports": [{"name": "satellite", "vip": "198.51.100.1", "vrrp_id": 20}]},
            "gateway gw1: no interface for transports.satellite",
        ),
    ],
)
def test_what_makes_no_group_is_refused(changes: dict[str, t.Any], text: str) -> None:
    with pytest.raises(vrrp.VrrpError, match=text):
        members(**changes)


def test_routes_of_the_owner_never_fail_the_gateway_with_their_device() -> None:
    routes = [{"prefix": "10.202.1.0/24", "device": "tun0"}, {"prefix": "10.202.2.0/24", "device": "tun1"}]
    assert vrrp.virtual_routes(routes=routes) == [
        "10.202.1.0/24 dev tun0 no_track",
        "10.202.2.0/24 dev tun1 no_track",
    ]
    assert vrrp.virtual_routes(routes=[{"prefix": "10.202.0.0/16"}]) == ["unreachable 10.202.0.0/16 no_track"]


@pytest.mark.parametrize(
    ("prefix", "device", "text"),
    [
        ("10.202.1.1/24", "tun0", "10.202.1.1/24 has host bits set: write prefixes as ADDRESS/LENGTH"),
        ("10.202.1.0/24", "tun0 table 7", "'tun0 table 7' is no name of a device"),
        ("10.202.9.0/24", "tun0", "10.202.9.0/24 stands there twice"),
    ],
)
def test_routes_that_cannot_be_written_are_refused(prefix: str, device: str, text: str) -> None:
    routes = [{"prefix": "10.202.9.0/24", "device": "tun0"}, {"prefix": prefix, "device": device}]
    with pytest.raises(vrrp.VrrpError, match=text):
        vrrp.virtual_routes(routes=routes)


def test_different_addresses_are_named_with_where_they_are() -> None:
    assert vrrp.vip_differences(own=["10.200.0.1", "198.19.0.1"], peer=["198.19.0.1", "10.200.0.9"]) == [
        "10.200.0.1 only here",
        "10.200.0.9 only on the other gateway",
    ]
    assert vrrp.vip_differences(own=["10.200.0.1", "198.19.0.1"], peer=["198.19.0.1", "10.200.0.1"]) == []


CONFIG = """
global_defs {
    router_id gw1
    vrrp_garp_master_refresh 30
}
vrrp_instance IN {  # inside
    priority 100
    advert_int 0.1
    virtual_ipaddress {
        10.200.0.1/32 dev inside0
    }
    virtual_routes {
        10.202.1.0/24 dev tun0 no_track
    }
}
vrrp_instance HB {
    virtual_ipaddress {
        169.254.40.1/32 dev lo scope host
    }
}
"""


def test_the_addresses_of_a_configuration_are_found_without_the_heartbeats_token() -> None:
    assert vrrp.config_vips(text=CONFIG) == ["10.200.0.1"]
    assert vrrp.config_vips(text="") == []


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("", "", "none"),
        ("# inside", "# the core LAN", "none"),
        ("    priority", "  priority", "none"),
        ("advert_int 0.1", "advert_int 0.2", "reload"),
        ("master_refresh 30", "master_refresh 60", "reload"),
        ("10.202.1.0/24 dev tun0", "10.202.2.0/24 dev tun1", "reload"),
        ("    virtual_routes {\n        10.202.1.0/24 dev tun0 no_track\n    }\n", "", "reload"),
        ("10.200.0.1/32", "10.200.0.9/32", "restart"),
        ("dev inside0", "dev eth1", "restart"),
        ("vrrp_instance IN", "vrrp_instance INSIDE", "restart"),
        ("router_id gw1", "router_id gw9", "restart"),
    ],
)
def test_only_timing_and_priority_are_taken_over_by_reload(old: str, new: str, kind: str) -> None:
    assert vrrp.change_kind(before=CONFIG, after=CONFIG.replace(old, new)) == kind
