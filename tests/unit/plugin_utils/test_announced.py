# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.announced import announced


@pytest.mark.parametrize(
    ("aggregates", "taken", "expected"),
    [
        (["10.202.0.0/15"], [], ["10.202.0.0/16", "10.203.0.0/16"]),
        (
            ["10.202.0.0/15", "10.101.0.0/16"],
            [],
            ["10.101.0.0/17", "10.101.128.0/17", "10.202.0.0/16", "10.203.0.0/16"],
        ),
        # A site whose LAN is one of the halves: both gateways have a route of that prefix, so it must not be the sign.
        (["10.202.0.0/23"], ["10.202.0.0/24"], ["10.202.0.0/25", "10.202.0.128/25", "10.202.1.0/24"]),
        (["10.202.0.0/32"], ["10.202.0.0/32"], ["10.202.0.0/32"]),
    ],
)
def test_what_the_owner_announces_is_no_route_of_both(
    aggregates: list[str], taken: list[str], expected: list[str]
) -> None:
    assert list(announced(aggregates=map(IPv4Network, aggregates), taken=taken)) == expected
