# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a channel may still send after its farewell: nothing."""

from __future__ import annotations

import threading
from typing import Any

import paramiko
from paramiko.common import MSG_CHANNEL_CLOSE, MSG_CHANNEL_DATA, MSG_CHANNEL_EOF, cMSG_CHANNEL_DATA

from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_login import _LastWord


class Wire:
    """In the place of a transport: what would have gone out, in order."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def _send_user_message(self, message: paramiko.Message) -> None:
        self.sent.append(message.asbytes()[0])

    def get_log_channel(self) -> str:
        return "spokewright.test"

    def _sanitize_packet_size(self, size: int) -> int:
        return size

    def _unlink_channel(self, _number: int) -> None:
        """Nobody keeps a list."""


def opened(wire: Wire) -> Any:
    channel: Any = paramiko.Channel(7)
    channel._set_transport(_LastWord(wire))  # type: ignore[arg-type]
    channel._set_window(1 << 20, 1 << 15)
    channel._set_remote_channel(3, 1 << 20, 1 << 15)
    channel.active = True
    return channel


def test_a_channel_speaks_until_it_is_closed() -> None:
    wire = Wire()
    channel = opened(wire)
    channel.send(b"hello")
    channel.close()
    assert wire.sent == [MSG_CHANNEL_DATA, MSG_CHANNEL_EOF, MSG_CHANNEL_CLOSE]


def test_data_that_comes_late_is_kept_back() -> None:
    """The race itself: looked that it is open, closed by another thread, then sent. sshd would end the connection."""
    wire = Wire()
    channel = opened(wire)
    late = paramiko.Message()
    late.add_byte(cMSG_CHANNEL_DATA)
    late.add_int(channel.remote_chanid)
    late.add_string(b"late")

    closer = threading.Thread(target=channel.close)
    closer.start()
    closer.join()
    channel.transport._send_user_message(late)

    assert wire.sent[-1] == MSG_CHANNEL_CLOSE


def test_the_rest_of_the_transport_is_there() -> None:
    assert _LastWord(Wire()).get_log_channel() == "spokewright.test"  # type: ignore[arg-type]
