# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab itself, on real hosts: it takes down a lab that is up, and leaves one as it found it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from integration.labtools import INVENTORY, ROOT, forget_fleet, lab, on, run
from lablib import topology

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
    pytest.mark.timeout(600),
]

SYSCTLS = (
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
    "kernel/pid_max",
    "net/core/rmem_max",
    "net/core/wmem_max",
    "net/ipv4/neigh/default/gc_thresh1",
    "net/ipv4/neigh/default/gc_thresh2",
    "net/ipv4/neigh/default/gc_thresh3",
)


@dataclass(frozen=True)
class Machine:
    """What of this machine a lab could leave behind."""

    namespaces: frozenset[str]
    mounts: frozenset[str]
    links: frozenset[str]
    routes: frozenset[str]
    processes: frozenset[str]
    cgroups: frozenset[str]
    files: frozenset[str]
    sysctls: frozenset[str]

    def more_than(self, other: Machine) -> dict[str, set[str]]:
        """What is here and was not there."""
        news = {field.name: set(getattr(self, field.name) - getattr(other, field.name)) for field in fields(self)}
        return {name: items for name, items in news.items() if items}


# The network namespaces of hosts that have been up: their processes are known by these.
SEEN: set[int] = set()


def machine() -> Machine:
    netns = Path("/run/netns")
    processes = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                network = (entry / "ns/net").stat().st_ino
            except OSError:
                continue
            if "spokewright-lab" in command or network in SEEN:
                processes.add(f"{entry.name} {command}")
    return Machine(
        namespaces=frozenset(path.name for path in netns.iterdir()) if netns.is_dir() else frozenset(),
        mounts=frozenset(line.split()[1] for line in Path("/proc/self/mounts").read_text("utf-8").splitlines()),
        links=frozenset(path.name for path in Path("/sys/class/net").iterdir()),
        routes=frozenset(run("ip", "route", "show", "table", "all").output.splitlines()),
        processes=frozenset(processes),
        cgroups=frozenset(str(path) for path in Path("/sys/fs/cgroup").glob("**/spokewright*")),
        files=frozenset(path.name for path in Path("/run").iterdir()),
        # In a container some of them are not to be seen.
        sysctls=frozenset(
            f"{name}={path.read_text('ascii').strip()}"
            for name in SYSCTLS
            if (path := Path("/proc/sys") / name).exists()
        ),
    )


def ok(*words: str) -> str:
    answer = lab(*words)
    assert answer.status == 0, answer.output
    return answer.output


def report() -> dict[str, Any]:
    answer = lab("status", "--format", "json")
    found: dict[str, Any] = json.loads(answer.output)
    return found


def host(name: str) -> dict[str, Any]:
    return next(entry for entry in report()["hosts"] if entry["name"] == name)


def reaches(name: str, address: str) -> bool:
    return on(name, f"ping -n -q -c 3 -i 0.2 -W 1 {address}").status == 0


@pytest.fixture(scope="module")
def before() -> Iterator[Machine]:
    """The machine without a lab; afterwards a lab of the size there was."""
    sites = report().get("sites")
    # A registry that another test edited is none of this one's business.
    forget_fleet()
    yield machine()
    if sites:
        ok("up", "--sites", str(sites))
    else:
        ok("down")


@pytest.fixture(scope="module")
def up(before: Machine) -> Machine:
    ok("up", "--sites", "8")
    return before


def test_up_brings_every_host_and_a_second_up_reuses_them(up: Machine) -> None:
    assert "lab-switch" in machine().more_than(up)["namespaces"]
    first = report()
    assert first["well"]
    assert [entry["name"] for entry in first["hosts"]] == [
        *("gw1", "gw2", "core1"),
        *(f"site-{number:04d}" for number in range(1, 9)),
    ]
    assert "all were there already" in ok("up")
    assert report() == first


