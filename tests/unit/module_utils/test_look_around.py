# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command is answered for, also one that is not there or does not end, and a failure names the command."""

from __future__ import annotations

from ansible_collections.spokewright.fleet.plugins.module_utils.look_around import failures, run


def test_what_a_command_says_comes_back_with_its_exit_status() -> None:
    said = run(command=["sh", "-c", "echo one; echo two; echo three >&2; exit 3"])

    assert said == {"rc": 3, "stdout": "one\ntwo\n", "stdout_lines": ["one", "two"], "stderr": "three\n"}


def test_a_program_that_is_not_there_and_one_that_does_not_end_are_answers() -> None:
    assert run(command=["no-such-program"])["rc"] == 127
    said = run(command=["sleep", "60"], seconds=0.1)
    assert (said["rc"], said["stderr"]) == (124, "it did not end within 0.1 seconds")


def test_nothing_waits_for_input_and_no_byte_is_too_odd() -> None:
    assert run(command=["cat"])["rc"] == 0
    assert run(command=["printf", r"\377"])["stdout"] == "\ufffd"


def test_a_failure_names_the_command_and_what_it_said_unless_it_may_fail() -> None:
    said = {
        "links": run(command=["sh", "-c", "echo broken >&2; exit 2"]),
        "quiet": run(command=["false"]),
        "asked": run(command=["false"]),
        "well": run(command=["true"]),
    }

    assert failures(said=said, may_fail=["asked"]) == [
        "links ended with exit status 2: broken",
        "quiet ended with exit status 1: it said nothing",
    ]
