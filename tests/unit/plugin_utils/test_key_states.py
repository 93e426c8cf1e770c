# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of a site's keys it is to work with."""

from __future__ import annotations

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_states import in_force, newest_of


@pytest.mark.parametrize(
    ("states", "epoch"),
    [
        ([], 0),
        (["confirmed"], 1),
        (["retired", "confirmed"], 2),
        (["confirmed", "issued"], 2),
        # A rotation was aborted, and what it had made has ended.
        (["confirmed", "retired"], 1),
        (["retired", "confirmed", "retired", "revoked"], 2),
        # It was revoked as a whole.
        (["revoked", "revoked"], 2),
    ],
)
def test_a_site_is_to_work_with_its_newest_key_that_has_not_ended(states: list[str], epoch: int) -> None:
    assert newest_of({number: {"state": state} for number, state in enumerate(states, start=1)}) == epoch


def test_no_key_is_in_force_where_every_one_has_ended() -> None:
    assert in_force({1: {"state": "retired"}, 2: {"state": "revoked"}}) == 0
    assert in_force({1: {"state": "confirmed"}, 2: {"state": "retired"}}) == 1
