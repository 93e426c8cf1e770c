# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ssh section of a plan with a bastion, the registry's options for it, and the how-to that shows both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Bastion
from ansible_collections.spokewright.fleet.plugins.plugin_utils.targets import at_once, gateway_target, site_target
from unit.plugin_utils.fleet_files import PLAN, SITES, host_key, write_fleet

if TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet

HOW_TO = Path(__file__).resolve().parents[3] / "docs" / "delivery-over-a-bastion.md"
SSH = "ssh: {user: root, port: 22, private_key_file: id_ed25519}"


def fleet(folder: Path, *, ssh: str = SSH, sites: str = SITES, require_host_keys: bool = True) -> Fleet:
    plan_file = write_fleet(folder, plan=PLAN.replace(SSH, ssh), sites=sites)
    return load_fleet(plan_file=plan_file, require_host_keys=require_host_keys)


def test_without_a_bastion_everything_is_reached_directly(tmp_path: Path) -> None:
    found = fleet(tmp_path)
    assert found.plan.ssh.bastion is None
    assert {(site.bastion, site.oob_client) for site in found.sites} == {(None, "paramiko")}


def test_the_bastion_has_the_login_of_the_hosts_unless_it_has_its_own(tmp_path: Path) -> None:
    key = host_key("bastion")
    short = f"ssh: {{user: admin, private_key_file: id, bastion: {{address: 192.0.2.9, host_key: {key} some comment}}}}"
    assert fleet(tmp_path, ssh=short).plan.ssh.bastion == Bastion(
        address="192.0.2.9", port=22, user="admin", host_key=key, private_key_file=tmp_path / "id", channels=10
    )
    own = (
        "ssh: {private_key_file: id, bastion: {address: 192.0.2.9, port: 2222, user: jump, private_key_file: other, "
        f"channels: 3, host_key: {key}}}}}"
    )
    assert fleet(tmp_path, ssh=own).plan.ssh.bastion == Bastion(
        address="192.0.2.9", port=2222, user="jump", host_key=key, private_key_file=tmp_path / "other", channels=3
    )


def test_a_gateway_may_be_the_bastion(tmp_path: Path) -> None:
    ssh = f"ssh: {{private_key_file: id, bastion: {{address: 172.20.0.1, host_key: {host_key('gw1')}}}}}"
    found = fleet(tmp_path, ssh=ssh)
    assert found.plan.ssh.bastion is not None
    assert gateway_target(plan=found.plan, gateway=found.plan.gateways[1]).bastion == found.plan.ssh.bastion


def test_the_command_that_collects_keys_takes_a_bastion_without_one(tmp_path: Path) -> None:
    ssh = "ssh: {private_key_file: id, bastion: {address: 192.0.2.9}}"
    bastion = fleet(tmp_path, ssh=ssh, require_host_keys=False).plan.ssh.bastion
    assert bastion is not None
    assert bastion.host_key == ""


def test_the_how_to_shows_a_plan_and_a_registry_that_are_taken(tmp_path: Path) -> None:
    text = HOW_TO.read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (rows,) = re.findall(r"```csv\n(.*?)```", text, re.DOTALL)
    blob = re.findall(r"ssh-ed25519 \S+", shown)
    found = fleet(tmp_path, ssh=shown.rstrip("\n"), sites=rows)
    assert found.plan.ssh.bastion is not None
    assert (found.plan.ssh.bastion.user, found.plan.ssh.bastion.channels) == ("fleet", 10)
    assert found.plan.ssh.bastion.host_key == blob[0]
    site = site_target(plan=found.plan, site=found.sites[0])
    assert (site.name, site.client, site.bastion) == ("site-0042", "openssh", found.plan.ssh.bastion)


def test_the_how_to_names_every_option_and_every_reason() -> None:
    text = HOW_TO.read_text(encoding="utf-8")
    words = (
        *("oob_bastion=none", "oob_client=openssh", "channels", "private_key_file"),
        *("bastion-unreachable", "bastion-refused", "bastion-key-changed", "old-algorithms", "not-tried"),
    )
    assert [word for word in words if word not in text] == []


def test_the_key_of_the_key_store_lies_beside_it_or_where_the_plan_says(tmp_path: Path) -> None:
    assert fleet(tmp_path).plan.key_store_key == tmp_path / "keystore.key"
    plan = PLAN.replace("key_store: keystore", "key_store: keystore\nkey_store_key: ../apart/vault-client")
    found = load_fleet(plan_file=write_fleet(tmp_path, plan=plan))
    assert found.plan.key_store_key == tmp_path.parent / "apart/vault-client"


def test_no_more_sites_are_worked_on_than_the_bastion_lets_through(tmp_path: Path) -> None:
    assert at_once(sites=fleet(tmp_path).sites, workers=32) == 32
    ssh = f"ssh: {{private_key_file: id, bastion: {{address: 192.0.2.9, host_key: {host_key('b')}, channels: 4}}}}"
    behind = fleet(tmp_path, ssh=ssh)
    assert at_once(sites=behind.sites, workers=32) == 4
    assert at_once(sites=behind.sites, workers=2) == 2
    mixed = fleet(tmp_path, ssh=ssh, sites=SITES.replace("10.64.3.0/24,", "10.64.3.0/24,oob_bastion=none"))
    assert at_once(sites=mixed.sites, workers=32) == 4 + 1
