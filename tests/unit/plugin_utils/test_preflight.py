# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.preflight import (
    gateway_problems,
    paths_to_try,
    silent_paths,
)

GATEWAY = {
    "name": "gw1",
    "cores": 2,
    "oob": {"interface": "oob0", "address": "198.18.0.1"},
    "inside": {"interface": "inside0", "address": "10.200.0.2"},
    "transports": {"frame_relay": {"interface": "fr0", "address": "198.19.0.2"}},
}


def link(name: str, *addresses: str, mtu: int = 1500) -> dict[str, Any]:
    return {
        "ifname": name,
        "mtu": mtu,
        "flags": ["UP", "LOWER_UP"],
        "addr_info": [{"local": address} for address in addresses],
    }


GOOD: dict[str, Any] = {
    "gateway": GATEWAY,
    "instances": [{"name": "tun0", "port": 1194}],
    "links": [link("oob0", "198.18.0.1"), link("inside0", "10.200.0.2", "10.200.0.1"), link("fr0", "198.19.0.2")],
    "sockets": 'UNCONN 0 0 0.0.0.0:1194 0.0.0.0:* users:(("openvpn",pid=7,fd=5))\n',
    "free_kib": 1_000_000,
    "cores": 2,
    "has_tun": True,
    "service_manager": "systemd",
    "transports": [{"name": "frame_relay", "mtu": 1500, "probes": ["198.19.127.254", "198.19.127.253"]}],
    "paths": [{"name": "frame_relay", "interface": "fr0", "address": "198.19.127.254", "mtu": 1500, "carried": 1500}],
}


def test_a_good_host_has_no_problem() -> None:
    assert gateway_problems(**GOOD) == []


@pytest.mark.parametrize(
    ("different", "text"),
    [
        ({"service_manager": "init"}, "gw1: process 1 is 'init', not systemd"),
        ({"has_tun": False}, "gw1: /dev/net/tun is not a device. Load the module"),
        ({"free_kib": 100}, "gw1: only 100 KiB free under /etc"),
        ({"cores": 1}, "gw1: has 1 cores, the plan says 2. Correct `gateways.gw1.cores`"),
        (
            {"links": GOOD["links"][1:]},
            "gw1: oob: there is no interface oob0 with an IPv4 address (there are: inside0,",
        ),
        (
            {"links": [*GOOD["links"][:2], link("fr0", "198.19.0.9")]},
            "gw1: frame_relay: interface fr0 has 198.19.0.9, the plan says 198.19.0.2",
        ),
        (
            {"links": [*GOOD["links"][:2], link("fr0", "198.19.0.2", mtu=1480)]},
            "gw1: frame_relay: interface fr0 takes packets of 1480 bytes, the plan says 1500. Raise the interface's",
        ),
        (
            {"paths": [{**GOOD["paths"][0], "carried": 1476}]},
            "packets of 1476 bytes in one piece, the plan says 1500. Have the provider mend it, or write `mtu: 1476`",
        ),
        (
            {"sockets": 'UNCONN 0 0 0.0.0.0:1194 0.0.0.0:* users:(("named",pid=7,fd=5))\n'},
            'gw1: UDP port 1194 of tun0 is taken by users:(("named",pid=7,fd=5)) at 0.0.0.0:1194. Stop it, or move',
        ),
    ],
)
def test_each_fault_says_what_and_what_to_do(different: dict[str, Any], text: str) -> None:
    (problem,) = gateway_problems(**{**GOOD, **different})

    assert text in problem


def test_all_faults_come_at_once() -> None:
    assert len(gateway_problems(**{**GOOD, "cores": 1, "has_tun": False, "links": []})) == 5


def test_a_port_that_only_ends_alike_is_free() -> None:
    sockets = 'UNCONN 0 0 0.0.0.0:11194 0.0.0.0:* users:(("named",pid=7,fd=5))\n'

    assert gateway_problems(**{**GOOD, "sockets": sockets}) == []


def test_every_probe_of_a_transport_is_tried() -> None:
    assert [path["address"] for path in paths_to_try(gateway=GATEWAY, transports=GOOD["transports"])] == [
        "198.19.127.254",
        "198.19.127.253",
    ]
    assert paths_to_try(gateway=GATEWAY, transports=GOOD["transports"])[0] == {
        "name": "frame_relay",
        "interface": "fr0",
        "address": "198.19.127.254",
        "mtu": 1500,
    }


def test_a_probe_that_is_silent_is_told_and_no_reason_to_refuse() -> None:
    silent = [{**GOOD["paths"][0], "carried": 0}]

    assert gateway_problems(**{**GOOD, "paths": silent}) == []
    (text,) = silent_paths(gateway="gw1", paths=silent)
    assert text.startswith("gw1: frame_relay: 198.19.127.254 does not answer")
    assert silent_paths(gateway="gw1", paths=GOOD["paths"]) == []
