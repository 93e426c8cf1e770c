# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils.kernel_routes import (
    Device,
    KernelRoutesError,
    Route,
    State,
    Wanted,
    boot_devices,
    boot_routes,
    difference,
    parse_addresses,
    parse_links,
    parse_routes,
)

TUN0 = Device(name="tun0", kind="tun", persistent=True, up=True, alias="spokewright")
TUN1 = Device(name="tun1", kind="tun", persistent=True, up=True, alias="spokewright")
ADDRESS = "10.101.0.1/32"
BLOCK = Route(destination="10.101.0.16/28", device="tun0")
LAN1 = Route(destination="10.202.1.0/24", device="tun0")
LAN2 = Route(destination="10.202.2.0/24", device="tun1")
REST = Route(destination="10.202.0.0/15", kind="unreachable", metric=4000)
ALL = (BLOCK, LAN1, LAN2, REST)


def wanted(
    *routes: Route, devices: tuple[str, ...] = ("tun0", "tun1"), addresses: tuple[str, ...] = (ADDRESS,)
) -> Wanted:
    return Wanted(devices=devices, addresses=addresses, routes=routes)


def found(*routes: Route, devices: tuple[Device, ...] = (TUN0, TUN1), addresses: tuple[str, ...] = (ADDRESS,)) -> State:
    return State(devices=devices, addresses=addresses, routes=routes)


def test_nothing_to_do_runs_nothing() -> None:
    change = difference(wanted=wanted(*ALL), found=found(*ALL))
    assert change.commands == ()
    assert sorted(change.before) == sorted(change.after)


def test_one_changed_lan_touches_that_route_alone() -> None:
    new = Route(destination="10.203.9.0/24", device="tun0")
    change = difference(wanted=wanted(BLOCK, new, LAN2, REST), found=found(*ALL))
    assert change.commands == (
        "route replace 10.203.9.0/24 dev tun0 scope link proto 201",
        "route del 10.202.1.0/24 dev tun0 scope link proto 201",
    )


def test_a_block_that_moves_is_replaced_in_place_and_never_deleted() -> None:
    moved = Route(destination=BLOCK.destination, device="tun1")
    change = difference(wanted=wanted(moved, LAN1, LAN2, REST), found=found(*ALL))
    assert change.commands == ("route replace 10.101.0.16/28 dev tun1 scope link proto 201",)


def test_a_removed_instance_takes_its_device_with_it_last() -> None:
    change = difference(wanted=wanted(BLOCK, LAN1, REST, devices=("tun0",)), found=found(*ALL))
    assert change.commands == ("route del 10.202.2.0/24 dev tun1 scope link proto 201", "link del dev tun1")


def test_a_device_of_somebody_else_is_left_alone() -> None:
    theirs = Device(name="tun9", kind="tun", persistent=True, up=True, alias="")
    assert difference(wanted=wanted(*ALL), found=found(*ALL, devices=(TUN0, TUN1, theirs))).commands == ()


def test_an_empty_host_gets_devices_before_routes() -> None:
    change = difference(wanted=wanted(LAN1, devices=("tun0",)), found=State(devices=(), addresses=(), routes=()))
    assert change.commands == (
        "tuntap add dev tun0 mode tun",
        "link set dev tun0 alias spokewright",
        "link set dev tun0 up",
        "address replace 10.101.0.1/32 dev lo",
        "route replace 10.202.1.0/24 dev tun0 scope link proto 201",
    )


def test_an_earlier_server_address_goes_but_a_beacon_stays() -> None:
    change = difference(
        wanted=wanted(*ALL, addresses=("10.110.0.1/32",)),
        found=found(*ALL, addresses=(ADDRESS, "10.255.255.1/32")),
        stale_addresses=(ADDRESS,),
    )
    assert change.commands == ("address replace 10.110.0.1/32 dev lo", f"address del {ADDRESS} dev lo")


@pytest.mark.parametrize(
    ("device", "text"),
    [
        (Device("tun0", "bridge", persistent=False, up=True, alias=""), "tun0 exists and is a bridge, not a tun"),
        (Device("tun0", "tun", persistent=False, up=True, alias=""), "stop openvpn-server@tun0"),
    ],
)
def test_a_device_that_cannot_be_ours_is_refused(device: Device, text: str) -> None:
    with pytest.raises(KernelRoutesError, match=text):
        difference(wanted=wanted(), found=found(devices=(device,)))


def test_boot_files_hold_the_same_state() -> None:
    plan = wanted(*ALL)
    assert boot_devices(plan)[0] == "tuntap add dev tun0 mode tun"
    assert boot_routes(plan)[-1] == "route replace unreachable 10.202.0.0/15 metric 4000 proto 201"


def test_the_kernels_own_words_are_understood() -> None:
    links = [
        {"ifname": "lo", "flags": ["LOOPBACK", "UP"]},
        {
            "ifname": "tun0",
            "flags": ["NO-CARRIER", "UP"],
            "ifalias": "spokewright",
            "linkinfo": {"info_kind": "tun", "info_data": {"type": "tun", "persist": True}},
        },
    ]
    assert parse_links(json.dumps(links))[1] == TUN0
    loopback = [{"addr_info": [{"local": "127.0.0.1", "prefixlen": 8}, {"local": "10.101.0.1", "prefixlen": 32}]}]
    assert parse_addresses(json.dumps(loopback)) == (ADDRESS,)
    rows = [
        {"dst": "10.202.1.0/24", "dev": "tun0", "protocol": "201", "scope": "253", "flags": ["linkdown"]},
        {"type": "7", "dst": "10.202.0.0/15", "dev": "lo", "protocol": "201", "metric": 4000, "flags": []},
        {"dst": "10.9.9.9", "gateway": "10.200.0.10", "dev": "inside0", "flags": []},
        {},
    ]
    assert set(parse_routes(json.dumps(rows))) >= {LAN1, REST}


def test_an_ip_that_speaks_no_json_is_named() -> None:
    with pytest.raises(KernelRoutesError, match=r"ip route show: .*iproute2 4\.14"):
        parse_routes("10.0.0.0/8 dev tun0")


def test_devices_get_the_mtu_that_is_wanted_and_keep_theirs_when_none_is() -> None:
    plan = Wanted(devices=("tun0", "tun1"), addresses=(ADDRESS,), routes=ALL, mtu=1424)
    state = found(*ALL, devices=(replace(TUN0, mtu=1500), replace(TUN1, mtu=1424)))

    change = difference(wanted=plan, found=state)

    assert change.commands == ("link set dev tun0 mtu 1424",)
    assert set(change.after).difference(change.before) == {"device tun0 mtu 1424"}
    assert "link set dev tun0 mtu 1424" in boot_devices(plan)
    assert difference(wanted=replace(plan, mtu=0), found=state).commands == ()
