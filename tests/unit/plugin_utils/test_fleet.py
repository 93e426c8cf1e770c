# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loading a fleet: what is accepted, what is derived, what is written."""

from __future__ import annotations

import json
from datetime import date
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError, InputErrors
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Remote, load_fleet, write_lock
from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Routing
from unit.plugin_utils.fleet_files import HEADER, PLAN, SITES, host_key, site_line, write_fleet

if TYPE_CHECKING:
    from pathlib import Path


def test_everything_of_a_site_is_derived(tmp_path: Path) -> None:
    sites = SITES.replace("10.64.2.0/24,", "10.64.2.0/24 10.65.2.0/25,transports=internet oob_port=2222 oob_user=fleet")
    fleet = load_fleet(plan_file=write_fleet(tmp_path, sites=sites))

    site = fleet.sites[1]
    assert (site.id, site.group, site.line) == ("site-0002", "north", 3)
    assert (site.oob_address, site.oob_port, site.oob_user) == ("172.20.1.2", 2222, "fleet")
    assert site.lans == ("10.64.2.0/24", "10.65.2.0/25")
    assert (site.tunnel_address, site.tunnel_block) == ("10.101.0.32", "10.101.0.32/28")
    assert (site.instance, site.port) == ("tun1", 1195)
    assert site.transports == ("internet",)
    assert site.remotes == (Remote("internet", "203.0.113.1", 1195),)
    assert [remote.transport for remote in fleet.sites[0].remotes] == ["frame_relay", "internet"]
    assert [(one.name, one.index, one.port, one.device, one.blocks) for one in fleet.instances] == [
        ("tun0", 0, 1194, "tun0", ("10.101.0.16/28",)),
        ("tun1", 1, 1195, "tun1", ("10.101.0.32/28",)),
    ]
    assert fleet.plan.registry == tmp_path / "sites.csv"
    assert str(fleet.plan.tunnels.server_address) == "10.101.0.1"


def test_transports_keep_the_order_of_the_site(tmp_path: Path) -> None:
    sites = SITES.replace("10.64.2.0/24,", "10.64.2.0/24,transports=internet+frame_relay")
    fleet = load_fleet(plan_file=write_fleet(tmp_path, sites=sites))

    assert [remote.transport for remote in fleet.sites[1].remotes] == ["internet", "frame_relay"]


