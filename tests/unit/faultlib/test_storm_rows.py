# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a storm is judged: the last site, the flood, and the others beside it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from faultlib.storm_rows import SCENES, Result, missed, programs_text, row, table

SCENE = {one.name: one for one in SCENES}


def result(
    *, side: str = "ours", scene: str = "daemons", back: tuple[float, ...] = (6.0, 7.0), waited: float = 60.0
) -> Result:
    return Result(
        side=side,
        scene=scene,
        back={f"site-{number}": seconds for number, seconds in enumerate(back)},
        waited=waited,
        half_open=3,
        drops=0,
        packets=1000,
        cpu_daemons=0.5,
        cpu_clients=1.0,
        cpu_machine=3.0,
        busy=0.25,
    )


def judge(
    name: str, *, ours: Result, others: dict[str, Result] | None = None, calm: Result | None = None, slack: float = 1.0
) -> list[str]:
    return missed(scene=SCENE[name], results={"ours": ours} | (others or {}), calm=calm, slack=slack)


def test_the_last_site_decides() -> None:
    assert judge("daemons", ours=result(back=(1.0, 8.9))) == []
    assert judge("daemons", ours=result(back=(1.0, 9.0))) == ["last site 9.00 s, wanted < 9"]
    assert judge("daemons", ours=result(back=(1.0, 9.0)), slack=2) == []


def test_a_site_that_never_comes_back_is_a_miss_also_where_no_seconds_are_wanted() -> None:
    assert judge("frozen", ours=result(scene="frozen", back=(1.0, math.inf))) == ["1 sites did not come back"]


def test_a_site_that_lost_nothing_has_shown_nothing() -> None:
    assert judge("daemons", ours=result(back=(0.0, 7.0))) == [
        "1 sites lost nothing, so the scene was not made for them"
    ]


def test_a_flood_may_cost_half_as_much_again() -> None:
    calm = result(back=(6.0,))

    assert judge("junk", calm=calm, ours=result(scene="junk", back=(9.0,))) == []
    assert judge("junk", calm=calm, ours=result(scene="junk", back=(9.1,))) == [
        "last site 9.10 s, wanted 1.5 times 6.00"
    ]


@pytest.mark.parametrize(("side", "factor"), [("stock", 5), ("story", 25)])
def test_the_others_have_to_be_slower(side: str, factor: int) -> None:
    ours = result(back=(8.0,))

    assert judge("owner-dead", ours=ours, others={side: result(back=(8.0 * factor,), waited=400)}) == []
    assert judge("owner-dead", ours=ours, others={side: result(back=(8.0 * factor - 1,), waited=400)}) == [
        f"8.00 s is not {factor} times faster than {side}"
    ]


def test_who_did_not_come_back_counts_as_long_as_it_was_waited_for() -> None:
    ours, other = result(back=(8.0,)), result(back=(math.inf,), waited=30.0)

    assert judge("owner-dead", ours=ours, others={"stock": other}) == ["8.00 s is not 5 times faster than stock"]


def test_the_share_of_sites_is_by_their_number() -> None:
    one = result(back=tuple(float(number) for number in range(1, 101)))

    assert (one.share(0.99), one.share(0.01), one.last) == (99.0, 1.0, 100.0)


def test_the_table_says_that_something_never_came() -> None:
    lines = table([row(scene=SCENE["daemons"], result=result(back=(1.0, math.inf), waited=60.0))])

    assert "> 60" in lines[1]
    assert lines[0].split()[:2] == ["scene", "side"]


def test_who_used_the_processors_is_said_with_what_nobody_owned_up_to() -> None:
    programs = {"all": 10.0, "openvpn of the sites": 4.0, "systemd": 3.5} | {f"p{number}": 0.1 for number in range(9)}
    said = programs_text(replace(result(), programs=programs))

    assert said.startswith("10.0 s of processor time: openvpn of the sites 4.0, systemd 3.5, p0 0.1")
    assert said.endswith("the rest 2.0")
