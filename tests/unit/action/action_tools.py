# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run an action plugin as a task would, without a play around it."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

COLLECTION = "ansible_collections.spokewright.fleet.plugins"


def act(
    name: str,
    args: dict[str, Any],
    *,
    check: bool = False,
    diff: bool = False,
    variables: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The answer of one task."""
    task = SimpleNamespace(args=args, check_mode=check, diff=diff, async_val=0, action=f"spokewright.fleet.{name}")
    plugin = importlib.import_module(f"{COLLECTION}.action.{name}").ActionModule(
        task=task,
        connection=SimpleNamespace(_shell=SimpleNamespace(tmpdir="none")),
        play_context=None,
        loader=None,
        templar=None,
        shared_loader_obj=None,
    )
    answer: dict[str, Any] = plugin.run(task_vars=variables or {})
    return answer
