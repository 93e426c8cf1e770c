# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A secret does not show itself, however it is asked."""

from __future__ import annotations

import copy
import json
import pickle
import traceback

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.secret import Secret

WORD = "correct-horse"


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{:>30}".format, "{!r}".format, "%s".__mod__, ascii])
def test_no_text_of_it_holds_the_word(show: object) -> None:
    assert callable(show)
    assert WORD not in show(Secret(WORD))
    assert "Secret(...)" in show(Secret(WORD))
    assert WORD not in repr({"key": [Secret(WORD)]})


@pytest.mark.parametrize("leave", [pickle.dumps, json.dumps, copy.copy, copy.deepcopy])
def test_it_does_not_leave_the_process(leave: object) -> None:
    assert callable(leave)
    with pytest.raises(TypeError):
        leave(Secret(WORD))


def test_a_crash_trace_with_local_variables_does_not_show_it() -> None:
    def crash(key: Secret) -> None:
        raise ValueError(f"cannot use {key}")

    try:
        crash(Secret(WORD))
    except ValueError as exc:
        trace = "".join(traceback.TracebackException.from_exception(exc, capture_locals=True).format())
    assert "Secret(...)" in trace
    assert WORD not in trace


def test_it_is_given_on_request_and_compared_by_its_word() -> None:
    assert Secret(WORD).reveal() == WORD
    assert Secret(WORD) == Secret(WORD)
    assert Secret(WORD) != Secret("wrong")
    assert Secret(WORD) != WORD
    with pytest.raises(TypeError, match="unhashable"):
        {Secret(WORD)}
