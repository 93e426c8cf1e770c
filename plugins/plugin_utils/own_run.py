# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Ansible run a task belongs to, and whether that still goes on.

A worker process ends with its task; what a lock belongs to is its parent, the run. But a worker leads a session of its
own and outlives a run that is killed: it is nobody's then, and process 1 inherits it.
"""

from __future__ import annotations

import multiprocessing
import os

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError


class RunEndedError(FleetError):
    """The run that a task belongs to has ended; nothing was begun."""


def own_run() -> int:
    """The process of the run that this task belongs to.

    Raises:
        RunEndedError: it has ended, so nothing may be held in the name of whoever has inherited this process.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():
        raise RunEndedError("the run that this step belongs to has ended. Nothing was begun.")
    return os.getppid()


def is_over(run: int | None) -> bool:
    """Whether that run has ended meanwhile; a command without a run above it is its own."""
    return run is not None and os.getppid() != run
