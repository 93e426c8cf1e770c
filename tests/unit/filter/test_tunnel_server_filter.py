# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.spokewright.fleet.plugins.filter.tunnel_server import (
    tunnel_server_limits,
    tunnel_server_material,
    tunnel_server_openvpn,
    tunnel_server_routes,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore

if t.TYPE_CHECKING:
    from pathlib import Path


def files(store: Path) -> dict[str, str]:
    return {
        "ca_file": str(store / "ca.pem"),
        "cert_file": str(store / "gateways/gw1/cert.pem"),
        "key_file": str(store / "gateways/gw1/key.pem"),
        "tls_crypt_v2_key_file": str(store / "server-tls-crypt-v2.pem"),
        "crl_file": str(store / "crl.pem"),
    }


def test_a_network_is_pushed_as_address_and_netmask_and_only_once() -> None:
    networks = ["10.200.0.0/24", "10.202.0.0/15", "10.200.0.0/24"]
    assert tunnel_server_routes(networks) == ["10.200.0.0 255.255.255.0", "10.202.0.0 255.254.0.0"]
    with pytest.raises(AnsibleFilterError, match=r"10\.0\.0\.1/8 has host bits set: write prefixes as ADDRESS/LENGTH"):
        tunnel_server_routes(["10.0.0.1/8"])


@pytest.mark.parametrize(("capacity", "limit"), [(1, 100), (25, 100), (26, 104), (512, 2048)])
def test_limits_leave_room_for_a_site_that_comes_again(capacity: int, limit: int) -> None:
    assert tunnel_server_limits(capacity) == {"max_clients": limit, "connect_freq_initial": limit}


def test_keys_that_are_not_made_yet_are_a_problem_except_in_check_mode(tmp_path: Path) -> None:
    found = tunnel_server_material(files(tmp_path))
    assert "ca.pem: No such file or directory. A gateway's keys are made on the controller" in found["problem"]
    assert tunnel_server_material(files(tmp_path), may_be_missing=True)["problem"] == ""


def test_good_keys_have_a_name_and_no_problem(tmp_path: Path) -> None:
    KeyStore(path=tmp_path / "store").ensure(fleet="lab", key_type="p256", gateways=["gw1"], sites=[])
    for check_mode in (False, True):
        found = tunnel_server_material(files(tmp_path / "store"), may_be_missing=check_mode)
        assert (len(found["digest"]), found["problem"]) == (16, "")


def test_an_openvpn_without_a_version_is_an_error_of_the_filter() -> None:
    with pytest.raises(AnsibleFilterError, match="which names no version"):
        tunnel_server_openvpn("nonsense")