@pytest.mark.usefixtures("up")
def test_the_hosts_are_as_their_roles_expect_them() -> None:
    facts = on(
        "gw1",
        "hostname; systemctl is-system-running; stat -c %a /dev/net/tun; cat /proc/sys/net/ipv4/ip_forward;"
        "for unit in keepalived nftables openvpn systemd-networkd; do systemctl is-active $unit; done;"
        "cat /proc/sys/net/ipv6/conf/all/disable_ipv6; ls /etc/ssh/ssh_host_*",
    )
    assert facts.output.split() == [
        *("gw1", "running", "666", "0"),
        *["inactive"] * 4,
        *("1", "/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_ed25519_key.pub"),
    ]
    assert on("site-0008", "ip -4 -o address show lan0").output.split()[3] == "10.202.8.1/24"
    assert on("site-0001", "ip route show default").output == ""
    assert "10.202.0.0/15 via 10.200.0.1 dev inside0" in on("core1", "ip route").output


@pytest.mark.usefixtures("up")
def test_ssh_with_the_inventorys_own_keys_and_nothing_else() -> None:
    row = next(line for line in (INVENTORY / "sites.csv").read_text("utf-8").splitlines() if "site-0003" in line)
    _, _, address, key, lan, _ = row.split(",")
    assert lan == "10.202.3.0/24"
    options = [f"-oKnownHostsCommand=/bin/echo {address} {key}", "-oUserKnownHostsFile=none", "-oBatchMode=yes"]
    key_file = str(INVENTORY / "ssh/id_ed25519")
    strict = ["-oStrictHostKeyChecking=yes", "-oIdentitiesOnly=yes", "-oConnectTimeout=5"]
    answer = run("ssh", "-i", key_file, *options, *strict, f"root@{address}", "hostname")
    assert answer.output == "site-0003\n"


@pytest.mark.usefixtures("up")
def test_run_passes_stdin_exit_code_and_a_clean_environment() -> None:
    command = [str(ROOT / "tools/lab"), "run", "site-0002", "--", "sh", "-c", "cat; pwd; echo ${CALLERS-none}; exit 7"]
    done = subprocess.run(
        command, input=b"through stdin\n", capture_output=True, check=False, env={**os.environ, "CALLERS": "secret"}
    )
    assert done.stdout == b"through stdin\n/root\nnone\n"
    assert done.returncode == 7


@pytest.mark.usefixtures("up")
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["run", "gw9", "--", "true"], "error: The lab has no host 'gw9'. It has: gw1, gw2, core1, site-0001 to site-"),
        (["kill", "site-0009"], "error: The lab has no host 'site-0009'."),
        (["cut", "site-0001", "lan"], "error: The lab has no network 'lan'. It has: oob, frame_relay, internet, "),
        (["cut", "site-0001", "inside"], "error: site-0001 has no network 'inside'. It has: oob, frame_relay, inter"),
        (["up", "--sites", "0"], "error: --sites 0: the lab holds 1 to 420 sites."),
        (["up", "--release", "trixie"], "error: The lab that is up runs bookworm, not trixie. Take it down first: "),
    ],
)
def test_wrong_words_are_one_line_and_change_nothing(words: list[str], text: str) -> None:
    answer = lab(*words)
    assert answer.status == 1
    assert answer.output.startswith(text)
    assert answer.output.count("\n") == 1
    assert report()["well"]


@pytest.mark.usefixtures("up")
def test_sites_come_and_go_and_an_edited_row_stays() -> None:
    registry = INVENTORY / "sites.csv"
    text = registry.read_text("utf-8").replace(",10.202.2.0/24,", ",10.202.2.0/24 10.203.2.0/24,")
    registry.write_text(text, "utf-8")
    kept = host("site-0001")["init_pid"]
    ok("up", "--sites", "12")
    assert len(report()["hosts"]) == 15
    assert len(registry.read_text("utf-8").splitlines()) == 13
    assert "10.203.2.1/24" in on("site-0002", "ip -4 -o address show lan0").output
    ok("up", "--sites", "8")
    assert host("site-0001")["init_pid"] == kept
    assert not Path("/run/netns/site-0009").exists()
    assert registry.read_text("utf-8") == text
    registry.write_text(text.replace(" 10.203.2.0/24", ""), "utf-8")
    ok("up")
    assert "10.203.2.1" not in on("site-0002", "ip -4 -o address show lan0").output


