# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two owners of which one is deaf: exactly one gives way, never for a frozen one, never for nobody."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils.health_rival import (
    GRACE,
    Rival,
    Sight,
    hardware_of,
    meet,
)
from ansible_collections.spokewright.fleet.plugins.module_utils.health_rules import MISSES

if t.TYPE_CHECKING:
    from pathlib import Path

INTERVAL, LEASE = 0.3, 3.0
PATIENCE = LEASE + GRACE
LOOKS = int(PATIENCE / INTERVAL) + 2


class Gateway:
    """One of the two, seen at the interval."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self.state, self.now, self.patience = Rival(), 100.0, patience

    def see(
        self, times: int, *, owner: bool = True, heard: bool = False, answered: bool = True, late: bool = False
    ) -> bool:
        for _ in range(times):
            self.now += INTERVAL
            sight = Sight(owner=owner and not self.state.yielding, heard=heard, answered=answered)
            self.state = meet(before=self.state, sight=sight, now=self.now, late=late, patience=self.patience)
        return self.state.yielding


def test_a_deaf_owner_whose_addresses_the_other_one_has_too_gives_way_after_a_lease() -> None:
    gateway = Gateway()
    assert not gateway.see(int(PATIENCE / INTERVAL))
    assert gateway.see(2)
    assert gateway.see(1000)


@pytest.mark.parametrize("sight", [{"heard": True}, {"answered": False}, {"owner": False}, {"late": True}], ids=str)
def test_without_one_of_the_reasons_nobody_gives_way(sight: dict[str, bool]) -> None:
    gateway = Gateway()
    assert not gateway.see(100, **sight)
    # And once is enough to begin anew.
    gateway.see(LOOKS - 3)
    gateway.see(1, **sight)
    assert not gateway.see(LOOKS - 3)


def test_an_owner_that_was_frozen_answers_for_no_longer_than_a_lease_and_nobody_gives_way_for_it() -> None:
    gateway = Gateway()
    gateway.see(int(LEASE / INTERVAL) + 2)
    assert not gateway.see(100, answered=False)


def test_of_two_deaf_ones_the_second_to_lose_patience_keeps_the_addresses() -> None:
    lower, higher = Gateway(), Gateway(patience=2 * PATIENCE)
    owners = {"lower": True, "higher": True}
    for _ in range(200):
        answers = dict(owners)
        owners["lower"] = not lower.see(1, owner=owners["lower"], answered=answers["higher"])
        owners["higher"] = not higher.see(1, owner=owners["higher"], answered=answers["lower"])

    assert owners == {"lower": False, "higher": True}


def test_one_that_hears_again_stands_by_as_any_other() -> None:
    gateway = Gateway()
    assert gateway.see(LOOKS)
    assert not gateway.see(1, heard=True)


def test_when_the_other_one_is_gone_it_is_back_after_some_misses() -> None:
    gateway = Gateway()
    gateway.see(LOOKS)
    assert gateway.see(MISSES - 1, answered=False)
    assert gateway.see(1)
    assert gateway.see(MISSES - 1, answered=False)
    assert gateway.see(50, answered=False, late=True)
    assert not gateway.see(1, answered=False)


def test_the_kernel_knows_a_neighbour_by_address_and_interface(tmp_path: Path) -> None:
    table = tmp_path / "arp"
    table.write_text(
        "IP address       HW type     Flags       HW address            Mask     Device\n"
        "10.200.0.3       0x1         0x2         02:00:00:00:00:0A     *        inside0\n"
        "198.19.0.3       0x1         0x0         00:00:00:00:00:00     *        fr0\n",
        encoding="ascii",
    )

    assert hardware_of(address="10.200.0.3", interface="inside0", table=str(table)) == "02:00:00:00:00:0a"
    assert hardware_of(address="10.200.0.3", interface="fr0", table=str(table)) == ""
    assert hardware_of(address="198.19.0.3", interface="fr0", table=str(table)) == ""
    assert hardware_of(address="10.200.0.3", interface="inside0", table=str(tmp_path / "none")) == ""
