# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils.live_sessions import session_lans, stale_sessions
from ansible_collections.spokewright.fleet.plugins.module_utils.site_config import SiteEntry, read_sites

CLIENTS = (
    "HEADER\tCLIENT_LIST\tCommon Name\tReal Address\tVirtual Address\tVirtual IPv6 Address\tBytes Received\tBytes Sent"
    "\tConnected Since\tConnected Since (time_t)\tUsername\tClient ID\tPeer ID\tData Channel Cipher"
)
ROUTES = "HEADER\tROUTING_TABLE\tVirtual Address\tCommon Name\tReal Address\tLast Ref\tLast Ref (time_t)"


def client(name: str, address: str, number: int, real: str = "198.51.100.7:5000") -> str:
    return f"CLIENT_LIST\t{name}\t{real}\t{address}\t\t10\t10\tnow\t1795445820\tUNDEF\t{number}\t0\tAES-256-GCM"


def route(name: str, address: str) -> str:
    return f"ROUTING_TABLE\t{address}\t{name}\t198.51.100.7:5000\tnow\t1795445820"


def entries() -> tuple[SiteEntry, ...]:
    sites = [{"id": "a", "tunnel_address": "10.101.0.16", "instance": "tun0", "lans": ["10.202.1.0/24"]}]
    return read_sites(sites=sites, instances=["tun0"], network="10.101.0.0/16")


@pytest.mark.parametrize("real", ["198.51.100.7:5000", "udp4:198.51.100.7:5000"])
def test_a_session_whose_key_has_ended_is_ended_however_well_it_fits(real: str) -> None:
    lines = [CLIENTS, client("a", "10.101.0.16", 4, real), ROUTES, route("a", "10.202.1.0/24")]
    (session,) = stale_sessions(lines=lines, entries=entries(), ended={"a"})
    assert (session.client_id, session.why) == (4, "its key has ended")
    assert stale_sessions(lines=lines, entries=entries(), ended={"b"}) == ()


@pytest.mark.parametrize("real", ["198.51.100.7:5000", "udp4:198.51.100.7:5000"])
def test_a_session_as_planned_is_left_alone(real: str) -> None:
    lines = [
        CLIENTS,
        client("a", "10.101.0.16", 4, real),
        ROUTES,
        route("a", "10.101.0.16"),
        route("a", "10.202.1.0/24"),
        # Learnt from traffic, which is no iroute.
        route("a", "10.202.1.9C"),
    ]
    assert stale_sessions(lines=lines, entries=entries()) == ()


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([client("b", "10.101.0.17", 4)], "the plan does not place it on this instance"),
        (
            [client("a", "10.101.0.99", 4), ROUTES, route("a", "10.202.1.0/24")],
            "it has address 10.101.0.99 instead of 10.101.0.16",
        ),
        ([client("a", "10.101.0.16", 4)], "it serves LANs none instead of 10.202.1.0/24"),
        (
            [client("a", "10.101.0.16", 4), ROUTES, route("a", "10.202.8.0/24"), route("a", "10.202.1.0/24")],
            "it serves LANs 10.202.1.0/24, 10.202.8.0/24 instead of 10.202.1.0/24",
        ),
    ],
)
def test_a_session_that_differs_is_named_with_the_reason(lines: list[str], why: str) -> None:
    (session,) = stale_sessions(lines=[CLIENTS, *lines], entries=entries())
    assert (session.client_id, session.why) == (4, why)


def test_who_still_shakes_hands_is_left_alone() -> None:
    lines = [CLIENTS, client("UNDEF", "", 1), client("a", "", 2)]
    assert stale_sessions(lines=lines, entries=entries()) == ()


def test_the_table_s_columns_are_found_by_their_names() -> None:
    moved = "HEADER\tROUTING_TABLE\tNew Column\tCommon Name\tVirtual Address"
    lans = session_lans(lines=[moved, "ROUTING_TABLE\tx\ta\t10.202.1.0/24"])
    assert {name: [str(lan) for lan in found] for name, found in lans.items()} == {"a": ["10.202.1.0/24"]}
