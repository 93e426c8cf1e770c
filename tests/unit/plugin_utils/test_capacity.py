# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From measured figures to limits: by numbers that are worked out here by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity import (
    Demand,
    Measured,
    Outlook,
    limiter_seconds,
    look_ahead,
    worst,
)

FIGURES = Measured(
    gateway="gw1",
    date="2026-11-27",
    cpu="a CPU",
    cores=4,
    kernel="6.1",
    openvpn="2.6.14",
    key_type="p256",
    handshakes=50,
    handshake_ms=3.5,
    handshake_wall_ms=12.0,
    handshake_bytes=6000,
    hook_ms=1.5,
    hook_p99_ms=4.0,
    first_packet_ms=0.02,
    mbit_per_core=500,
    buffer_limit=4194304,
    daemon_kb=10240,
    client_kb=160,
)


def ahead(
    sites: int, *, cores: int = 4, instances: int = 0, link: float = 0.0, keepalive: tuple[int, int] | None = None
) -> Outlook:
    demand = Demand(sites=sites, cores=cores, instances=instances, link_mbit=link, keepalive=keepalive)
    return look_ahead(measured=FIGURES, demand=demand)


def test_a_handshake_costs_its_own_work_and_the_wait_for_the_script() -> None:
    assert ahead(400).per_second == 200


# 5 ms each: 400 sites are 2 s of work, what one daemon finishes before a client repeats itself.
@pytest.mark.parametrize(
    ("sites", "cores", "link", "instances"),
    [(1, 4, 0.0, 1), (400, 4, 0.0, 1), (401, 4, 0.0, 2), (1000, 8, 0.0, 3), (10000, 8, 0.0, 8), (100, 4, 1000.0, 3)],
)
def test_instances_follow_from_handshakes_and_payload(sites: int, cores: int, link: float, instances: int) -> None:
    assert ahead(sites, cores=cores, link=link).values.instances == instances


def test_more_instances_than_cores_are_no_faster() -> None:
    assert ahead(400, cores=1, instances=4).recovery.cpu == 2.0
    assert ahead(400, cores=4, instances=4).recovery.cpu == 0.5


def test_the_limits_of_a_hundred_sites_on_each_daemon() -> None:
    values = ahead(400, instances=4).values

    assert (values.capacity, values.max_clients, values.connect_freq, values.connect_freq_initial) == (
        256,
        1024,
        256,
        1024,
    )
    # 256 * 4 * 2304 / 2 is a little more than 1 MiB.
    assert values.socket_buffer == 2097152
    assert (values.hand_window, values.spread, values.reconnects_per_second) == (30, 4, 140)


def test_a_few_more_sites_change_no_limit_that_would_restart_a_daemon() -> None:
    few, more = ahead(400, instances=4).values, ahead(500, instances=4).values

    assert replace(few, sites=500) == more


def test_the_fleets_own_storm_never_meets_its_limiters() -> None:
    for sites in (1, 63, 64, 65, 400, 4000, 100000):
        assert ahead(sites, cores=8).recovery.limiter == 0


@pytest.mark.parametrize(
    ("each", "connect_freq", "initial", "seconds"),
    [
        (100, 0, 0, 0.0),
        (100, 0, 100, 0.0),
        (400, 0, 100, 30.0),
        # The story: 200 sites at `connect-freq 2 1`. 100 bursts, 5 of them in 62 s.
        (200, 2, 0, 1178 + 30),
        (60, 20, 1000, 6.0),
    ],
)
def test_limiters_that_are_too_low_make_a_storm_longer(
    each: int, connect_freq: int, initial: int, seconds: float
) -> None:
    assert limiter_seconds(each=each, connect_freq=connect_freq, initial=initial) == seconds


def test_a_slow_link_slows_the_keepalive_and_the_recovery() -> None:
    fast, slow = ahead(1000, link=100), ahead(1000, link=2)

    assert (fast.values.keepalive_interval, fast.values.keepalive_timeout) == (2, 6)
    # 1000 pings of 90 bytes are 0.72 Mbit; 5 % of 2 Mbit/s carry them in 7.2 s.
    assert (slow.values.keepalive_interval, slow.values.keepalive_timeout) == (8, 24)
    # 1000 handshakes of 6000 bytes are 48 Mbit.
    assert slow.recovery.link == 24.0
    assert slow.recovery.seconds == 25 + 24


def test_nobody_gives_up_a_daemon_that_works_off_a_storm() -> None:
    # 2000 sites on one core are 10 s of work.
    values = ahead(2000, cores=1).values

    assert values.keepalive_timeout == 22
    assert (values.hand_window, values.spread) == (40, 10)


def test_what_the_operator_decided_stays() -> None:
    values = ahead(2000, cores=1, keepalive=(3, 12)).values

    assert (values.keepalive_interval, values.keepalive_timeout) == (3, 12)


@pytest.mark.parametrize(
    ("sites", "cores", "link", "limit"),
    [(400, 4, 0.0, "detection"), (4000, 1, 0.0, "detection"), (4000, 4, 2.0, "link"), (20000, 4, 0.0, "detection")],
)
def test_what_limits_a_recovery_is_named(sites: int, cores: int, link: float, limit: str) -> None:
    assert ahead(sites, cores=cores, link=link).recovery.limit == limit


def test_with_a_keepalive_that_is_set_cpu_can_be_the_limit() -> None:
    assert ahead(4000, cores=1, keepalive=(2, 6)).recovery.limit == "CPU"


def test_memory_grows_with_every_site() -> None:
    assert ahead(400, instances=2).memory_mb == 20 + 62.5


def test_of_two_gateways_the_slower_one_counts() -> None:
    other = replace(FIGURES, gateway="gw2", handshake_ms=7.0, cores=2, mbit_per_core=900, client_kb=100)

    both = worst([FIGURES, other])

    assert (both.cost_ms, both.cores, both.mbit_per_core, both.client_kb) == (8.5, 2, 500, 160)


def test_every_value_has_a_reason() -> None:
    outlook = ahead(400)
    named = {"keepalive" if name.startswith("keepalive") else name for name in vars(outlook.values)}

    assert named - {"sites"} == set(outlook.why)
