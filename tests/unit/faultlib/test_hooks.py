# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel's books say of the script for which a daemon stands still."""

from __future__ import annotations

import struct

import pytest

from faultlib.hooks import Waits, read

# Recorded on 6.18: `python3` for 30 ms, then `sleep` for 90 ms, as acct(2) wrote them.
RECORDED = bytes.fromhex(
    "0203000000000000000000000000000003000000010000004a41096b00004040000000004726cc260000960300000000"
    "707974686f6e33000000000000000000"
    "0003000000000000000000000000000004000000010000004a41096b0000104100000000680bc40300004d0000000000"
    "736c6565700000000000000000000000"
)


def record(*, ticks: float, name: str = "tunnel-verify", version: int = 3) -> bytes:
    return struct.pack("=BBHIIIIIIf16x16s", 0, version, 0, 0, 0, 0, 77, 1, 0, ticks, name.encode())


def test_what_the_kernel_wrote_is_understood() -> None:
    assert read(RECORDED, name="python3").ms == (30.0,)
    assert read(RECORDED, name="sleep").ms == (90.0,)
    assert read(RECORDED).ms == ()


def test_other_programs_and_half_a_record_are_left_out() -> None:
    book = record(ticks=1) + record(ticks=9, name="sh") + record(ticks=0) + record(ticks=5)[:40]

    assert read(book).ms == (0.0, 10.0)
    assert read(record(ticks=1, version=2)).ms == ()


@pytest.mark.parametrize(
    ("ms", "wanted"),
    [
        ((), (0.0, True)),
        ((0.0,) * 99 + (50.0,), (0.0, True)),
        ((0.0,) * 98 + (20.0, 50.0), (20.0, False)),
        # 10 stands for everything below 20.
        ((10.0,) * 100, (10.0, True)),
    ],
)
def test_one_in_a_hundred_may_take_longer(ms: tuple[float, ...], wanted: tuple[float, bool]) -> None:
    assert (Waits(ms=ms).p99, Waits(ms=ms).well()) == wanted


def test_a_busy_machine_is_given_slack() -> None:
    assert Waits(ms=(20.0,)).well(slack=2)


def test_books_add_up_and_are_told() -> None:
    both = Waits(ms=(0.0, 30.0)) + Waits(ms=(10.0,))

    assert both.ms == (0.0, 10.0, 30.0)
    assert both.text() == (
        "the script that judges keys ran 3 times: 99 % under 40 ms, 1 took 20 ms or more (33.3%), "
        "the longest under 40 ms"
    )
    assert "nobody saw" in Waits().text()
