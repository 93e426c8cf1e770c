# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file of a dataclass is read back whole, or the field that is wrong is named with its value."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.typed_reader import (
    KNOWN,
    DamagedError,
    parsed,
    read_as,
)


@dataclass(kw_only=True)
class Leaf:
    """A part of a part."""

    state: str = field(metadata={KNOWN: ("waiting", "done")})
    at: float | None = None


@dataclass(kw_only=True)
class Tree:
    """A part of each kind."""

    name: str
    count: int = 0
    over: bool = False
    names: tuple[str, ...] = ()
    leaves: list[Leaf] = field(default_factory=list)
    by_name: dict[str, Leaf] = field(default_factory=dict)


WHOLE = Tree(
    name="a",
    count=3,
    over=True,
    names=("x", "y"),
    leaves=[Leaf(state="done", at=1.5)],
    by_name={"n": Leaf(state="waiting")},
)


def test_it_is_read_as_it_was_written() -> None:
    assert read_as(Tree, parsed(json.dumps(asdict(WHOLE)))) == WHOLE


def test_what_has_a_default_may_be_missing() -> None:
    assert read_as(Tree, {"name": "a"}) == Tree(name="a")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": None}, "name: null is not a text"),
        ({"count": True}, "count: true is not a whole number"),
        ({"count": 1.5}, "count: 1.5 is not a whole number"),
        ({"count": -1}, "count: -1 is not a whole number"),
        ({"over": 1}, "over: 1 is not true or false"),
        ({"names": "xy"}, 'names: "xy" is not a list'),
        ({"names": ["x", 2]}, "names.1: 2 is not a text"),
        ({"leaves": {}}, "leaves: {} is not a list"),
        ({"leaves": ["x"]}, 'leaves.0: "x" is not an object'),
        ({"leaves": [{"state": "gone"}]}, 'leaves.0.state: "gone" is not one of waiting, done'),
        ({"leaves": [{}]}, "leaves.0.state: it is missing"),
        ({"by_name": []}, "by_name: [] is not an object"),
        ({"by_name": {"n": {"state": "done", "at": "noon"}}}, 'by_name.n.at: "noon" is not a time or a number of seco'),
        ({"by_name": {"n": {"state": "done", "at": 1e12}}}, "by_name.n.at: 1000000000000.0 is not a time"),
        ({"by_name": {"n": {"state": "done", "at": float("nan")}}}, "by_name.n.at: NaN is not a time"),
        ({"colour": "red"}, "colour: no field of this name is known: name, count, over"),
        ({"name": ["x" * 90]}, f'name: ["{"x" * 58}... is not a text'),
    ],
)
def test_a_field_that_is_wrong_is_named_with_its_value(change: dict[str, Any], said: str) -> None:
    with pytest.raises(DamagedError) as caught:
        read_as(Tree, {"name": "a", **change})
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("data", [[], "text", None, 3])
def test_what_is_no_object_is_refused(data: object) -> None:
    with pytest.raises(DamagedError, match="is not an object"):
        read_as(Tree, data)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1, column 1: it is no JSON"),
        ('{\n "name": "a",\n "co', "line 3, column 2: it is no JSON, Unterminated string"),
        ("[" * 100_000, "it is no JSON"),
    ],
)
def test_what_is_no_json_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(DamagedError) as caught:
        parsed(text)
    assert said in str(caught.value)
