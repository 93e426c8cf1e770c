# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A problem of the pair, how much it weighs, and what it forbids."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

Weight = t.Literal["holder", "path", "standby", "owner", "content", "plan", "notice"]

HOLDER: t.Final = "holder"
"""It is not clear that exactly one gateway holds the addresses and the other one can be asked: nothing is changed."""
PATH: t.Final = "path"
"""The standby does not reach a network. No change to a gateway mends that: nothing is changed."""
STANDBY: t.Final = "standby"
"""The standby could not carry the sites now, and a run may mend it: the owner is not touched before it is well."""
OWNER: t.Final = "owner"
"""The same at the owner."""
CONTENT: t.Final = "content"
"""Sites would find another gateway than the one they left: no planned move but as a part of making them alike."""
PLAN: t.Final = "plan"
"""The plan cannot be brought to one gateway after the other."""
NOTICE: t.Final = "notice"
"""Somebody should look at it."""

FORBID_CHANGE: t.Final[tuple[Weight, ...]] = (HOLDER, PATH, PLAN)
FORBID_MOVE: t.Final[tuple[Weight, ...]] = (HOLDER, PATH, STANDBY, CONTENT)
# Of one gateway, after it was changed.
UNPROVEN: t.Final[tuple[Weight, ...]] = (PATH, STANDBY, OWNER)


@dataclass(frozen=True)
class Problem:
    """One sentence, what it weighs, and which gateway it is about; empty when it is about both."""

    weight: Weight
    text: str
    about: str = ""


def said(problems: t.Iterable[Problem], *weights: Weight) -> list[str]:
    """The problems of these weights in words."""
    return [one.text for one in problems if one.weight in weights]


def unproven(problems: t.Iterable[Problem], *, gateway: str) -> list[str]:
    """What speaks against a gateway that has just been changed."""
    return [one.text for one in problems if one.weight == HOLDER or (one.about == gateway and one.weight in UNPROVEN)]
