# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A keepalived follows its configuration for what it runs with, whatever happened to the run that wrote it."""

from __future__ import annotations

import posixpath
import subprocess
import typing as t
from pathlib import Path

import jinja2
import pytest
import yaml

from ansible_collections.spokewright.fleet.plugins.filter.gateway import FilterModule

ROLE = Path(__file__).parents[3] / "roles/ha_agent"
OLD = "vrrp_instance IN {\n    advert_int 0.1\n    virtual_ipaddress {\n        10.200.0.1/32\n    }\n}\n"
SLOWER = OLD.replace("advert_int 0.1", "advert_int 0.2")
MOVED = OLD.replace("10.200.0.1", "10.200.0.9")


def environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROLE / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - as Ansible renders
    )
    made.filters |= {f"spokewright.fleet.{name}": found for name, found in FilterModule().filters().items()}
    made.filters |= {"comment": lambda text: f"# {text}", "dirname": posixpath.dirname}
    made.filters["bool"] = lambda value: str(value).lower() == "true"
    return made


def tasks() -> dict[str, dict[str, t.Any]]:
    texts = [(ROLE / f"tasks/{name}.yml").read_text(encoding="utf-8") for name in ("look", "service")]
    return {task["name"]: task for text in texts for task in yaml.safe_load(text)}


class Host:
    """keepalived's configuration and the record of what it runs with."""

    def __init__(self, directory: Path) -> None:
        self.config, self.record = directory / "keepalived.conf", directory / "run/keepalived.started"

    def systemd(self, kind: str) -> None:
        """Run the drop-in's own lines of one kind, but for the one that clears away pid files."""
        text = (
            environment()
            .get_template("keepalived-dropin.conf.j2")
            .render(
                ansible_managed="Ansible managed",
                __ha_agent_config=str(self.config),
                __ha_agent_started=str(self.record),
                __ha_agent_members=[],
                ha_agent_fence=True,
                __ha_agent_fence_unit="spokewright-fence.service",
            )
        )
        lines = [row.partition("=-")[2] for row in text.splitlines() if row.startswith(f"{kind}=-/bin/sh ")]
        assert lines, kind
        for line in lines:
            subprocess.run(line, shell=True, check=True)  # noqa: S602 - the unit's own line

    def next_run(self, *, active: bool = True) -> str:
        """What a run does to keepalived that finds its configuration already written."""
        looks = tasks()["Look what runs, and with what it was started"]["spokewright.fleet.looks"]["commands"]
        read = looks["keepalived_started"]
        argv = [environment().from_string(word).render(__ha_agent_started=str(self.record)) for word in read]
        stdout = subprocess.run(argv, check=False, capture_output=True, text=True).stdout
        known: dict[str, t.Any] = {
            "lookup": lambda _plugin, _name: self.config.read_text(encoding="utf-8"),
            "__ha_agent_running": {
                "looks": {"keepalived_runs": {"rc": 0 if active else 3}, "keepalived_started": {"stdout": stdout}}
            },
        }
        look = tasks()["Say what it would take"]
        known["__ha_agent_change"] = environment().from_string(look["vars"]["__ha_agent_change"]).render(known)
        would = environment().from_string(look["ansible.builtin.set_fact"]["ha_agent_would"]).render(known)
        task = tasks()["Have keepalived run with its configuration, also after a boot"]
        return environment().from_string(task["ansible.builtin.systemd_service"]["state"]).render(ha_agent_would=would)


@pytest.mark.parametrize("kind", ["ExecStartPre", "ExecReload"])
@pytest.mark.parametrize(("written", "state"), [(OLD, "started"), (SLOWER, "reloaded"), (MOVED, "restarted")])
def test_a_run_that_was_cut_off_after_writing_is_made_good_once(
    kind: str, written: str, state: str, tmp_path: Path
) -> None:
    host = Host(tmp_path)
    host.config.write_text(OLD, encoding="utf-8")
    host.systemd(kind)
    host.config.write_text(written, encoding="utf-8")
    assert host.next_run() == state

    host.systemd("ExecReload" if state == "reloaded" else "ExecStartPre")
    assert host.next_run() == "started"


def test_a_comment_moves_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.config.write_text(OLD, encoding="utf-8")
    host.systemd("ExecStartPre")
    host.config.write_text(f"# new words\n{OLD}", encoding="utf-8")
    assert host.next_run() == "started"


def test_a_keepalived_of_which_nothing_is_known_is_restarted_and_a_stopped_one_started(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.config.write_text(OLD, encoding="utf-8")
    assert host.next_run() == "restarted"
    assert host.next_run(active=False) == "started"


def test_systemd_reads_the_drop_in_again_whether_or_not_this_run_wrote_it() -> None:
    task = tasks()["Have keepalived run with its configuration, also after a boot"]
    assert task["ansible.builtin.systemd_service"]["daemon_reload"] is True


def configuration(**changes: t.Any) -> str:
    def nic(name: str) -> dict[str, str]:
        return {"interface": f"{name}0", "address": "192.0.2.2"}

    gateway = {"name": "gw1", "oob": nic("oob"), "inside": nic("inside"), "transports": {"wan": nic("wan")}}
    members = FilterModule().filters()["vrrp_members"](
        gateway,
        peers=[gateway | {"name": "gw2"}],
        inside={"vip": "10.200.0.1", "vrrp_id": 10},
        transports=[{"name": "wan", "vip": "198.19.0.1", "vrrp_id": 20}],
        oob={"vrrp_id": 40},
    )
    known: dict[str, t.Any] = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
    known |= yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))
    known |= {"__ha_agent_lease_command": "/usr/local/libexec/spokewright/vip-lease 10.200.0.1@inside0"}
    known |= {"ansible_managed": "Ansible managed", "ha_agent_gateway": gateway, "__ha_agent_members": members}
    known |= {"__ha_agent_vips": [member for member in members if member["vip"]]} | changes
    return environment().get_template("keepalived.conf.j2").render(known)


def test_the_lease_is_keepaliveds_own_to_renew_and_never_fails_the_gateway() -> None:
    text = configuration()

    assert "track_script {\n        lease\n    }" in text
    assert "notify_master" in text
    # Weight 0 would be a fault: two gateways with a broken nftables would leave nobody.
    assert "    weight -50\n" in text
    assert "lease" not in configuration(ha_agent_fence=False)
    # As a word from the command line.
    assert "lease" not in configuration(ha_agent_fence="false")


def test_routes_of_the_owner_stand_in_the_inside_member_and_are_taken_over_by_reload() -> None:
    routes = [{"prefix": "10.202.1.0/24", "device": "tun0"}]
    text = configuration(ha_agent_virtual_routes=routes)

    inside = text.partition("vrrp_instance IN {")[2].partition("vrrp_instance")[0]
    assert "    virtual_routes {\n        10.202.1.0/24 dev tun0 no_track\n    }\n" in inside
    assert FilterModule().filters()["vrrp_change"](text, configuration()) == "reload"
    assert FilterModule().filters()["vrrp_change"](configuration(ha_agent_fence=False), configuration()) == "restart"


def test_the_addresses_can_be_read_from_what_the_role_writes() -> None:
    assert FilterModule().filters()["vrrp_config_vips"](configuration()) == ["10.200.0.1", "198.19.0.1"]
