# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `up` makes of a state it finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lablib import lifecycle
from lablib import state as states
from lablib.errors import LabError
from lablib.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("tree", "shown"), [("", "(not known)"), ("gone", "gone")])
def test_hosts_are_never_booted_from_a_tree_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: str, shown: str
) -> None:
    """An empty path is the current directory, which is there always."""
    path = str(tmp_path / tree) if tree else ""
    found = states.State(boot_id="", release="bookworm", tree=path, sites=8)
    monkeypatch.setattr(states, "load", lambda: found)

    with pytest.raises(LabError) as told:
        lifecycle._begin(sites=8, release=None, progress=Progress())

    assert f"{shown} is gone. Start afresh: tools/lab down, then tools/lab up" in str(told.value)
