# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is noted while addresses move, and that a request is taken back."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils import pair_watch
from ansible_collections.spokewright.fleet.plugins.module_utils.pair_watch import Echoes, Watch

if TYPE_CHECKING:
    from pathlib import Path

VIP = "10.200.0.1"
HERE = f"5: inside0    inet {VIP}/32 scope global inside0\\       valid_lft forever preferred_lft forever"


def test_addresses_come_and_go_once_each() -> None:
    seen = Watch(vips=[VIP])
    for number, line in enumerate((HERE, HERE, f"Deleted {HERE}", f"Deleted {HERE}", HERE)):
        seen.address_line(line, now=float(number))

    assert seen.events == [(0.0, "got", VIP), (2.0, "lost", VIP), (4.0, "got", VIP)]
    assert seen.held == {VIP}


@pytest.mark.parametrize(
    "line",
    [
        f"1: lo    inet {VIP}/32 scope global lo",
        "5: inside0    inet 10.200.0.2/24 scope global inside0",
        "5: inside0    inet6 fe80::1/64 scope link",
        "",
    ],
)
def test_the_loopback_and_other_addresses_do_not_count(line: str) -> None:
    seen = Watch(vips=[VIP])
    seen.address_line(line, now=1.0)

    assert (seen.held, seen.events) == (set(), [])


def test_the_longest_hole_between_answers_is_kept() -> None:
    one = Echoes()
    for sent in (1.0, 1.5, 4.0, 4.1):
        one.heard(sent)

    assert (one.first, one.last, one.count, one.hole) == (1.0, 4.1, 4, 2.5)


def test_answers_before_the_addresses_came_do_not_count() -> None:
    seen = Watch(vips=[VIP], echoes={"10.101.0.16": Echoes()})
    seen.echoes["10.101.0.16"].heard(1.0)
    assert seen.all_answered()
    seen.address_line(HERE, now=2.0)
    assert not seen.all_answered()
    seen.echoes["10.101.0.16"].heard(2.1)
    assert seen.all_answered()


@pytest.mark.parametrize(
    ("age", "way", "content"), [(1.0, "hold", None), (60.0, "score", "0\n"), (None, "score", "0\n")]
)
def test_the_request_is_taken_back_whatever_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float | None, way: str, content: str | None
) -> None:
    monkeypatch.setattr(pair_watch, "RUN", tmp_path)
    (tmp_path / "score").write_text("0\n", encoding="ascii")
    if age is not None:
        (tmp_path / "health.json").write_text(json.dumps({"time": time.time() - age}), encoding="ascii")

    with contextlib.suppress(RuntimeError), pair_watch.giving(seconds=20) as gave:
        assert gave["way"] == way
        asked = (tmp_path / way).read_text(encoding="ascii")
        assert asked == "-254\n" if way == "score" else 15 < float(asked) - time.time() < 25
        raise RuntimeError

    left = tmp_path / way
    assert (left.read_text(encoding="ascii") if left.exists() else None) == content
