# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose turn it is follows from the keys, whatever an earlier run had in mind."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.rotation import denied, reasons_of, retirable, turns

NOW = dt.datetime(2026, 6, 1, 12, 0, tzinfo=dt.UTC)


def key(epoch: int, state: str, *, days: int = 10) -> dict[str, Any]:
    issued = (NOW - dt.timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"epoch": epoch, "kid": f"{epoch:016x}", "state": state, "times": {"issued": issued}}


def turn(*keys: dict[str, Any], reason: str = "", made_for: str = "", days: int = 90) -> tuple[str, str]:
    epochs = {one["epoch"]: one for one in keys}
    reasons = {("site-0001", max(epochs, default=0)): made_for}
    found = turns(
        index={"site-0001": epochs} if keys else {},
        reasons=reasons,
        sites=["site-0001"],
        reason=reason,
        days=days,
        now=NOW,
    )["site-0001"]
    return found.kind, found.why


@pytest.mark.parametrize(
    ("keys", "more", "kind", "why"),
    [
        ([], {}, "no key", "it has no key yet: site.yml makes its first one"),
        ([key(1, "confirmed")], {}, "done", "its key of epoch 1 is 10 days old, due at 90"),
        ([key(1, "confirmed", days=90)], {}, "due", "its key of epoch 1 is 90 days old, due at 90"),
        ([key(1, "confirmed", days=91)], {"days": 365}, "done", "its key of epoch 1 is 91 days old, due at 365"),
        ([key(1, "confirmed")], {"reason": "lost"}, "due", "lost (epoch 1)"),
        ([key(1, "retired"), key(2, "confirmed")], {"reason": "lost"}, "due", "lost (epoch 2)"),
        (
            [key(1, "retired"), key(2, "confirmed")],
            {"reason": "lost", "made_for": "lost"},
            "done",
            "its key of epoch 2 was made for 'lost'",
        ),
        # What a run that was killed leaves, at each of its steps.
        *(
            (
                [key(1, "confirmed"), key(2, state)],
                {"reason": "again", "made_for": "again"},
                "under way",
                f"its key of epoch 2 is {state}",
            )
            for state in ("issued", "accepted", "staged", "active")
        ),
        (
            [key(1, "confirmed"), key(2, "confirmed")],
            {"reason": "again", "made_for": "again"},
            "under way",
            "its key of epoch 1 is not retired yet",
        ),
        # Another reason wants another key, unless the newest one never left the key store.
        *(
            ([key(1, "confirmed"), key(2, state)], {"reason": "other", "made_for": "again"}, "due", "other (epoch 2)")
            for state in ("accepted", "staged", "active", "confirmed")
        ),
        ([key(1, "confirmed"), key(2, "issued")], {"reason": "other"}, "under way", "its key of epoch 2 is issued"),
        ([key(1, "confirmed"), key(2, "confirmed")], {}, "under way", "its key of epoch 1 is not retired yet"),
        ([key(1, "confirmed", days=400), key(2, "issued")], {}, "under way", "its key of epoch 2 is issued"),
        ([key(1, "revoked")], {}, "due", "its newest key, of epoch 1, is revoked"),
    ],
)
def test_turn(keys: list[dict[str, Any]], more: dict[str, Any], kind: str, why: str) -> None:
    assert turn(*keys, **more) == (kind, why)


def test_only_what_lies_before_a_confirmed_key_can_be_retired() -> None:
    def of(*keys: dict[str, Any]) -> list[int]:
        return retirable({one["epoch"]: one for one in keys})

    assert of() == []
    assert of(key(1, "confirmed")) == []
    assert of(key(1, "confirmed"), key(2, "active")) == []
    assert of(key(1, "confirmed"), key(2, "confirmed")) == [1]
    # A key that never reached its site goes as well, or a box that was off for two rotations could still bring it.
    assert of(key(1, "confirmed"), key(2, "issued"), key(3, "confirmed")) == [1, 2]
    assert of(key(1, "destroyed"), key(2, "retired"), key(3, "staged"), key(4, "confirmed")) == [3]


def test_every_key_that_ended_is_denied_and_no_other() -> None:
    states = ["destroyed", "revoked", "retired", "confirmed", "active", "staged", "accepted", "issued"]
    epochs = {number: key(number, state) for number, state in enumerate(states, start=1)}
    assert denied({"site-0001": epochs, "site-0002": {}}) == [f"{number:016x}" for number in (1, 2, 3)]


def test_reasons_come_from_the_lines_that_made_keys() -> None:
    lines = [
        {"event": "ca-made", "site": "", "epoch": 0, "reason": "x"},
        {"event": "issued", "site": "a", "epoch": 1, "reason": ""},
        {"event": "issued", "site": "a", "epoch": 2, "reason": "lost"},
        {"event": "confirmed", "site": "a", "epoch": 2, "reason": "y"},
    ]
    assert reasons_of(lines) == {("a", 1): "", ("a", 2): "lost"}
