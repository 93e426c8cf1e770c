# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory the lab writes, and what of it stays the operator's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lablib import inventory, paths, topology
from lablib.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "id,group,oob_address,host_key,lan,options\n"
KEYS = {"gw1": "ssh-ed25519 AAAA1", "gw2": "ssh-ed25519 AAAA2"}


def rows(sites: int, key: str = "ssh-ed25519 NEW") -> list[inventory.Row]:
    return [inventory.row(host=topology.site(number), host_key=key) for number in range(1, sites + 1)]


def test_a_new_registry_has_a_row_for_every_site() -> None:
    assert inventory.merge_registry(text="", rows=rows(2)) == (
        HEADER
        + "site-0001,canary,198.18.1.1,ssh-ed25519 NEW,10.202.1.0/24,\n"
        + "site-0002,north,198.18.1.2,ssh-ed25519 NEW,10.202.2.0/24,\n"
    )


def test_an_edited_row_keeps_its_edits_and_gets_the_right_host_key() -> None:
    text = HEADER + "site-0001,south,198.18.1.1,ssh-ed25519 OLD,10.202.1.0/24 10.202.200.0/24,transports=internet\n"
    merged = inventory.merge_registry(text=text, rows=rows(1))
    assert merged.splitlines()[1] == (
        "site-0001,south,198.18.1.1,ssh-ed25519 NEW,10.202.1.0/24 10.202.200.0/24,transports=internet"
    )


def test_sites_of_a_larger_lab_go_and_rows_of_somebody_else_stay() -> None:
    text = (
        HEADER + "branch-7,north,192.0.2.7,ssh-ed25519 X,10.202.99.0/24,\nsite-0009,north,198.18.1.9,k,10.202.9.0/24,\n"
    )
    merged = inventory.merge_registry(text=text, rows=rows(1)).splitlines()
    assert [line.split(",")[0] for line in merged] == ["id", "branch-7", "site-0001"]


def test_a_second_up_changes_no_byte() -> None:
    once = inventory.merge_registry(text="", rows=rows(8))
    assert inventory.merge_registry(text=once, rows=rows(8)) == once


def test_a_registry_without_a_column_is_not_overwritten() -> None:
    with pytest.raises(LabError, match=r"sites\.csv:1: column host_key, lan is missing .* run tools/lab up again"):
        inventory.merge_registry(text="id,group,oob_address,options\nsite-0001,a,b,c\n", rows=rows(1))


def test_lans_are_read_as_far_as_they_are_prefixes() -> None:
    text = HEADER + "site-0001,a,b,c,10.202.1.0/24 10.202.200.0/25,\nsite-0002,a,b,c,nonsense 10.202.1.1/24,\n"
    assert inventory.lans(text=text) == {"site-0001": ["10.202.1.0/24", "10.202.200.0/25"]}
    assert inventory.lans(text="wrong\n") == {}


def test_the_plan_is_what_the_inventory_plugin_reads() -> None:
    plan: dict[str, Any] = yaml.safe_load(inventory.plan_text(host_keys=KEYS, cores=2))
    assert plan["plugin"] == "spokewright.fleet.fleet"
    assert plan["gateways"]["gw1"]["host_key"] == KEYS["gw1"]
    assert plan["gateways"]["gw2"]["inside"] == {"interface": "inside0", "address": "10.200.0.3"}
    assert plan["gateways"]["gw2"]["transports"]["internet"] == {"interface": "inet0", "address": "198.19.128.3"}
    assert plan["inside"]["probes"] == ["10.200.0.10"]
    assert [(transport["name"], transport["probes"]) for transport in plan["transports"]] == [
        ("frame_relay", ["198.19.127.254"]),
        ("internet", ["198.19.255.254"]),
    ]
    assert plan["groups"] == ["canary", "north", "south"]


def test_an_edited_plan_keeps_every_byte_but_the_host_keys() -> None:
    text = inventory.plan_text(host_keys=KEYS, cores=2).replace("count: auto", "count: 4  # mine")
    merged = inventory.merge_plan(text=text, host_keys={"gw1": "ssh-ed25519 B1", "gw2": "ssh-ed25519 B2"}, cores=2)
    assert merged == text.replace("AAAA1", "B1").replace("AAAA2", "B2")


def test_a_host_key_in_another_place_of_the_gateway_is_found() -> None:
    text = "gateways:\n  gw1:\n    cores: 2\n    # the pair's first\n    host_key: old\n  gw2:\n    host_key: old\n"
    merged = inventory.merge_plan(text=text, host_keys=KEYS, cores=2)
    assert merged == text.replace("old", KEYS["gw1"], 1).replace("host_key: old", f"host_key: {KEYS['gw2']}")


def test_a_plan_without_a_place_for_the_host_key_is_not_overwritten() -> None:
    with pytest.raises(LabError, match=r"lab\.fleet\.yml: no line `    host_key:` under `  gw2:`"):
        inventory.merge_plan(text="gateways:\n  gw1:\n    host_key: x\n  gw2:\n    cores: 2\n", host_keys=KEYS, cores=2)


def test_write_reads_bom_and_crlf_and_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "INVENTORY", tmp_path)
    row = "site-0001,south,198.18.1.1,ssh-ed25519 OLD,10.202.77.0/24,"
    (tmp_path / "sites.csv").write_bytes(("\ufeff" + HEADER + row + "\n").replace("\n", "\r\n").encode())
    keys = {**KEYS, "site-0001": "ssh-ed25519 NEW"}
    inventory.write(hosts=topology.hosts(sites=1), host_keys=keys, cores=2)
    assert (tmp_path / "sites.csv").read_text(encoding="utf-8") == HEADER + row.replace("OLD", "NEW") + "\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lab.fleet.yml", "sites.csv"]


def test_the_client_key_is_made_once_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "INVENTORY", tmp_path)
    public = inventory.client_key()
    assert public.startswith("ssh-ed25519 ")
    assert inventory.client_key() == public
    assert (tmp_path / "ssh/id_ed25519").stat().st_mode & 0o777 == 0o600
    (tmp_path / "ssh/id_ed25519.pub").unlink()
    with pytest.raises(LabError, match=r"id_ed25519\.pub is missing beside its private key"):
        inventory.client_key()