@pytest.mark.parametrize(
    "sites",
    [
        b"\xef\xbb\xbf" + SITES.encode(),
        SITES.replace("\n", "\r\n").encode(),
        SITES.replace("\n", "\r").encode(),
        SITES.replace("\n", "\n\n").encode(),
        SITES.replace("\n", "\n,,,,,\n").encode(),
        ("# our sites\n" + SITES).encode(),
        SITES.replace(",", " , ").encode(),
        "\n".join(",".join(f'"{field}"' for field in line.split(",")) for line in SITES.splitlines()).encode(),
        SITES.rstrip("\n").encode(),
    ],
    ids=["BOM", "CRLF", "CR", "blank lines", "empty rows", "comment", "spaces", "quotes", "no newline at the end"],
)
def test_what_editors_and_spreadsheets_do_is_accepted(sites: bytes, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    expected = load_fleet(plan_file=write_fleet(plain))
    fleet = load_fleet(plan_file=write_fleet(tmp_path, sites=sites))

    assert fleet.lock == expected.lock
    assert [(site.id, site.lans, site.host_key) for site in fleet.sites] == [
        (site.id, site.lans, site.host_key) for site in expected.sites
    ]


def test_line_numbers_are_those_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sites = "\r\n\r\n# comment\r\n" + SITES.replace("\n", "\r\n\r\n").replace("10.64.3.0/24", "10.64.3.0")

    with pytest.raises(InputErrors) as caught:
        load_fleet(plan_file=write_fleet(tmp_path, sites=sites))

    assert [problem.line for problem in caught.value.problems] == [10]


def test_columns_may_stand_in_any_order(tmp_path: Path) -> None:
    rows = [line.split(",") for line in SITES.splitlines()]
    sites = "\n".join(",".join(reversed(row)) for row in rows)

    assert load_fleet(plan_file=write_fleet(tmp_path, sites=sites)).sites[0].oob_address == "172.20.1.1"


def test_a_site_without_lan_is_allowed(tmp_path: Path) -> None:
    fleet = load_fleet(plan_file=write_fleet(tmp_path, sites=SITES.replace("10.64.3.0/24", "")))

    assert fleet.sites[2].lans == ()


def test_two_sites_may_share_an_address_on_two_ports(tmp_path: Path) -> None:
    sites = SITES.replace("172.20.1.3", "172.20.1.2").replace("10.64.3.0/24,", "10.64.3.0/24,oob_port=2222")

    assert len(load_fleet(plan_file=write_fleet(tmp_path, sites=sites)).sites) == 4


def test_the_comment_of_a_host_key_is_left_out(tmp_path: Path) -> None:
    sites = SITES.replace(host_key("site-0003"), f"{host_key('site-0003')} root@remote")

    assert load_fleet(plan_file=write_fleet(tmp_path, sites=sites)).sites[2].host_key == host_key("site-0003")


def test_missing_host_keys_can_be_waived_to_collect_them(tmp_path: Path) -> None:
    sites = SITES.replace(host_key("site-0003"), "")
    plan = PLAN.replace(f"    host_key: {host_key('gw2')}\n", "")
    plan_file = write_fleet(tmp_path, sites=sites, plan=plan)

    fleet = load_fleet(plan_file=plan_file, require_host_keys=False)
    assert (fleet.sites[2].host_key, fleet.plan.gateways[1].host_key) == ("", "")
    with pytest.raises(InputErrors) as caught:
        load_fleet(plan_file=plan_file)
    assert len(caught.value.problems) == 2


def test_auto_is_the_cores_of_the_smaller_gateway(tmp_path: Path) -> None:
    plan = PLAN.replace("count: 2", "count: auto").replace("    cores: 2\n", "    cores: 3\n")

    assert len(load_fleet(plan_file=write_fleet(tmp_path, plan=plan)).instances) == 3


def test_a_core_network_may_hold_the_inside_network(tmp_path: Path) -> None:
    plan = PLAN.replace("[10.200.0.0/24, 10.201.0.0/24]", "[10.200.0.0/15]")

    assert str(load_fleet(plan_file=write_fleet(tmp_path, plan=plan)).plan.inside.core_networks[0]) == "10.200.0.0/15"


def test_optional_sections_have_their_defaults(tmp_path: Path) -> None:
    lines = [
        line
        for line in PLAN.splitlines()
        if not line.strip().startswith(("mode:", "block_", "second_", "keepalive:", "key_type:", "policies:"))
    ]
    plan = load_fleet(plan_file=write_fleet(tmp_path, plan="\n".join(lines))).plan

    assert (plan.tunnels.mode, plan.tunnels.block_prefix, plan.tunnels.second_network) == ("single", 28, None)
    assert (plan.tunnels.keepalive.interval, plan.tunnels.keepalive.timeout, plan.tunnels.key_type) == (2, 6, "p256")
    assert (plan.policies.gate_seconds, plan.policies.deadman_seconds, plan.policies.advert_seconds) == (60, 120, 0.1)


def test_the_lock_is_written_once_and_is_the_same_every_time(tmp_path: Path) -> None:
    plan_file = write_fleet(tmp_path)
    fleet = load_fleet(plan_file=plan_file)
    assert [change.kind for change in fleet.changes].count("site-added") == 4

    assert write_lock(fleet=fleet)
    text = (tmp_path / "test.lock.json").read_text(encoding="utf-8")
    again = load_fleet(plan_file=plan_file)

    assert again.changes == ()
    assert not write_lock(fleet=again)
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"
    assert json.loads(text) == {
        "version": 1,
        "network": "10.101.0.0/24",
        "block_prefix": 28,
        "instances": 2,
        "blocks": {"10.101.0.16/28": "tun0", "10.101.0.32/28": "tun1"},
        "sites": {
            "site-0001": "10.101.0.16",
            "site-0002": "10.101.0.32",
            "site-0003": "10.101.0.17",
            "site-0004": "10.101.0.33",
        },
        "tombstones": {},
    }


def test_a_removed_site_gets_the_day_of_the_caller(tmp_path: Path) -> None:
    write_lock(fleet=load_fleet(plan_file=write_fleet(tmp_path)))
    plan_file = write_fleet(tmp_path, sites="\n".join([HEADER, site_line(1), site_line(2), site_line(4)]))

    fleet = load_fleet(plan_file=plan_file, today=date(2026, 12, 31))

    assert fleet.lock.tombstones["site-0003"] == ("10.101.0.17", "2026-12-31")
    assert [(change.kind, change.subject) for change in fleet.changes] == [("site-removed", "site-0003")]


def test_a_lock_somebody_else_wrote_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fleet = load_fleet(plan_file=write_fleet(tmp_path))
    (tmp_path / "test.lock.json").write_text("{}", encoding="utf-8")

    with pytest.raises(FleetError) as caught:
        write_lock(fleet=fleet)

    assert (
        str(caught.value) == "test.lock.json: somebody else wrote the lock meanwhile. Nothing was written; run again."
    )
    assert (tmp_path / "test.lock.json").read_text(encoding="utf-8") == "{}"


def test_a_block_of_an_instance_that_is_gone_is_a_move(tmp_path: Path) -> None:
    write_lock(fleet=load_fleet(plan_file=write_fleet(tmp_path)))
    plan_file = write_fleet(tmp_path, plan=PLAN.replace("count: 2", "count: 1"))

    fleet = load_fleet(plan_file=plan_file)

    assert [change.kind for change in fleet.changes] == ["instance-removed", "block-moved"]
    assert {site.instance for site in fleet.sites} == {"tun0"}


def test_a_plan_that_is_not_there_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputErrors) as caught:
        load_fleet(plan_file=tmp_path / "other.fleet.yml")

    assert str(caught.value) == (
        "other.fleet.yml: there is no such file. Name the plan with -i: it ends in .fleet.yml.\n"
        "1 problem found, nothing was touched."
    )


