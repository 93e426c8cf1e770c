# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What gateway_routing decides from what runs, so that a run that was cut off is made good by the next."""

from __future__ import annotations

import itertools
import json
import posixpath
import subprocess
import typing as t
from pathlib import Path

import jinja2
import pytest
import yaml

ROLE = Path(__file__).parents[3] / "roles/gateway_routing"
LOADED = {"rc": 0, "changed": False}
OTHER = {"rc": 1, "changed": False}


def environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROLE / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - as Ansible renders
    )
    made.tests["changed"] = lambda result: bool(result["changed"])
    made.filters |= {
        "comment": lambda text: f"# {text}",
        "dirname": posixpath.dirname,
        "from_json": json.loads,
        "difference": lambda left, right: [item for item in left if item not in right],
    }
    return made


def tasks(name: str) -> dict[str, dict[str, t.Any]]:
    found = yaml.safe_load((ROLE / "tasks" / name).read_text(encoding="utf-8"))
    return {task["name"]: task for task in found}


def role_variables(**changed: t.Any) -> dict[str, t.Any]:
    return {**yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8")), **changed}


def holds(condition: str | list[str], **variables: t.Any) -> bool:
    conditions = [condition] if isinstance(condition, str) else condition
    return all(environment().compile_expression(item)(**variables) for item in conditions)


class Host:
    """The filter's file and record in a directory, nft replaced by a copy that shows what was loaded."""

    def __init__(self, directory: Path) -> None:
        self.file, self.record, self.kernel = directory / "rules.nft", directory / "run/loaded", directory / "kernel"
        self.nft = directory / "nft"
        self.nft.write_text(f'#!/bin/sh\ncp "$2" {self.kernel}\n', encoding="utf-8")
        self.nft.chmod(0o755)

    def load(self, template: str, kind: str) -> int:
        variables = role_variables(
            ansible_managed="Ansible managed",
            __gateway_routing_firewall_file=str(self.file),
            __gateway_routing_firewall_record=str(self.record),
        )
        made = environment()
        line = made.from_string(variables["__gateway_routing_firewall_load"]).render(variables)
        text = made.get_template(template).render(variables | {"__gateway_routing_firewall_load": line})
        (command,) = (row.partition("=")[2] for row in text.splitlines() if row.startswith(f"{kind}="))
        shell = command.lstrip("-").replace("/usr/sbin/nft", str(self.nft)).replace("$$", "$")
        return subprocess.run(shell, shell=True, check=False).returncode  # noqa: S602 - the unit's own line

    def current(self) -> bool:
        """What the role finds: `nft list` answers when anything was loaded."""
        (self.nft.parent / "bin").mkdir(exist_ok=True)
        listing = self.nft.parent / "bin/nft"
        listing.write_text(f"#!/bin/sh\nexec cat {self.kernel}\n", encoding="utf-8")
        listing.chmod(0o755)
        task = tasks("firewall.yml")["See whether the loaded rules are there, and those of the file"]
        command = environment().from_string(task["ansible.builtin.shell"]["cmd"])
        done = subprocess.run(  # noqa: S602 - the task's own line
            command.render(__gateway_routing_firewall_record=str(self.record)),
            shell=True,
            check=False,
            capture_output=True,
            env={"PATH": f"{listing.parent}:/usr/bin:/bin"},
        )
        return done.returncode == 0


LOADERS = [
    ("spokewright-firewall.service.j2", "ExecStart"),
    ("spokewright-firewall.service.j2", "ExecReload"),
    ("nftables-dropin.conf.j2", "ExecStartPost"),
    ("nftables-dropin.conf.j2", "ExecReload"),
    ("nftables-dropin.conf.j2", "ExecStopPost"),
]


@pytest.mark.parametrize(("template", "kind"), LOADERS)
def test_who_loads_the_filter_records_what_was_loaded(template: str, kind: str, tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.file.write_text("old", encoding="utf-8")
    assert not host.current()
    assert host.load(template, kind) == 0
    assert (host.kernel.read_text(encoding="utf-8"), host.current()) == ("old", True)

    host.file.write_text("new, and the run is cut off here", encoding="utf-8")
    assert not host.current()


def test_rules_that_were_refused_are_not_recorded_as_loaded(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.file.write_text("old", encoding="utf-8")
    host.load(*LOADERS[0])
    host.file.write_text("new", encoding="utf-8")
    host.nft.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    assert host.load(*LOADERS[1]) != 0
    assert not host.current()


def test_rules_that_somebody_took_away_are_missed(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.file.write_text("ours", encoding="utf-8")
    host.load(*LOADERS[0])
    assert host.current()
    host.kernel.unlink()
    assert not host.current()


@pytest.mark.parametrize(
    ("check", "unit_changed", "file_changed", "loaded"),
    list(itertools.product([False, True], [False, True], [False, True], [LOADED, OTHER])),
)
def test_the_filter_is_loaded_when_it_is_not_the_one_on_disk(
    *, check: bool, unit_changed: bool, file_changed: bool, loaded: dict[str, t.Any]
) -> None:
    names = role_variables()
    paths = [names["__gateway_routing_firewall_file"]] * file_changed + ["/the/unit"] * unit_changed
    known: dict[str, t.Any] = {
        "ansible_check_mode": check,
        "omit": "",
        "__gateway_routing_firewall_unit_file": "/the/unit",
        "__gateway_routing_firewall_file": names["__gateway_routing_firewall_file"],
        "__gateway_routing_written": {"paths": paths},
        "__gateway_routing_firewall_loaded": loaded,
    }
    task = tasks("firewall.yml")["Have the packet filter loaded in one step, also at boot"]
    # In check mode on a first run there is no unit yet that could be asked.
    assert holds(task["when"], **known) == (not (check and unit_changed))
    expression = task["vars"]["__gateway_routing_firewall_differs"].strip().removeprefix("{{").removesuffix("}}")
    known["__gateway_routing_firewall_differs"] = environment().compile_expression(expression)(**known)
    state = environment().from_string(task["ansible.builtin.systemd_service"]["state"]).render(known)
    assert state == ("reloaded" if file_changed or loaded is OTHER else "")


@pytest.mark.parametrize("name", ["firewall.yml", "routes.yml"])
def test_systemd_reads_its_units_again_whether_or_not_this_run_wrote_them(name: str) -> None:
    enabling = [
        task["ansible.builtin.systemd_service"]
        for task in tasks(name).values()
        if task.get("ansible.builtin.systemd_service", {}).get("enabled")
    ]
    assert [task["daemon_reload"] for task in enabling] == [True]


def test_the_daemon_of_a_device_of_ours_that_goes_is_stopped_before_that() -> None:
    links = [
        {"ifname": "lo"},
        {"ifname": "tun0", "ifalias": "spokewright"},
        {"ifname": "tun1", "ifalias": "spokewright"},
        {"ifname": "tun8"},
        {"ifname": "tun9", "ifalias": "somebody else's"},
    ]
    seen = {"looks": {"links": {"stdout": json.dumps(links)}}}
    found = tasks("routes.yml")
    stopping = "Stop the daemon of an instance that is no longer in the plan before its device goes"
    expression = found[stopping]["loop"].strip().removeprefix("{{").removesuffix("}}")
    loop = environment().compile_expression(expression)
    assert loop(__gateway_routing_seen=seen, __gateway_routing_devices=["tun0"]) == ["tun1"]
    assert loop(__gateway_routing_seen=seen, __gateway_routing_devices=["tun0", "tun1"]) == []
    assert list(found).index(stopping) < list(found).index("Make devices and routes be as wanted now")


def test_networkd_is_never_restarted_under_a_virtual_address() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROLE / "tasks").glob("*.yml"))
    assert "systemd-networkd.service" not in text