@pytest.mark.usefixtures("up")
def test_a_power_cut_is_silent_and_total_and_the_disk_survives_it() -> None:
    on("gw1", "ip address add 10.200.0.1/32 dev inside0; echo here > /root/written")
    assert reaches("core1", "10.200.0.1")
    with socket.create_connection(("198.18.0.1", 22), timeout=5) as connection:
        connection.recv(256)
        ok("kill", "gw1")
        connection.settimeout(2)
        # A host without power closes no connection: neither FIN nor RST.
        with pytest.raises(TimeoutError):
            connection.recv(256)
    assert not reaches("core1", "10.200.0.1")
    assert not reaches("core1", "10.200.0.2")
    assert not Path("/run/netns/gw1").exists()
    assert host("gw1")["power"] == "off"
    assert lab("status").status == 1
    assert lab("run", "gw1", "--", "true").output == "error: gw1 has no power. Give it back: tools/lab boot gw1\n"
    ok("boot", "gw1")
    assert report()["well"]
    assert on("gw1", "cat /root/written").output == "here\n"
    assert reaches("core1", "10.200.0.2")
    assert not reaches("core1", "10.200.0.1")


@pytest.mark.usefixtures("up")
def test_a_cut_cable_loses_carrier_and_a_silent_one_does_not() -> None:
    carrier = "cat /sys/class/net/inet0/carrier"
    assert reaches("site-0001", "198.19.128.2")
    ok("cut", "site-0001", "internet", "--how", "cable")
    assert on("site-0001", carrier).output == "0\n"
    assert not reaches("site-0001", "198.19.128.2")
    ok("cut", "site-0001", "internet", "--how", "silent")
    assert on("site-0001", carrier).output == "1\n"
    assert not reaches("site-0001", "198.19.128.2")
    assert reaches("site-0001", "198.19.0.2")
    assert host("site-0001")["cuts"] == {"internet": "silent"}
    ok("mend", "site-0001", "internet")
    assert reaches("site-0001", "198.19.128.2")
    assert report()["well"]


@pytest.mark.usefixtures("up")
@pytest.mark.parametrize("how", ["silent", "cable"])
def test_a_providers_router_answers_whoever_is_plugged_in_and_passes_nothing_on(how: str) -> None:
    frame_relay, internet = (topology.NETWORKS[name].router for name in ("frame_relay", "internet"))
    assert all(reaches(name, router) for name in ("gw1", "site-0001") for router in (frame_relay, internet))
    on("site-0001", f"ip route add 198.19.128.2/32 via {frame_relay} dev fr0")
    assert not reaches("site-0001", "198.19.128.2")
    on("site-0001", "ip route delete 198.19.128.2/32 dev fr0")
    assert reaches("site-0001", "198.19.128.2")
    ok("cut", "site-0001", "frame_relay", "--how", how)
    assert not reaches("site-0001", frame_relay)
    on("site-0001", "ip neigh flush all")
    assert not reaches("site-0001", frame_relay)
    assert reaches("site-0001", internet)
    assert reaches("gw1", frame_relay)
    ok("mend", "site-0001", "frame_relay")
    # The site asks for a lost neighbour once a second.
    assert any(reaches("site-0001", frame_relay) for _ in range(5))


@pytest.mark.usefixtures("up")
def test_a_cut_cable_stays_cut_over_a_power_cut_and_up_mends_it() -> None:
    ok("cut", "site-0004", "frame_relay")
    ok("kill", "site-0004")
    ok("boot", "site-0004")
    assert not reaches("site-0004", "198.19.0.2")
    assert "site-0004: frame_relay mended" in ok("up")
    assert reaches("site-0004", "198.19.0.2")


@pytest.mark.usefixtures("up")
def test_a_service_restarted_on_one_host_touches_no_other() -> None:
    def sshd(name: str) -> str:
        return on(name, "systemctl show --property=MainPID --value ssh.service").output

    gateway, site = sshd("gw2"), sshd("site-0005")
    on("site-0005", "systemctl restart ssh.service")
    assert sshd("site-0005") != site
    assert sshd("gw2") == gateway
    assert report()["well"]