def test_paths_outside_the_working_directory_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(InputErrors) as caught:
        load_fleet(plan_file=write_fleet(tmp_path, sites=SITES.replace("0003,north", "0003,nort")))

    assert str(caught.value).startswith(f"{tmp_path}/sites.csv:4: group: ")


def test_a_full_network_names_a_removed_site_only_where_there_is_one(tmp_path: Path) -> None:
    plan = PLAN.replace("10.101.0.0/24", "10.101.0.0/27").replace("10.102.0.0/24", "10.102.0.0/27")
    plan = plan.replace("count: 2", "count: 1")

    def registry(first: int, last: int) -> str:
        return "\n".join([HEADER, *(site_line(number) for number in range(first, last + 1))])

    write_lock(fleet=load_fleet(plan_file=write_fleet(tmp_path, plan=plan, sites=registry(1, 15))))
    for first, says in ((1, "Take sites out; the network of a fleet in use cannot grow."), (2, "--release site-0001 ")):
        plan_file = write_fleet(tmp_path, plan=plan, sites=registry(first, 16))
        with pytest.raises(InputErrors) as caught:
            load_fleet(plan_file=plan_file)
        assert says in str(caught.value)
        assert "larger" not in str(caught.value)
    assert load_fleet(plan_file=plan_file, release_sites=["site-0001"]).sites[-1].id == "site-0016"


def test_the_core_router_proves_the_inside_unless_others_are_named(tmp_path: Path) -> None:
    def probes(line: str, plan: str = PLAN) -> list[str]:
        text = plan.replace("  core_next_hop: 10.200.0.10\n", line)
        return [str(one) for one in load_fleet(plan_file=write_fleet(tmp_path, plan=text)).plan.inside.probes]

    assert probes("  core_next_hop: 10.200.0.10\n") == ["10.200.0.10"]
    assert probes("  core_next_hop: 10.200.0.10\n  probes: [10.200.0.11, 10.200.0.12]\n") == [
        "10.200.0.11",
        "10.200.0.12",
    ]
    assert probes("  core_next_hop: 10.200.0.10\n  probes: []\n") == []
    assert probes("", plan=PLAN.replace(", 10.201.0.0/24]", "]")) == []


def test_a_transport_has_probes_and_an_mtu(tmp_path: Path) -> None:
    plan = PLAN.replace("vrrp_id: 30}", "vrrp_id: 30, probes: [203.0.113.9], mtu: 1480}")
    usual, other = load_fleet(plan_file=write_fleet(tmp_path, plan=plan)).plan.transports

    assert (usual.probes, usual.mtu) == ((), 1500)
    assert ([str(one) for one in other.probes], other.mtu) == (["203.0.113.9"], 1480)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", Routing()),
        ("routing: {protocol: static}\n", Routing()),
        (
            "routing: {protocol: ospf}\n",
            Routing(protocol="ospf", bfd=True, area=IPv4Address(0), hello_seconds=10, dead_seconds=40),
        ),
        (
            "routing: {protocol: ospf, area: 0.0.0.7, hello_seconds: 1, dead_seconds: 4, bfd: no}\n",
            Routing(protocol="ospf", bfd=False, area=IPv4Address("0.0.0.7"), hello_seconds=1, dead_seconds=4),
        ),
        (
            "routing: {protocol: bgp, local_as: 64512, peer_as: 64513}\n",
            Routing(protocol="bgp", bfd=True, local_as=64512, peer_as=64513, neighbors=(IPv4Address("10.200.0.10"),)),
        ),
        (
            "routing: {protocol: bgp, local_as: 1, peer_as: 4200000000, neighbors: [10.200.0.11, 10.200.0.12]}\n",
            Routing(
                protocol="bgp",
                bfd=True,
                local_as=1,
                peer_as=4200000000,
                neighbors=(IPv4Address("10.200.0.11"), IPv4Address("10.200.0.12")),
            ),
        ),
    ],
)
def test_routing_is_static_unless_it_says_otherwise(tmp_path: Path, written: str, expected: Routing) -> None:
    plan = PLAN.replace("groups: [canary", written + "groups: [canary")

    assert load_fleet(plan_file=write_fleet(tmp_path, plan=plan)).plan.routing == expected
