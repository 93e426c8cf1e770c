# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a check turns bad, when it is well again, what it weighs, and that a flapping or shared fault moves nothing."""

from __future__ import annotations

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils.health_rules import (
    LONGEST,
    MEMORY,
    MISSES,
    STANDBY_SUCCESSES,
    SUCCESSES,
    Hold,
    Subject,
    Verdict,
    hold,
    judge,
    role,
    weigh,
)

INTERVAL = 0.3


def after(seen: str, *, owner: bool = False, start: Verdict | None = None, now: float = 0.0) -> Verdict:
    """The verdict after looks at the interval from ``now`` on: + good, - a miss, . nothing to be said."""
    verdict = start or Verdict()
    for number, look in enumerate(seen):
        good = {"+": True, "-": False, ".": None}[look]
        verdict = judge(before=verdict, good=good, now=now + number * INTERVAL, interval=INTERVAL, owner=owner)
    return verdict


def looks_until_well(verdict: Verdict, *, now: float, owner: bool = False) -> int:
    for number in range(1, 1000):
        verdict = judge(before=verdict, good=True, now=now + number * INTERVAL, interval=INTERVAL, owner=owner)
        if verdict.well:
            return number
    raise AssertionError("never")


def test_nothing_is_known_before_something_was_seen() -> None:
    assert after("").well is None
    assert after("....").well is None
    assert after("+").well is True
    assert after("-" * (MISSES - 1)).well is None
    assert after("-" * MISSES).well is False


def test_three_misses_in_a_row_are_bad_and_two_are_not() -> None:
    well = after("+")

    assert after("--+--", start=well).well is True
    assert after("---", start=well).bad


def test_a_look_that_says_nothing_neither_counts_nor_interrupts() -> None:
    assert after("-..-", start=after("+")).well is True
    assert after("-.-.-", start=after("+")).bad


def test_the_standby_is_the_first_to_say_that_something_is_lost_and_the_last_that_it_is_back() -> None:
    verdicts = {"owner": after("+", owner=True), "standby": after("+")}
    changes = []
    for number, look in enumerate("-" * 6 + "+" * 30):
        for name, before in list(verdicts.items()):
            verdicts[name] = after(look, owner=name == "owner", start=before)
            if verdicts[name].well != before.well:
                changes.append((number, name))

    assert [name for _number, name in changes] == ["standby", "owner", "owner", "standby"]
    assert len({number for number, _name in changes}) == 4


def test_each_further_fall_takes_twice_as_long_to_be_forgiven() -> None:
    verdict, now, waited = after("+"), 0.0, []
    for _ in range(6):
        verdict = after("-" * MISSES, start=verdict, now=now)
        now += MISSES * INTERVAL
        looks = looks_until_well(verdict, now=now)
        verdict = after("+" * looks, start=verdict, now=now)
        now += looks * INTERVAL
        waited.append(looks)

    assert waited[:3] == [
        SUCCESSES + STANDBY_SUCCESSES,
        2 * SUCCESSES + STANDBY_SUCCESSES,
        4 * SUCCESSES + STANDBY_SUCCESSES,
    ]
    assert max(waited) <= LONGEST * SUCCESSES + STANDBY_SUCCESSES


def test_a_fall_of_long_ago_is_forgotten() -> None:
    verdict = after("-" * MISSES, start=after("+"))
    later = MEMORY * INTERVAL + 10
    verdict = after("+", start=Verdict(well=True, since=0, falls=verdict.falls), now=later)

    assert looks_until_well(after("-" * MISSES, start=verdict, now=later), now=later) == SUCCESSES + STANDBY_SUCCESSES


def moves(*, down: float, up: float, flaps: int) -> int:
    """How often the pair changes roles when a path of the first owner flaps; equal priorities, no failback."""
    subject = Subject(name="inside", penalty=40, any_of=("probe",))
    verdicts = {"gw1": after("+", owner=True), "gw2": after("+")}
    owner, changes = "gw1", 0
    total = int((down + up) * flaps / INTERVAL) + 60
    for number in range(total):
        now = number * INTERVAL
        lost = now < (down + up) * flaps and now % (down + up) < down
        scores = {}
        for name, before in verdicts.items():
            good = not lost or name != "gw1"
            verdicts[name] = judge(before=before, good=good, now=now, interval=INTERVAL, owner=name == owner)
            one = {"probe": verdicts[name]}
            scores[name] = weigh(subjects=[subject], verdicts=one, now=now, floor=-99, owner=name == owner).told
        best = max(scores, key=lambda name: scores[name])
        if scores[best] > scores[owner]:
            owner, changes = best, changes + 1
    return changes


@pytest.mark.parametrize(("down", "up"), [(0.7, 1.3), (1.6, 1.3), (3, 3), (2, 6), (1.5, 12)])
def test_six_flaps_change_the_roles_at_most_once(down: float, up: float) -> None:
    assert moves(down=down, up=up, flaps=6) <= 1


