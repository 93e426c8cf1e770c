# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils import path_mtu
from ansible_collections.spokewright.fleet.plugins.module_utils.icmp_echo import checksum

if TYPE_CHECKING:
    from collections.abc import Iterator


ROOT = Path(__file__).resolve().parents[3]


def test_a_packet_has_its_size_on_the_wire() -> None:
    sent = path_mtu.packet(identifier=7, sequence=1, size=1500)

    assert len(sent) + path_mtu.IP_HEADER == 1500
    assert checksum(sent) == 0


@pytest.mark.parametrize(("limit", "expected"), [(9000, 1500), (1500, 1500), (1499, 1499), (68, 68), (0, 0)])
def test_the_largest_packet_that_passes_is_found(monkeypatch: pytest.MonkeyPatch, limit: int, expected: int) -> None:
    monkeypatch.setattr(path_mtu, "passes", lambda *, size, **_others: size <= limit)

    assert path_mtu.carried(address="192.0.2.1", interface="fr0", size=1500) == expected


# Runs in the near namespace: a process of its own, because a thread of ours would leave the others behind.
ASK = """
import sys
from ansible_collections.spokewright.fleet.plugins.module_utils import path_mtu
for address, size in zip(sys.argv[2::2], map(int, sys.argv[3::2])):
    print(path_mtu.carried(address=address, interface=sys.argv[1], size=size, seconds=0.1))
"""


@pytest.fixture
def wire() -> Iterator[str]:
    """Two namespaces and a link; the far end takes 1400 bytes and drops what is larger without a word."""
    near, far = (f"mtu-{uuid.uuid4().hex[:8]}-{end}" for end in "nf")
    for name in (near, far):
        subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for line in (
            f"link add name near0 mtu 1500 netns {near} type veth peer name far0 mtu 1400 netns {far}",
            f"-n {near} address add 192.0.2.1/29 dev near0",
            f"-n {near} link set near0 up",
            f"-n {far} address add 192.0.2.2/29 dev far0",
            f"-n {far} link set far0 up",
        ):
            subprocess.run(["ip", *line.split()], check=True)
        yield near
    finally:
        for name in (near, far):
            subprocess.run(["ip", "netns", "delete", name], check=False)


def carried(namespace: str, *asked: tuple[str, int]) -> list[int]:
    words = [str(word) for one in asked for word in one]
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, sys.executable, "-c", ASK, "near0", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
        check=True,
        capture_output=True,
        text=True,
    )
    return [int(line) for line in done.stdout.split()]


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and raw sockets need root")
def test_a_real_path_that_is_too_small(wire: str) -> None:
    there, nobody = "192.0.2.2", "192.0.2.3"

    # The kernel lets four bytes more pass, for a VLAN tag. 9000 is what the interface itself does not take.
    assert carried(wire, (there, 1400), (there, 1500), (there, 9000), (nobody, 1400)) == [1400, 1404, 1404, 0]
    # In pieces it would pass: an answer must mean that it passed whole.
    subprocess.run(["ip", "-n", wire, "link", "set", "near0", "mtu", "1300"], check=True)
    assert carried(wire, (there, 1400)) == [1300]
