# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Ansible gets to see of a fleet. Roles and playbooks depend on every name here."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.inventory_view import InventoryView, build_view
from unit.plugin_utils.fleet_files import PLAN, SITES, host_key, write_fleet

if TYPE_CHECKING:
    from pathlib import Path


def view(folder: Path) -> InventoryView:
    return build_view(fleet=load_fleet(plan_file=write_fleet(folder)))


def test_groups(tmp_path: Path) -> None:
    groups = view(tmp_path).groups

    assert {name: (group.children, group.hosts) for name, group in groups.items()} == {
        "all": ([], []),
        "gateways": ([], ["gw1", "gw2"]),
        "sites": (["canary", "north"], []),
        "canary": ([], ["site-0001"]),
        "north": ([], ["site-0002", "site-0003", "site-0004"]),
        "instance_tun0": ([], ["site-0001", "site-0003"]),
        "instance_tun1": ([], ["site-0002", "site-0004"]),
    }


def test_variables_of_all(tmp_path: Path) -> None:
    assert view(tmp_path).groups["all"].variables == {
        "fleet_name": "test",
        "fleet_plan_file": str(tmp_path / "test.fleet.yml"),
        "fleet_key_store": str(tmp_path / "keystore"),
        "fleet_key_store_key": str(tmp_path / "keystore.key"),
        "fleet_groups": ["canary", "north"],
        "fleet_policies": {"gate_seconds": 60, "deadman_seconds": 120, "advert_seconds": 0.1},
        "fleet_tunnels": {
            "mode": "single",
            "network": "10.101.0.0/24",
            "netmask": "255.255.255.0",
            "prefix": 24,
            "server_address": "10.101.0.1",
            "second_network": "10.102.0.0/24",
            "keepalive": {"interval": 2, "timeout": 6},
            "block_prefix": 28,
            "key_type": "p256",
            "tun_mtu": 1500,
            "mssfix": 1400,
            "control_packet": 1250,
        },
        "fleet_inside": {
            "network": "10.200.0.0/24",
            "vip": "10.200.0.1",
            "vrrp_id": 10,
            "core_networks": ["10.200.0.0/24", "10.201.0.0/24"],
            "core_next_hop": "10.200.0.10",
            "probes": ["10.200.0.10"],
        },
        "fleet_transports": [
            {
                "name": "frame_relay",
                "network": "192.168.32.0/24",
                "vip": "192.168.32.1",
                "vrrp_id": 20,
                "probes": [],
                "mtu": 1500,
            },
            {
                "name": "internet",
                "network": "203.0.113.0/24",
                "vip": "203.0.113.1",
                "vrrp_id": 30,
                "probes": [],
                "mtu": 1500,
            },
        ],
        "fleet_routing": {
            "protocol": "static",
            "bfd": False,
            "area": None,
            "hello_seconds": None,
            "dead_seconds": None,
            "local_as": None,
            "peer_as": None,
            "neighbors": [],
        },
        "fleet_oob": {"network": "172.20.0.0/16", "vrrp_id": 40},
        "fleet_site_networks": ["10.64.0.0/14"],
    }


def test_variables_of_the_gateways(tmp_path: Path) -> None:
    found = view(tmp_path)

    variables = found.groups["gateways"].variables
    assert variables["fleet_instances"] == [
        {"name": "tun0", "index": 0, "port": 1194, "device": "tun0", "blocks": ["10.101.0.16/28"]},
        {"name": "tun1", "index": 1, "port": 1195, "device": "tun1", "blocks": ["10.101.0.32/28"]},
    ]
    assert variables["fleet_sites"][1] == {
        "id": "site-0002",
        "tunnel_address": "10.101.0.32",
        "instance": "tun1",
        "lans": ["10.64.2.0/24"],
    }
    assert variables["fleet_gateway_names"] == ["gw1", "gw2"]
    assert variables["fleet_announced"] == []
    gateway = found.hosts["gw1"]
    shape = {
        "name": "gw1",
        "cores": 2,
        "oob": {"interface": "oob0", "address": "172.20.0.1"},
        "inside": {"interface": "inside0", "address": "10.200.0.2"},
        "transports": {
            "frame_relay": {"interface": "fr0", "address": "192.168.32.2"},
            "internet": {"interface": "inet0", "address": "203.0.113.2"},
        },
    }
    assert gateway["fleet_gateway"] == shape
    assert found.hosts["gw2"]["fleet_gateway_peers"] == [shape]
    assert gateway["ansible_host"] == "172.20.0.1"