@pytest.mark.usefixtures("up")
def test_a_host_that_does_not_come_up_is_named_and_the_others_are_up() -> None:
    ok("kill", "site-0006")
    init = Path("/run/spokewright-lab/disks/site-0006/upper/usr/lib/systemd/systemd")
    init.parent.mkdir(parents=True, exist_ok=True)
    init.write_text("#!/bin/sh\necho the disk is broken\nexit 1\n", "utf-8")
    init.chmod(0o755)
    answer = lab("up")
    assert answer.status == 1
    assert "error: site-0006 " in answer.output
    assert "  the disk is broken" in answer.output
    assert "1 of 11 hosts did not come up: site-0006. Run tools/lab up again." in answer.output
    assert [entry["name"] for entry in report()["hosts"] if not entry["well"]] == ["site-0006"]
    init.unlink()
    ok("up")
    assert report()["well"]


@pytest.mark.usefixtures("up")
def test_a_full_disk_is_said_with_the_host(before: Machine) -> None:
    assert before
    ok("kill", "site-0007")
    full = "/run/spokewright-lab/disks"
    run("mount", "-o", "remount,size=1", full)
    try:
        fill = subprocess.run(["sh", "-c", f"cat /dev/zero > {full}/fill"], check=False, capture_output=True)
        assert b"No space left" in fill.stderr
        answer = lab("up", "--sites", "9")
        assert answer.status == 1
        assert "site-0009 did not come up: No space left on device" in answer.output
    finally:
        Path(full, "fill").unlink(missing_ok=True)
        run("mount", "-o", "remount,size=60%", full)
    ok("up", "--sites", "8")
    assert report()["well"]


@pytest.mark.usefixtures("up")
def test_up_killed_in_the_middle_is_completed_by_the_next() -> None:
    for seconds in (0.3, 0.8):
        with subprocess.Popen(
            [str(ROOT / "tools/lab"), "up", "--sites", "24"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as begun:
            time.sleep(seconds)
            begun.send_signal(signal.SIGKILL)
    ok("up", "--sites", "24")
    assert report()["well"]
    ok("up", "--sites", "8")


def test_down_leaves_the_machine_as_it_was(before: Machine) -> None:
    with subprocess.Popen([str(ROOT / "tools/lab"), "up", "--sites", "20"], stderr=subprocess.DEVNULL) as begun:
        time.sleep(0.6)
        begun.send_signal(signal.SIGKILL)
    ok("kill", "gw2")
    SEEN.update(Path(f"/run/netns/{name}").stat().st_ino for name in ("gw1", "core1", "site-0001", "lab-switch"))
    assert machine().more_than(before)["processes"]
    assert "Nothing is left" in ok("down")
    assert machine().more_than(before) == {}
    assert before.more_than(machine()) == {}
    assert report() == {"up": False, "hosts": []}
    assert lab("run", "gw1", "--", "true").output == "error: No lab is up. Start one with: tools/lab up\n"
    assert "Nothing is left" in ok("down")


def test_a_range_in_use_on_the_machine_is_refused(before: Machine) -> None:
    link = "lab-test-used"
    run("ip", "link", "add", link, "type", "bridge")
    try:
        run("ip", "address", "add", "198.18.77.1/24", "dev", link)
        answer = lab("up", "--sites", "1")
        assert answer.status == 1
        assert "are in use on this machine: address 198.18.77.1/24 on lab-test-used" in answer.output
    finally:
        run("ip", "link", "delete", link)
    assert machine().more_than(before) == {}


def test_somebody_elses_namespace_is_not_touched(before: Machine) -> None:
    run("ip", "netns", "add", "site-0001")
    try:
        answer = lab("up", "--sites", "1")
        assert answer.status == 1
        assert "A network namespace 'site-0001' exists and is not the lab's." in answer.output
        ok("down")
        assert Path("/run/netns/site-0001").exists()
    finally:
        run("ip", "netns", "delete", "site-0001")
    assert {name for name in machine().more_than(before) if name not in {"mounts", "files"}} == set()
