# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and addresses of the lab."""

from __future__ import annotations

import ipaddress

import pytest

from lablib import topology
from lablib.errors import LabError


def test_every_address_and_mac_and_port_of_the_largest_lab_is_unique_and_in_a_lab_range() -> None:
    nics = [nic for host in topology.hosts(sites=topology.MAX_SITES) for nic in host.nics]
    for attribute in ("address", "mac", "port"):
        values = [getattr(nic, attribute) for nic in nics]
        assert len(set(values)) == len(values), attribute
    ranges = [ipaddress.ip_network(text) for text in topology.LAB_RANGES]
    assert all(any(ipaddress.ip_address(nic.address) in network for network in ranges) for nic in nics)


def test_a_providers_router_is_in_its_network_and_nobody_else() -> None:
    taken = {nic.address for host in topology.hosts(sites=topology.MAX_SITES) for nic in host.nics}
    routers = {network.name: network.router for network in topology.NETWORKS.values() if network.router}
    assert routers == {"frame_relay": "198.19.127.254", "internet": "198.19.255.254"}
    for name, router in routers.items():
        nic = topology.gateway(1).nic(name)
        assert ipaddress.ip_address(router) in ipaddress.ip_interface(nic.cidr).network
        assert router not in taken


def test_a_bridge_has_a_mac_of_its_own() -> None:
    macs = {nic.mac for host in topology.hosts(sites=topology.MAX_SITES) for nic in host.nics}
    bridges = [network.bridge_mac for network in topology.NETWORKS.values()]
    assert len(set(bridges)) == len(bridges)
    assert macs.isdisjoint(bridges)


def test_port_names_fit_what_the_kernel_allows() -> None:
    ports = [nic.port for host in topology.hosts(sites=topology.MAX_SITES) for nic in host.nics]
    assert max(len(port) for port in ports) <= 15


@pytest.mark.parametrize(
    ("number", "oob", "frame_relay", "internet", "lan"),
    [
        (1, "198.18.1.1", "198.19.1.1", "198.19.129.1", "10.202.1.0/24"),
        (250, "198.18.1.250", "198.19.1.250", "198.19.129.250", "10.202.250.0/24"),
        (251, "198.18.2.1", "198.19.2.1", "198.19.130.1", "10.202.251.0/24"),
        (256, "198.18.2.6", "198.19.2.6", "198.19.130.6", "10.203.0.0/24"),
        (420, "198.18.2.170", "198.19.2.170", "198.19.130.170", "10.203.164.0/24"),
    ],
)
def test_site_addresses(number: int, oob: str, frame_relay: str, internet: str, lan: str) -> None:
    site = topology.site(number)
    assert site.oob_address == oob
    assert site.nic("frame_relay").address == frame_relay
    assert site.nic("internet").address == internet
    assert topology.default_lan(number) == lan


def test_eight_sites_have_three_groups_and_one_canary() -> None:
    groups = [topology.group(number) for number in range(1, 9)]
    assert groups == ["canary", "north", "south", "north", "south", "north", "south", "north"]
    assert topology.group(21) == "canary"


def test_core_reaches_sites_by_the_inside_vip_and_has_no_outside() -> None:
    core = topology.core()
    assert core.routes == (("10.202.0.0/15", "10.200.0.1"), ("10.101.0.0/16", "10.200.0.1"))
    assert core.forwards
    assert [nic.network.name for nic in core.nics] == ["oob", "inside"]


@pytest.mark.parametrize("name", ["gw3", "site-0009", "site-9", "", "site-0000"])
def test_an_unknown_host_is_answered_with_the_valid_ones(name: str) -> None:
    with pytest.raises(LabError) as caught:
        topology.host(name=name, sites=8)
    assert str(caught.value) == f"The lab has no host '{name}'. It has: gw1, gw2, core1, site-0001 to site-0008."


def test_an_unknown_network_is_answered_with_the_valid_ones() -> None:
    with pytest.raises(LabError, match=r"no network 'lan'\. It has: oob, frame_relay, internet, inside\."):
        topology.network_named("lan")
    with pytest.raises(LabError, match=r"core1 has no network 'internet'\. It has: oob, inside\."):
        topology.core().nic("internet")


@pytest.mark.parametrize("sites", [0, -1, 421])
def test_a_lab_of_no_possible_size(sites: int) -> None:
    with pytest.raises(LabError, match=rf"--sites {sites}: the lab holds 1 to 420 sites\."):
        topology.hosts(sites=sites)
