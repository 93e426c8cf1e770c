# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says how far a rollout is while it runs, and ends ansible-playbook with the code of the rollout."""

from __future__ import annotations

DOCUMENTATION = r"""
---
name: rollout_progress
type: notification
short_description: Say how far a rollout is, and end with its exit code
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - Prints one line for each thing that happens in a rollout, that is, when it was opened, when a wave begins and ends,
    when it soaks, and how the rollout ended. From the second wave on a line says about how much time is left.
  - Ends C(ansible-playbook) with the exit code of the rollout. C(0) is all well, C(2) sites failed, C(3) a gate has
    halted it or it waits for an approval, C(4) another rollout or operator is at work. The recap is printed as always,
    and a run without a rollout, or with one that went well, ends as Ansible says.
  - Other callbacks that are called after this one do not see the end of a run with such a code. Name it as the last one
    in C(callbacks_enabled).
requirements:
  - enable it in the configuration, C(callbacks_enabled = spokewright.fleet.rollout_progress)
"""

EXAMPLES = r"""
# A CI job that does not use the ansible.cfg of the checkout; of several callbacks, this one comes last.
variables:
  ANSIBLE_CALLBACKS_ENABLED: ansible.builtin.junit, spokewright.fleet.rollout_progress
"""

import typing as t

from ansible import constants as C  # noqa: N812  # as every callback of Ansible names it
from ansible.plugins.callback import CallbackBase

from ansible_collections.spokewright.fleet.plugins.plugin_utils.refusal import REFUSED
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_progress import RolloutProgress

if t.TYPE_CHECKING:
    from ansible.executor.stats import AggregateStats
    from ansible.executor.task_result import CallbackTaskResult

COLLECTION: t.Final = "spokewright.fleet."
ACTION: t.Final = f"{COLLECTION}rollout"
# Ansible makes its constants when it starts.
COLOURS: t.Final = {"plain": None, "good": C.COLOR_OK, "bad": C.COLOR_ERROR}  # type: ignore[attr-defined]


class CallbackModule(CallbackBase):
    """Entry point of spokewright.fleet.rollout_progress."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "spokewright.fleet.rollout_progress"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._progress = RolloutProgress()

    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        """A step of a rollout went well."""
        self._say(result)

    def v2_runner_on_failed(
        self,
        result: CallbackTaskResult,
        ignore_errors: bool = False,  # noqa: ARG002, FBT001, FBT002  # Ansible's signature
    ) -> None:
        """A step of a rollout was refused, or ended it."""
        self._say(result)

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:  # noqa: ARG002  # Ansible's signature
        """End with the rollout's code.

        Ansible has no way for a plugin to say one. It keeps `Exception`s of callbacks to itself and lets this one pass,
        with its own cleaning up on the way; by then the recap stands there, because the screen's callback comes first.
        """
        if self._progress.exit_code:
            raise SystemExit(self._progress.exit_code)

    def _say(self, result: CallbackTaskResult) -> None:
        event, action = result.result.get("event"), result.task.action
        if not isinstance(event, dict):
            return
        # Another run may keep out every step that changes keys or sites; how far it is, only the rollout says.
        if action == ACTION or (action.startswith(COLLECTION) and event.get("event") == REFUSED):
            line = self._progress.line(event, message=str(result.result.get("msg", "")))
            self._display.display(line.text, color=COLOURS[line.mood])
