# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils.site_config import (
    SiteConfigError,
    ccd_files,
    ccd_text,
    read_sites,
)

NETWORK = "10.101.0.0/16"


def row(site: str, address: str, *lans: str, instance: str = "tun0") -> dict[str, t.Any]:
    return {"id": site, "tunnel_address": address, "instance": instance, "lans": list(lans)}


def test_a_ccd_file_gives_the_fixed_address_and_every_lan() -> None:
    sites = [row("site-0001", "10.101.0.16", "10.202.9.0/24", "10.202.1.0/25")]
    entry = read_sites(sites=sites, instances=["tun0"], network=NETWORK)[0]
    assert ccd_text(entry=entry, netmask="255.255.0.0").splitlines()[1:] == [
        "ifconfig-push 10.101.0.16 255.255.0.0",
        "iroute 10.202.1.0 255.255.255.128",
        "iroute 10.202.9.0 255.255.255.0",
    ]


def test_an_instance_without_sites_has_an_empty_directory() -> None:
    entries = read_sites(sites=[row("a", "10.101.0.16")], instances=["tun0", "tun1"], network=NETWORK)
    files = ccd_files(entries=entries, instances=["tun0", "tun1"], netmask="255.255.0.0")
    assert {name: sorted(found) for name, found in files.items()} == {"tun0": ["a"], "tun1": []}


def test_a_site_may_have_a_second_tunnel_on_another_instance() -> None:
    sites = [
        row("a", "10.101.0.16", "10.202.1.0/24"),
        row("a", "10.101.0.32", "10.202.1.0/24", instance="tun1"),
    ]
    assert len(read_sites(sites=sites, instances=["tun0", "tun1"], network=NETWORK)) == 2


@pytest.mark.parametrize(
    ("sites", "text"),
    [
        ([row("a", "10.101.0.16"), row("b", "10.101.0.16")], "site b: tunnel address 10.101.0.16 is already that of"),
        ([row("a", "10.101.0.16", instance="tun7")], "site a: instance 'tun7' is not one of tun0"),
        ([row("a", "10.102.0.16")], "site a: tunnel address 10.102.0.16 lies outside 10.101.0.0/16"),
        ([row("a", "10.101.0.1")], "site a: tunnel address 10.101.0.1 is the gateways' address"),
        ([row("a", "10.101.0.0")], "site a: tunnel address 10.101.0.0 is the network's own address"),
        ([row("a", "10.101.255.255")], "site a: tunnel address 10.101.255.255 is the broadcast address"),
        ([row("a", "10.101.0.16"), row("a", "10.101.0.17")], "site a: listed twice on tun0; remove one row"),
        (
            [row("a", "10.101.0.16", "10.202.0.0/16"), row("b", "10.101.0.17", "10.202.3.0/24")],
            "site b: LAN 10.202.3.0/24 overlaps 10.202.0.0/16 of site a",
        ),
        ([row("../etc", "10.101.0.16")], "site '../etc': the id is no host name in lower case"),
        ([row("DEFAULT", "10.101.0.16")], "site 'DEFAULT': the id is no host name in lower case"),
        ([row("a", "10.101.0.16", "10.202.1.1/24")], "site 'a': 10.202.1.1/24 has host bits set"),
        ([row("a", "10.101.0.16", *(f"10.202.{n}.0/25" for n in range(200)), *(f"10.203.{n}.0/25" for n in range(57)))],
         "site 'a': 257 LAN prefixes, but OpenVPN serves 256 per site"),
    ],
)  # fmt: skip
def test_what_openvpn_would_accept_in_silence_is_refused(sites: list[dict[str, t.Any]], text: str) -> None:
    with pytest.raises(SiteConfigError) as caught:
        read_sites(sites=sites, instances=["tun0"], network=NETWORK)
    assert any(problem.startswith(text) for problem in caught.value.problems), caught.value.problems


def test_every_problem_is_told_at_once() -> None:
    sites = [row("a", "10.101.0.1"), row("b", "10.101.0.1"), row("c", "10.9.0.1", instance="x")]
    with pytest.raises(SiteConfigError) as caught:
        read_sites(sites=sites, instances=["tun0"], network=NETWORK)
    assert len(caught.value.problems) == 5