def test_variables_of_a_site(tmp_path: Path) -> None:
    variables = view(tmp_path).hosts["site-0001"]

    assert variables.pop("ansible_ssh_common_args").startswith("-o HostKeyAlias=site-0001 ")
    assert variables == {
        "ansible_host": "172.20.1.1",
        "ansible_port": 22,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(tmp_path / "id_ed25519"),
        "fleet_site_id": "site-0001",
        "fleet_site_group": "canary",
        "fleet_site_lans": ["10.64.1.0/24"],
        "fleet_site_transports": ["frame_relay", "internet"],
        "fleet_oob_address": "172.20.1.1",
        "fleet_tunnel_address": "10.101.0.16",
        "fleet_tunnel_block": "10.101.0.16/28",
        "fleet_tunnel_instance": "tun0",
        "fleet_tunnel_port": 1194,
        "fleet_tunnel_remotes": [
            {"transport": "frame_relay", "address": "192.168.32.1", "port": 1194},
            {"transport": "internet", "address": "203.0.113.1", "port": 1194},
        ],
        "fleet_tunnels_of_site": [{"instance": "tun0", "address": "10.101.0.16", "port": 1194}],
        "fleet_timers": {"connect_retry": 1, "connect_retry_max": 6, "server_poll_timeout": 3, "hand_window": 16},
    }


def test_ssh_trusts_the_pinned_key_only(tmp_path: Path) -> None:
    words = shlex.split(view(tmp_path).hosts["site-0001"]["ansible_ssh_common_args"])

    assert words[0::2] == ["-o"] * (len(words) // 2)
    options = dict(option.split("=", 1) for option in words[1::2])
    assert options == {
        "HostKeyAlias": "site-0001",
        "KnownHostsCommand": f"/bin/echo site-0001 {host_key('site-0001')}",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": "none",
        "GlobalKnownHostsFile": "none",
        "UpdateHostKeys": "no",
        "CheckHostIP": "no",
        "PasswordAuthentication": "no",
        "IdentitiesOnly": "yes",
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
    }


def test_ssh_goes_through_the_bastion_but_to_a_site_that_is_reached_directly(tmp_path: Path) -> None:
    plan = PLAN.replace(
        "private_key_file: id_ed25519}",
        f"private_key_file: id_ed25519, bastion: {{address: 192.0.2.9, host_key: {host_key('bastion')}}}}}",
    )
    sites = SITES.replace("10.64.3.0/24,", "10.64.3.0/24,oob_bastion=none oob_client=openssh")
    hosts = build_view(fleet=load_fleet(plan_file=write_fleet(tmp_path, plan=plan, sites=sites))).hosts

    def options(host: str) -> dict[str, str]:
        words = shlex.split(hosts[host]["ansible_ssh_common_args"])
        return dict(word.split("=", 1) for word in words[1::2])

    for host in ("gw1", "site-0001"):
        proxy = shlex.split(options(host)["ProxyCommand"])
        assert proxy[0] == "ssh"
        assert f"KnownHostsCommand=/bin/echo ssh.bastion {host_key('bastion')}" in proxy
        assert proxy[-9:] == [
            *("-i", str(tmp_path / "id_ed25519"), "-l", "root", "-p", "22"),
            *("-W", "%h:%p", "192.0.2.9"),
        ]
        assert "KexAlgorithms" not in options(host)
    assert "ProxyCommand" not in options("site-0003")
    assert options("site-0003")["HostKeyAlgorithms"] == "+ssh-rsa"


def test_the_owner_announces_the_sites_where_the_core_is_told_by_a_protocol(tmp_path: Path) -> None:
    plan = PLAN.replace("groups: [canary", "routing: {protocol: ospf}\ngroups: [canary")
    variables = build_view(fleet=load_fleet(plan_file=write_fleet(tmp_path, plan=plan))).groups["gateways"].variables

    assert [one["prefix"] for one in variables["fleet_announced"]] == [
        "10.64.0.0/15",
        "10.66.0.0/15",
        "10.101.0.0/25",
        "10.101.0.128/25",
    ]
