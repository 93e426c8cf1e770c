# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import gateway_routes as core

INSTANCES = [{"name": "tun0", "device": "tun0", "blocks": ["10.101.0.16/28"]}]
SITE = {"id": "site-0001", "instance": "tun0", "lans": ["10.202.1.0/24"]}
INTERFACES = {"oob": "oob0", "inside": "inside0", "transports": {"internet": "inet0"}}


def routes(**changes: t.Any) -> list[str]:
    given: dict[str, t.Any] = {
        "instances": INSTANCES,
        "sites": [SITE],
        "aggregates": ["10.101.0.0/16", "10.202.0.0/15", ""],
        "core_networks": ["10.200.0.0/24"],
        "core_next_hop": "",
        "inside_network": "10.200.0.0/24",
    }
    return [route.words() for route in core.routes(**(given | changes))]


def test_block_lan_and_aggregates() -> None:
    assert routes() == [
        "unreachable 10.101.0.0/16 metric 4000 proto 201",
        "10.101.0.16/28 dev tun0 scope link proto 201",
        "unreachable 10.202.0.0/15 metric 4000 proto 201",
        "10.202.1.0/24 dev tun0 scope link proto 201",
    ]


def test_core_beyond_the_inside_goes_by_its_router() -> None:
    found = routes(core_networks=["10.200.0.0/24", "10.0.0.0/16"], core_next_hop="10.200.0.10")
    assert found[0] == "10.0.0.0/16 via 10.200.0.10 proto 201"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"sites": [SITE | {"instance": "tun7"}]}, "site site-0001: instance 'tun7' is not one of tun0"),
        ({"sites": [SITE, SITE | {"id": "site-0002"}]}, r"wanted twice, first 10\.202\.1\.0/24"),
        ({"sites": [SITE | {"lans": ["10.202.1.7/24"]}]}, "lan of site site-0001: '10.202.1.7/24' is no IPv4 prefix"),
        ({"core_networks": ["10.0.0.0/16"]}, "core network 10.0.0.0/16 .* needs a next hop"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, t.Any], text: str) -> None:
    with pytest.raises(core.GatewayRoutesError, match=text):
        routes(**changes)


def test_sysctls_turn_redirects_off_on_every_interface() -> None:
    wanted = core.sysctls(interfaces=["oob0", "inside0"], socket_buffer=4096)
    assert wanted["net.ipv4.conf.inside0.send_redirects"] == 0
    assert wanted["net.core.rmem_max"] == 4096


@pytest.mark.parametrize(
    ("found", "here", "machine"),
    [
        ("net.ipv4.ip_forward = 1\nnet.core.rmem_max = 9000\n", [], []),
        ("net.ipv4.ip_forward = 0\nnet.core.rmem_max = 4096\n", ["net.ipv4.ip_forward = 1 (is 0)"], []),
        ("net.ipv4.ip_forward = 1\n", [], ["net.core.rmem_max = 4096 (is not there)"]),
        ("net.ipv4.ip_forward = 1\nnet.core.rmem_max = 100\n", [], ["net.core.rmem_max = 4096 (is 100)"]),
    ],
)
def test_limits_may_be_higher_and_belong_to_the_machine(found: str, here: list[str], machine: list[str]) -> None:
    wanted = {"net.ipv4.ip_forward": 1, "net.core.rmem_max": 4096}
    assert core.sysctl_differences(wanted=wanted, found=found) == {"here": here, "machine": machine}


def test_loopback_addresses_of_an_earlier_run() -> None:
    batch = "address replace 10.101.0.1/32 dev lo\nroute replace 10.202.1.0/24 dev tun0\n"
    assert core.loopback_addresses(batch=batch) == ["10.101.0.1/32"]


def test_accept_rules_name_interfaces_by_role() -> None:
    rule = {"interfaces": ["oob", "eth9"], "protocol": "tcp", "ports": [9100], "sources": ["198.51.100.0/24"]}
    assert core.accept_rules(rules=[rule], known=INTERFACES) == [
        'iifname { "oob0", "eth9" } ip saddr { 198.51.100.0/24 } tcp dport { 9100 } accept'
    ]


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({"interfaces": ["oob"]}, "rule 1: got interfaces; it takes"),
        ({"interfaces": ["oob"], "ports": [1], "port": 2}, "rule 1: got interfaces, port, ports"),
        ({"interfaces": ["oob"], "ports": [70000]}, "70000: a port is a number"),
        ({"interfaces": ["oob"], "ports": [1], "protocol": "sctp"}, "'sctp' is neither"),
        ({"interfaces": ["oob"], "ports": [1], "sources": ["x"]}, "'x' is no IPv4 prefix"),
    ],
)
def test_accept_rules_that_say_too_little_or_too_much(rule: dict[str, t.Any], text: str) -> None:
    with pytest.raises(core.GatewayRoutesError, match=text):
        core.accept_rules(rules=[rule], known=INTERFACES)
