# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines of a rollout while it runs, and the code it ends with."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_progress import RolloutProgress

ID = "20261126-2350-keys"


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def event(kind: str, **more: Any) -> dict[str, Any]:
    return {"event": kind, "rollout": ID, "waves": 3, "total": 40, "done": 0, "failed": 0, "parked": 0, **more}


def test_a_rollout_from_its_begin_to_its_end() -> None:
    clock = Clock()
    progress = RolloutProgress(clock=clock)
    said = []

    def happens(kind: str, after: float = 0, **more: Any) -> None:
        clock.now += after
        said.append(progress.line(event(kind, **more)).text)

    happens("opened")
    happens("wave_began", wave="canary", number=1, sites=2)
    happens("wave_ended", 8, wave="canary", number=1, sites=2, done=2)
    happens("wave_began", 600, wave="north", number=2, sites=20, done=2)
    happens("wave_ended", 36, wave="north", number=2, sites=20, done=20, failed=1, parked=1)
    happens("closed", done=37, failed=1, parked=2, exit_code=2, report="reports/x/report.html")

    assert said == [
        f"rollout {ID}: 40 sites in 3 waves: 0 of 40 sites done",
        f"rollout {ID}: wave 1 of 3, canary, begins with 2 sites",
        f"rollout {ID}: wave 1 of 3, canary, ended after 8 s: 2 of 40 sites done; about 2 min 32 s of work left",
        # What lies between two waves is no work: it does not make what is left look longer.
        f"rollout {ID}: wave 2 of 3, north, begins with 20 sites, about 1 min 20 s",
        (
            f"rollout {ID}: wave 2 of 3, north, ended after 36 s: 20 of 40 sites done, 1 failed, 1 parked;"
            " about 36 s of work left"
        ),
        f"rollout {ID}: ended, sites failed: 37 of 40 sites done, 1 failed, 2 parked; report: reports/x/report.html",
    ]
    assert progress.exit_code == 2


@pytest.mark.parametrize(
    ("events", "code"),
    [
        ([], 0),
        ([event("closed", exit_code=0)], 0),
        # What a rollout says last is what counts of it,
        ([event("wave_ended", exit_code=2), event("closed", exit_code=0)], 0),
        # and of two rollouts the graver one.
        ([event("closed", exit_code=3), event("closed", exit_code=0) | {"rollout": "another"}], 3),
        ([event("refused", exit_code=4)], 4),
        ([event("refused")], 4),
    ],
)
def test_the_exit_code(events: list[dict[str, Any]], code: int) -> None:
    progress = RolloutProgress()
    for one in events:
        progress.line(one)

    assert progress.exit_code == code


def test_a_refusal_says_what_the_result_says_on_one_line() -> None:
    line = RolloutProgress().line(event("refused", exit_code=4), message="eve@desk holds it\nsince \x1b[1m9:00")

    assert (line.text, line.mood) == (f"rollout {ID}: refused: eve@desk holds it since \\x1b[1m9:00", "bad")


def test_an_event_that_lacks_everything_is_no_crash() -> None:
    for kind in ("opened", "wave_began", "wave_ended", "closed", "refused", "something new", ""):
        assert RolloutProgress().line({"event": kind}).text.startswith(("rollout ", "refused:"))
