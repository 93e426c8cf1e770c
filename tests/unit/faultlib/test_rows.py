# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judgement of bench/failover."""

from __future__ import annotations

import math

import pytest

from faultlib.rows import ROWS, Lap, Row, judge, seconds_text, table

BY_NAME = {row.name: row for row in ROWS}


def lap(
    *,
    vip: float = 0.1,
    sites: dict[str, float] | None = None,
    others: dict[str, float] | None = None,
    one_holder: bool = True,
) -> Lap:
    return Lap(
        owner="gw1",
        vip=vip,
        sites={"site-0001": 1.0, "site-0002": 1.5} if sites is None else sites,
        others=others or {},
        waited=62,
        one_holder=one_holder,
        load=0.5,
    )


def row(name: str) -> Row:
    return BY_NAME[name]


def test_the_worst_of_all_runs_counts_and_the_median_is_over_all_sites() -> None:
    found = judge(row=row("planned"), laps=[lap(vip=0.1), lap(vip=0.15, sites={"a": 0.5, "b": 1.9, "c": 0.6})])

    assert (found.vip, found.worst, found.median) == (0.15, 1.9, 1.0)
    assert found.missed == ()


@pytest.mark.parametrize(
    ("name", "bad", "words"),
    [
        ("planned", lap(vip=0.2), "VIP 0.20 s, wanted < 0.2"),
        ("planned", lap(sites={"a": 2.0}), "worst site 2.00 s, wanted < 2"),
        ("dead", lap(sites={"a": 1, "b": math.inf}), "a site did not work again"),
        ("dead", lap(vip=math.inf), "VIP never s, wanted < 0.6"),
        ("dead", lap(sites={}), "a site did not work again"),
        ("inside-cable", lap(one_holder=False), "not every address had one and the same holder in the end"),
        ("openvpn-frozen", lap(vip=2.5), "daemon anew 2.50 s, wanted < 2"),
        ("openvpn-killed", lap(others={"c": 0.4}), "a site of another daemon lost 0.40 s, wanted nothing"),
    ],
)
def test_every_miss_is_named(name: str, bad: Lap, words: str) -> None:
    found = judge(row=row(name), laps=[lap(), bad])

    assert words in found.missed


def test_a_killed_daemon_has_no_target_of_its_own() -> None:
    found = judge(row=row("openvpn-killed"), laps=[lap(vip=5, sites={"a": 9.0}, others={"b": 0.02})])

    assert found.missed == ()


def test_slack_widens_the_targets_and_excuses_nothing_else() -> None:
    slow = lap(vip=0.35, sites={"a": 3.9})
    assert judge(row=row("planned"), laps=[slow], slack=2.0).missed == ()
    assert len(judge(row=row("planned"), laps=[slow]).missed) == 2
    assert judge(row=row("planned"), laps=[lap(vip=0.41)], slack=2.0).missed == ("VIP 0.41 s, wanted < 0.4",)
    lost = judge(row=row("planned"), laps=[lap(sites={"a": math.inf})], slack=9.0)
    assert "a site did not work again" in lost.missed


def test_what_never_came_is_more_than_what_was_waited_for() -> None:
    assert seconds_text(math.inf, waited=62.4) == "> 62"
    assert seconds_text(math.inf) == "never"
    assert seconds_text(7.126, waited=62.4) == "7.13"


def test_the_table_has_stock_beside_ours() -> None:
    ours = [judge(row=row("dead"), laps=[lap(vip=0.33, sites={"a": 6.5})])]
    stock = {"dead": judge(row=row("dead"), laps=[lap(vip=3.6, sites={"a": math.inf})])}

    head, line = table(ours=ours, stock=stock)

    assert head.split()[0] == "fault"
    assert " ".join(line.split()) == "owner's host dead 0.33 < 0.6 6.50 < 9 6.50 3.60 > 62 > 62"
    assert table(ours=ours, stock={})[1].split()[-3:] == ["-", "-", "-"]
