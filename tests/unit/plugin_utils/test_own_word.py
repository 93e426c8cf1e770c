# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made of a site's answer, and of none."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import SiteResult
from ansible_collections.spokewright.fleet.plugins.plugin_utils.own_word import OwnWord, own_word

HELD = [{"generation": 3, "facts": {"epoch": 2}}, {"generation": 4, "facts": {"epoch": 3}}, {"generation": 5}]


@pytest.mark.parametrize(
    ("receipt", "word"),
    [
        ({"current": 4, "generations": HELD}, OwnWord(up=True, generation=4, epoch=3)),
        ({"current": 5, "generations": HELD}, OwnWord(up=True, generation=5)),
        ({"current": 0, "generations": []}, OwnWord(up=True)),
        ({}, OwnWord(up=True)),
    ],
)
def test_a_site_that_answers_says_what_it_runs(receipt: dict[str, Any], word: OwnWord) -> None:
    assert own_word(SiteResult(site="site-0001", ok=True, receipt=receipt)) == word


def test_a_site_says_that_it_is_held_and_until_when() -> None:
    receipt = {"current": 4, "generations": HELD, "held": 600, "held_by": "ann@desk", "held_reason": "storm"}
    hold = own_word(SiteResult(site="site-0001", ok=True, receipt=receipt)).hold

    assert hold is not None
    assert (hold.by, hold.reason) == ("ann@desk", "storm")
    assert 590 <= hold.end - time.time() <= 601


@pytest.mark.parametrize("reason", ["unreachable", "auth-refused", "no-receipt", "not-tried"])
def test_a_site_that_does_not_answer_has_a_reason_and_one_that_nobody_tried_was_not_asked(reason: str) -> None:
    word = own_word(SiteResult(site="site-0001", ok=False, reason=reason, message="site-0001: why"))

    assert word == OwnWord(asked=reason != "not-tried", up=False, reason=reason, message="site-0001: why")
