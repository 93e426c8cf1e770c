# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils.icmp_echo import answering, checksum, echo_request


def test_checksum_of_a_whole_packet_is_zero() -> None:
    assert checksum(echo_request(identifier=0x1234, sequence=7)) == 0


def test_checksum_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


@pytest.mark.skipif(os.geteuid() != 0, reason="a raw socket needs root")
def test_only_what_answers_is_reported() -> None:
    assert answering(addresses=["127.0.0.1", "127.0.0.2"], seconds=1) == ["127.0.0.1", "127.0.0.2"]
    assert answering(addresses=["255.255.255.255"], seconds=0.1) == []
