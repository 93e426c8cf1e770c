# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What two healthy gateways answer to a thorough look, to be bent by each test."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_questions import planned_members

if TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet

VIPS = ["10.200.0.1", "192.168.32.1", "203.0.113.1"]
NOW = 5000.0


def health(*bad: str, score: int = 0, age: float = 1.0) -> dict[str, Any]:
    """A health daemon's file in which the named checks are bad."""
    checks = [
        {
            "name": name,
            "well": name not in bad,
            "since": 1.0,
            "penalty": 20,
            "detail": "no answer" if name in bad else "",
        }
        for name in dict.fromkeys(
            ("inside 10.200.0.10", "frame_relay 192.168.32.254", "instance tun0", "carrier tun0", *bad)
        )
    ]
    return {"time": NOW - age, "score": score, "role": "standby", "hold_until": None, "checks": checks}


def hardware(number: int) -> dict[str, str]:
    """The hardware addresses of a gateway's interfaces."""
    return {name: f"02:00:00:00:{at:02x}:{number:02x}" for at, name in enumerate(("oob0", "inside0", "fr0", "inet0"))}


def gateway(fleet: Fleet, *, number: int, owner: bool) -> dict[str, Any]:
    """One gateway's answer."""
    other = hardware(3 - number)
    heard = [[other[name]] if not owner else [] for name in ("inside0", "fr0", "inet0")]
    return {
        "time": NOW,
        "received": NOW + 0.2,
        "addresses": [*VIPS] if owner else [],
        "instances": [
            {"name": name, "pid": 7, "version": "OpenVPN 2.6.14", "clients": []} for name in ("tun0", "tun1")
        ],
        "echoes": [],
        "arp": dict(zip(VIPS, heard, strict=True)),
        "hardware": hardware(number),
        "agent": True,
        "score": 0,
        "health": health(),
        "hold": "",
        "software": {"kernel": "6.1", "openvpn": "2.6.14", "keepalived": "2.2.7"},
        "configs": {"keepalived.conf": "aa", "packet filter": "bb", "instance tun0": "cc"},
        "members": planned_members(fleet.plan),
        "keys": {"ca": "11", "tls-crypt-v2": "22", "certificates": []},
        "ccd": {"digest": "33", "count": 4},
        "denied": {"digest": "44", "count": 0},
        "crl": "",
    }


def healthy(fleet: Fleet) -> dict[str, Any]:
    """gw1 owns, gw2 stands by."""
    return {
        "gw1": gateway(fleet, number=1, owner=True),
        "gw2": gateway(fleet, number=2, owner=False),
    }


def bent(answers: dict[str, Any], **changes: dict[str, Any]) -> dict[str, Any]:
    """A copy in which some of a gateway's answers are others."""
    copied = copy.deepcopy(answers)
    for name, change in changes.items():
        copied[name].update(change)
    return copied
