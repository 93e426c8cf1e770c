# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import subprocess
import uuid
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils import path_mtu
from ansible_collections.spokewright.fleet.plugins.module_utils.icmp_echo import checksum

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_a_packet_has_its_size_on_the_wire() -> None:
    sent = path_mtu.packet(identifier=7, sequence=1, size=1500)

    assert len(sent) + path_mtu.IP_HEADER == 1500
    assert checksum(sent) == 0


@pytest.mark.parametrize(("limit", "expected"), [(9000, 1500), (1500, 1500), (1499, 1499), (68, 68), (0, 0)])
def test_the_largest_packet_that_passes_is_found(monkeypatch: pytest.MonkeyPatch, limit: int, expected: int) -> None:
    monkeypatch.setattr(path_mtu, "passes", lambda *, size, **_others: size <= limit)

    assert path_mtu.carried(address="192.0.2.1", interface="fr0", size=1500) == expected


@pytest.fixture
def wire() -> Iterator[tuple[str, str]]:
    """A link of this machine to a namespace whose end takes 1400 bytes and drops what is larger without a word."""
    name = f"mtu-{uuid.uuid4().hex[:8]}"
    near, far = f"{name[:12]}a", f"{name[:12]}b"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", near, "mtu", "1500", "type", "veth", "peer", "name", far, "mtu", "1400", "netns", name)
        ip("address", "add", "192.0.2.1/30", "dev", near)
        ip("link", "set", near, "up")
        ip("-n", name, "address", "add", "192.0.2.2/30", "dev", far)
        ip("-n", name, "link", "set", far, "up")
        yield near, name
    finally:
        subprocess.run(["ip", "link", "delete", near], check=False)
        ip("netns", "delete", name)


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and raw sockets need root")
def test_a_real_path_that_is_too_small(wire: tuple[str, str]) -> None:
    interface, _namespace = wire

    def carried(address: str, size: int) -> int:
        return path_mtu.carried(address=address, interface=interface, size=size, seconds=0.1)

    assert carried("192.0.2.2", 1400) == 1400
    # The kernel lets four bytes more pass, for a VLAN tag.
    assert carried("192.0.2.2", 1500) == 1404
    # What the interface itself does not take, and an address nobody has.
    assert carried("192.0.2.2", 9000) == 1404
    assert carried("192.0.2.3", 1400) == 0
    # In pieces it would pass: an answer must mean that it passed whole.
    subprocess.run(["ip", "link", "set", interface, "mtu", "1300"], check=True)
    assert carried("192.0.2.2", 1400) == 1300