def test_a_path_with_two_probes_is_dead_only_when_both_are_silent() -> None:
    subject = Subject(name="inside", penalty=40, any_of=("carrier",), all_of=("a", "b"))
    well, bad = Verdict(well=True), Verdict(well=False)

    def value(**verdicts: Verdict) -> int:
        return weigh(subjects=[subject], verdicts=verdicts, now=1, floor=-99, owner=True).value

    assert value(carrier=well, a=bad, b=well) == 0
    assert value(carrier=well, a=bad, b=bad) == -40
    assert value(carrier=bad, a=well, b=well) == -40
    assert value(carrier=bad, a=bad, b=bad) == -40


def test_an_instance_counts_once_and_only_when_patience_has_run_out() -> None:
    subject = Subject(name="tun0", penalty=20, any_of=("instance", "carrier"), patience=10)
    verdicts = {"instance": Verdict(well=False, since=100), "carrier": Verdict(well=False, since=100)}

    def score(now: float) -> int:
        return weigh(subjects=[subject], verdicts=verdicts, now=now, floor=-99, owner=True).value

    assert score(109.9) == 0
    assert score(110) == -20


def test_the_sum_never_becomes_a_fault_and_says_whose_it_is() -> None:
    subjects = [Subject(name=name, penalty=40, any_of=(name,)) for name in "abc"]
    verdicts = {"a": Verdict(well=False), "b": Verdict(well=True), "c": Verdict(well=False)}

    assert weigh(subjects=subjects, verdicts=verdicts, now=1, floor=-99, owner=True).penalties == {"a": 40, "c": 40}
    assert (
        weigh(subjects=subjects, verdicts={**verdicts, "b": Verdict(well=False)}, now=1, floor=-99, owner=True).value
        == -99
    )


def test_a_second_transport_weighs_and_moves_nobody() -> None:
    subjects = [
        Subject(name="frame_relay", penalty=40, any_of=("first",)),
        Subject(name="internet", penalty=10, any_of=("second",), binding=False),
    ]
    bad = {"first": Verdict(well=True), "second": Verdict(well=False)}

    owner = weigh(subjects=subjects, verdicts=bad, now=1, floor=-99, owner=True)
    assert (owner.value, owner.told) == (-10, 0)
    standby = weigh(subjects=subjects, verdicts=bad, now=1, floor=-99, owner=False)
    assert (standby.value, standby.told) == (-10, -10)
    worse = weigh(subjects=subjects, verdicts={**bad, "first": Verdict(well=False)}, now=1, floor=-99, owner=True)
    assert (worse.value, worse.told) == (-50, -40)


def test_a_dead_core_router_leaves_both_gateways_alike_at_every_moment_that_counts() -> None:
    """The worse one is never the owner for longer than it takes the standby to notice, which is nothing."""
    subject = Subject(name="inside", penalty=40, any_of=("probe",))
    owner, standby = after("+", owner=True), after("+")
    for number in range(200):
        good = not 20 <= number < 90
        owner = judge(before=owner, good=good, now=number * INTERVAL, interval=INTERVAL, owner=True)
        standby = judge(before=standby, good=good, now=number * INTERVAL, interval=INTERVAL, owner=False)
        scores = [
            weigh(subjects=[subject], verdicts={"probe": one}, now=number * INTERVAL, floor=-99, owner=True).value
            for one in (owner, standby)
        ]
        assert scores[0] >= scores[1]


@pytest.mark.parametrize(
    ("held", "fault", "said"),
    [(3, False, "owner"), (3, True, "owner"), (1, False, "unknown"), (0, False, "standby"), (0, True, "fault")],
)
def test_the_role_follows_from_the_addresses(held: int, said: str, *, fault: bool) -> None:
    assert role(held=held, vips=3, fault=fault) == said


def test_a_hold_lasts_until_its_time_and_never_longer_than_thirty_seconds() -> None:
    first = hold(before=None, text="1010\n", wall=1000, now=50)
    assert first is not None
    assert first.until == 1010
    assert hold(before=first, text="1010\n", wall=1009.9, now=59.9) is not None
    assert hold(before=first, text="1010\n", wall=1010, now=60) is None

    far = hold(before=None, text="99999999999", wall=1000, now=50)
    assert far is not None
    assert far.until == 1030
    # The clock is set back meanwhile.
    assert hold(before=far, text="99999999999", wall=900, now=79.9) is not None
    assert hold(before=far, text="99999999999", wall=900, now=80) is None


@pytest.mark.parametrize("text", ["", "soon", "999", "nan", None])
def test_a_hold_that_names_no_time_to_come_is_none(text: str | None) -> None:
    assert hold(before=None, text=text, wall=1000, now=50) is None


def test_a_new_hold_replaces_the_old_one() -> None:
    old = Hold(text="1010", until=1010, latest=80)
    new = hold(before=old, text="1020", wall=1005, now=55)

    assert new is not None
    assert new.until == 1020
