# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.tunnel_fit import OVERHEAD, TunnelFit, tunnel_fit


@pytest.mark.parametrize(
    ("mtus", "expected"),
    [
        ([1500], TunnelFit(1500, 1400, 1250)),
        ([1500, 9216], TunnelFit(1500, 1400, 1250)),
        ([1499, 1500], TunnelFit(1443, 1400, 1250)),
        ([1500, 1480], TunnelFit(1424, 1400, 1250)),
        ([1300], TunnelFit(1244, 1300, 1250)),
        ([1000], TunnelFit(944, 1000, 1000)),
        ([576], TunnelFit(520, 576, 576)),
        ([1555], TunnelFit(1500, 1400, 1250)),
        ([1556], TunnelFit(1500, 1556, 1250)),
        ([9216], TunnelFit(1500, 1556, 1250)),
    ],
)
def test_tunnels_fit_the_smallest_transport(mtus: list[int], expected: TunnelFit) -> None:
    assert tunnel_fit(mtus=mtus) == expected


def test_below_ethernet_no_packet_is_ever_cut_in_two() -> None:
    assert OVERHEAD == 56
    for mtu in range(576, 1500):
        fit = tunnel_fit(mtus=[mtu])
        assert fit.tun_mtu + OVERHEAD <= mtu
        assert fit.mssfix <= mtu
        assert fit.control_packet <= mtu
