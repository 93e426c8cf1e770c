# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a case is written down: its name, and which gateway is the owner when it begins."""

from __future__ import annotations

import os

import pytest

BOTH_ROLES = pytest.mark.parametrize("owner", ["gw1", "gw2"])
# No playbook run, no case may take longer: a measurement that hangs is a failure.
TIMEOUT = pytest.mark.timeout(900)

# Roles of a case that takes minutes: none in the short form of a run.
IN_LONG = ("",) if os.environ.get("SPOKEWRIGHT_LONG") else ()


def case(name: str, *, short: str = "") -> pytest.MarkDecorator:
    """A named case; `short` is the owner with which it also runs in `make e2e`."""
    return pytest.mark.case(name, short=(short,) if short else ())


def impossible(reason: str) -> pytest.MarkDecorator:
    """A case that the lab cannot make, with the reason."""
    return pytest.mark.skip(reason=f"cannot be made in the lab: {reason}")
