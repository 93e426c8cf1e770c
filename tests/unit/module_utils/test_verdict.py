# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils.verdict import (
    DOWN,
    DUPLICATE_SESSION,
    HANDSHAKING,
    HELD,
    NEVER_SEEN,
    UP,
    WRONG_ADDRESS,
    WRONG_INSTANCE,
    Expected,
    Handshake,
    Session,
    Start,
    judge,
)

EXPECTED = Expected(site="site-0001", tunnel_address="10.101.0.16", instance="tun0")


def session(**different: Any) -> Session:
    values: dict[str, Any] = {
        "site": "site-0001",
        "gateway": "gw1",
        "owner": True,
        "instance": "tun0",
        "tunnel_address": "10.101.0.16",
        "real_address": "198.19.1.1:4711",
        "connected_since": 100,
        "bytes_received": 1,
        "bytes_sent": 1,
    }
    return Session(**{**values, **different})


@pytest.mark.parametrize(
    ("sessions", "verdict", "why"),
    [
        ([session()], UP, "connected to tun0 on gw1"),
        ([session(instance="tun1")], WRONG_INSTANCE, "connected to tun1 on gw1, the plan says tun0"),
        ([session(tunnel_address="10.101.0.17")], WRONG_ADDRESS, "tun0 on gw1 has it as 10.101.0.17, the plan says"),
        ([session(tunnel_address="")], WRONG_ADDRESS, "tun0 on gw1 has it as -, the plan says 10.101.0.16"),
        ([session(owner=False)], DOWN, "a stale one on gw1, which does not hold the VIPs"),
        ([], NEVER_SEEN, "no gateway has ever been seen with a session of it"),
        ([session(gateway="gw2"), session(owner=False)], UP, "connected to tun0 on gw2"),
        ([session(instance="tun1"), session(connected_since=200)], UP, "connected to tun0 on gw1"),
        (
            [session(instance="tun1", real_address="198.19.1.2:4711"), session(connected_since=200)],
            DUPLICATE_SESSION,
            "tun1 on gw1 has it from 198.19.1.2, and tun0 on gw1 from 198.19.1.1 at the same time",
        ),
        (
            [session(gateway="gw2", owner=False, real_address="198.19.1.2:4711"), session()],
            UP,
            "connected to tun0 on gw1",
        ),
    ],
)
def test_verdict(sessions: list[Session], verdict: str, why: str) -> None:
    judged = judge(expected=EXPECTED, sessions=sessions)

    assert judged.verdict == verdict
    assert why in judged.why


@pytest.mark.parametrize("sessions", [[], [session(owner=False)]])
def test_a_site_that_says_it_is_held_is_held(sessions: list[Session]) -> None:
    found = judge(expected=EXPECTED, sessions=sessions, seen_before=True, held="until noon by ann")

    assert (found.verdict, found.why, found.session) == (HELD, "until noon by ann", None)


def test_a_held_site_that_the_owner_has_a_session_of_is_said_to_be_connected() -> None:
    found = judge(expected=EXPECTED, sessions=[session()], seen_before=True, held="until noon by ann")

    assert (found.verdict, found.session) == (HELD, session())
    assert found.why == "until noon by ann, but still connected to tun0 on gw1"


def test_a_site_that_was_up_once_is_down_and_not_never_seen() -> None:
    assert judge(expected=EXPECTED, sessions=[], seen_before=True).verdict == DOWN


def test_a_handshake_from_its_last_address_counts_only_on_the_owner() -> None:
    def with_handshake(*, owner: bool) -> str:
        half = Handshake(gateway="gw1", owner=owner, instance="tun0", real_address="198.19.1.1:999")
        return judge(
            expected=EXPECTED, sessions=[], handshakes=[half], seen_before=True, last_real_host="198.19.1.1"
        ).verdict

    assert with_handshake(owner=True) == HANDSHAKING
    assert with_handshake(owner=False) == DOWN


LEASED, MPLS, DSL = "192.0.2.1", "198.51.100.1", "203.0.113.1"


@pytest.mark.parametrize(
    ("hosts", "transports", "verdict"),
    [
        # Networks that the plan does not know the addresses of: as many boxes as transports may be one box.
        ([MPLS, DSL, MPLS, DSL], 2, UP),
        ([MPLS, DSL, MPLS, DSL], 1, DUPLICATE_SESSION),
        ([MPLS, DSL, LEASED, MPLS], 2, DUPLICATE_SESSION),
        ([MPLS, DSL, LEASED], 2, UP),
    ],
)
def test_a_site_may_come_from_as_many_addresses_as_it_has_transports(
    hosts: list[str], transports: int, verdict: str
) -> None:
    starts = [
        Start(since=100 + turn, real_address=f"{host}:4711", daemon=f"gw1 tun0 {turn}")
        for turn, host in enumerate(hosts)
    ]
    expected = replace(EXPECTED, transports=transports)

    assert judge(expected=expected, sessions=[session()], starts=starts, now=110).verdict == verdict
