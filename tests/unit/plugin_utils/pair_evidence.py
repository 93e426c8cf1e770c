# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gateways of a small fleet answer when they are asked for their sessions, to be bent by each test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible_collections.spokewright.fleet.plugins.plugin_utils.evidence import Evidence, assemble

if TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet

VIPS = ["10.200.0.1", "192.168.32.1", "203.0.113.1"]


def client(name: str, address: str, **different: Any) -> dict[str, Any]:
    row = {
        "common_name": name,
        "real_address": f"192.168.32.{address.rpartition('.')[2]}:4711",
        "virtual_address": address,
        "client_id": 1,
        "connected_since": 1000,
        "bytes_received": 10,
        "bytes_sent": 10,
        "cipher": "AES-256-GCM",
    }
    return {**row, **different}


def answer(
    *, vips: list[str], tun0: list[dict[str, Any]], tun1: list[dict[str, Any]], echoes: tuple[str, ...] = ()
) -> dict[str, Any]:
    return {
        "time": 1010.0,
        "addresses": ["127.0.0.1", *vips],
        "instances": [
            {"name": "tun0", "pid": 7, "version": "OpenVPN 2.6.14", "clients": tun0},
            {"name": "tun1", "pid": 8, "version": "OpenVPN 2.6.14", "clients": tun1},
        ],
        "echoes": list(echoes),
    }


def sessions_of(fleet: Fleet, instance: str) -> list[dict[str, Any]]:
    return [client(site.id, site.tunnel_address) for site in fleet.sites if site.instance == instance]


def healthy(fleet: Fleet) -> dict[str, dict[str, Any] | str]:
    everyone = tuple(site.tunnel_address for site in fleet.sites)
    return {
        "gw1": answer(vips=VIPS, tun0=sessions_of(fleet, "tun0"), tun1=sessions_of(fleet, "tun1"), echoes=everyone),
        "gw2": answer(vips=[], tun0=[], tun1=[]),
    }


KEYS = {
    "site-0001": {
        1: {"kid": "a" * 16, "state": "confirmed"},
        2: {"kid": "b" * 16, "state": "active"},
    }
}


def with_key(fleet: Fleet, kid: str, epoch: int) -> Evidence:
    answers = healthy(fleet)
    gw1 = answers["gw1"]
    assert isinstance(gw1, dict)
    gw1["keys"] = {"site-0001": [kid, epoch, 1000.0]}
    return assemble(fleet=fleet, answers=answers)
