# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shared connection to a bastion at the moment it ends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import ssh_bastion
from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Bastion
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_types import (
    BastionError,
    Clock,
    Target,
    Timeouts,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

BASTION = Bastion(
    address="192.0.2.1",
    port=22,
    user="root",
    host_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGqO4U1iFqOB4lRbM0uqJMtbWABlJWrfDicYAYgfJUL1",
    private_key_file=Path("/nonexistent"),
    channels=4,
)
SITE = Target(
    name="site-0001",
    address="192.0.2.2",
    port=22,
    user="root",
    host_key=BASTION.host_key,
    private_key_file=BASTION.private_key_file,
    bastion=BASTION,
)


class Link:
    """A connection that looks alive and answers a request for a channel as it is told to."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.alive = True
        self.transport = self

    def open_channel(self, *_args: object, **_options: object) -> object:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        self.alive = False


def way(monkeypatch: pytest.MonkeyPatch, *links: Link) -> ssh_bastion.Way:
    found = ssh_bastion.Way(bastion=BASTION)
    waiting: Iterator[Link] = iter(links)
    monkeypatch.setattr(found, "_connect", lambda *, clock: next(waiting))  # noqa: ARG005
    return found


def clock() -> Clock:
    return Clock(target=SITE, timeouts=Timeouts())


@pytest.mark.parametrize("words", [EOFError(), OSError("Socket is closed"), BrokenPipeError()])
def test_a_connection_that_has_just_ended_is_replaced_though_it_looks_alive(
    monkeypatch: pytest.MonkeyPatch, words: Exception
) -> None:
    """Its own thread notices last; until then every site would be told that it does not answer."""
    dead, fresh = Link(words), Link("channel")
    found: object = way(monkeypatch, dead, fresh).channel(clock=clock())
    assert found == "channel"
    assert not dead.alive


def test_a_bastion_that_ends_every_connection_is_told_as_the_bastion(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        BastionError, match=r"site-0001: the connection to the bastion 192\.0\.2\.1:22 ended \(EOFError\)"
    ):
        way(monkeypatch, Link(EOFError()), Link(EOFError())).channel(clock=clock())


def test_a_silent_site_is_told_as_the_site_and_the_connection_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link(paramiko.SSHException("Timeout opening channel."))
    with pytest.raises(
        UnreachableError, match=r"nothing answers at 192\.0\.2\.2:22 within .* s, asked from the bastion"
    ):
        way(monkeypatch, link).channel(clock=clock())
    assert link.alive


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (1, BastionError, "does not forward to"),
        (2, UnreachableError, "cannot be reached from the bastion"),
        (4, BastionError, "opens no more channels"),
    ],
)
def test_a_refusal_is_no_reason_to_connect_anew(
    monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception], text: str
) -> None:
    link = Link(paramiko.ChannelException(code, "no"))
    with pytest.raises(kind, match=text):
        way(monkeypatch, link).channel(clock=clock())
    assert link.alive
