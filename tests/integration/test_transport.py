# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transports over real sshds on loopback: conversations, retries, the bastion, the old hosts."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import ssh_transport as ssh
from delivery_support import Remote, relay, sshd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = ssh.Timeouts(connect=2, banner=2, auth=4, command=4, deadline=8)


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    with sshd(tmp_path / "remote") as found:
        yield found


# --- conversations -------------------------------------------------------------------------------------------------

ASK = "read greeting; echo \"heard $greeting\"; echo noise; echo WANT; printf 'half a line' ; exec cat"


def converse(target: ssh.Target, answer: bytes | None) -> tuple[ssh.Answer, list[bytes]]:
    heard: list[bytes] = []

    def wanted(line: bytes) -> bytes | None:
        heard.append(line)
        return answer if line == b"WANT" else None

    with ssh.open_session(target=target, timeouts=QUICK) as session:
        return session.converse(command=ASK, stdin=b"hello\n", wanted=wanted), heard


def test_a_command_that_asks_is_sent_what_it_wants_once(remote: Remote) -> None:
    payload = b"x" * 300_000
    answer, heard = converse(remote.target, payload)
    assert answer.exit_status == 0
    assert answer.stdout == b"heard hello\nnoise\nWANT\nhalf a line" + payload
    assert heard == [b"heard hello", b"noise", b"WANT"]


def test_a_command_that_need_not_be_sent_anything_sees_the_end(remote: Remote) -> None:
    answer, _heard = converse(remote.target, b"")
    assert (answer.exit_status, answer.stdout) == (0, b"heard hello\nnoise\nWANT\nhalf a line")


def test_a_command_that_never_asks_ends_at_its_own_end(remote: Remote) -> None:
    with ssh.open_session(target=remote.target, timeouts=QUICK) as session:
        answer = session.converse(command="echo no; exit 7", stdin=b"unread" * 1000, wanted=lambda _line: None)
    assert (answer.exit_status, answer.stdout) == (7, b"no\n")


@pytest.mark.parametrize("stop_after", [4000, 6000, 40_000])
def test_a_link_that_freezes_in_a_conversation_ends_by_the_deadline(remote: Remote, stop_after: int) -> None:
    with relay(remote.target.port, stop_after=stop_after) as port:
        began = time.monotonic()
        with pytest.raises(ssh.SshTimeoutError):
            converse(dataclasses.replace(remote.target, port=port), b"x" * 300_000)
    assert time.monotonic() - began < QUICK.deadline + 2
