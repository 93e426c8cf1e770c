# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.spokewright.fleet.plugins.filter.tunnel_server import (
    tunnel_server_limits,
    tunnel_server_openvpn,
    tunnel_server_routes,
)


def test_a_network_is_pushed_as_address_and_netmask_and_only_once() -> None:
    networks = ["10.200.0.0/24", "10.202.0.0/15", "10.200.0.0/24"]
    assert tunnel_server_routes(networks) == ["10.200.0.0 255.255.255.0", "10.202.0.0 255.254.0.0"]
    with pytest.raises(AnsibleFilterError, match=r"10\.0\.0\.1/8 has host bits set: write prefixes as ADDRESS/LENGTH"):
        tunnel_server_routes(["10.0.0.1/8"])


@pytest.mark.parametrize(("capacity", "limit"), [(1, 100), (25, 100), (26, 104), (512, 2048)])
def test_limits_leave_room_for_a_site_that_comes_again(capacity: int, limit: int) -> None:
    assert tunnel_server_limits(capacity) == {"max_clients": limit, "connect_freq_initial": limit}


def test_a_limit_that_somebody_has_set_stays() -> None:
    assert tunnel_server_limits(512, max_clients=600) == {"max_clients": 600, "connect_freq_initial": 2048}
    assert tunnel_server_limits(512, connect_freq_initial=99) == {"max_clients": 2048, "connect_freq_initial": 99}


def test_an_openvpn_without_a_version_is_an_error_of_the_filter() -> None:
    with pytest.raises(AnsibleFilterError, match="which names no version"):
        tunnel_server_openvpn("nonsense")
