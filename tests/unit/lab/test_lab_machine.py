# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab wants of the machine, and how it says that something is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from lablib import cli, disk, image, machine, network, paths, processes, shell, state
from lablib.errors import LabError
from lablib.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path


def test_without_root_one_clear_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.main(["up"]) == 2
    assert capsys.readouterr().err == "error: tools/lab needs root. Run it as: sudo tools/lab ...\n"


def test_missing_tools_are_one_error_with_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool in {"mmdebstrap", "ip", "bridge"} else "/bin/x")
    with pytest.raises(LabError) as caught:
        machine.require_tools()
    assert str(caught.value) == (
        "Not installed: bridge, ip, mmdebstrap. Run: apt-get install --yes iproute2 mmdebstrap"
    )


def test_a_machine_without_tun_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _tool: "/bin/x")
    monkeypatch.setattr(machine, "TUN_DEVICE", tmp_path / "tun")
    with pytest.raises(LabError, match=r"tun is missing: without it no host can have a tunnel\. Run: modprobe tun"):
        machine.require_tools()


def test_a_missing_command_is_no_traceback() -> None:
    with pytest.raises(LabError, match=r"'no-such-command' is not installed"):
        shell.run(["no-such-command"])


def test_a_failed_command_says_what_it_said() -> None:
    with pytest.raises(LabError, match=r"`sh -c echo out of order >&2; exit 3` failed with exit code 3: out of order"):
        shell.run(["sh", "-c", "echo out of order >&2; exit 3"])


def test_too_little_memory_is_said_before_anything_is_started() -> None:
    with pytest.raises(LabError, match=r"100000000 more hosts need about \d+ MiB of memory, \d+ MiB are free"):
        machine.require_memory(new_hosts=100_000_000)


def test_a_full_disk_is_said_before_the_tree_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    monkeypatch.setattr(image, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(LabError, match=r"has \d+ MiB free, a root tree needs \d+\. Make room\."):
        image.ensure(release="bookworm", progress=Progress())
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_system_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: object) -> int:
        raise OSError(28, "No space left on device", "/run/x")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setitem(cli.VERBS, "up", full)
    assert cli.main(["up"]) == 1
    assert capsys.readouterr().err == "error: No space left on device (/run/x)\n"


def test_the_tree_has_another_name_for_other_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    before = image.tree_path(release="bookworm")
    assert image.tree_path(release="bookworm") == before
    assert image.tree_path(release="trixie") != before
    monkeypatch.setattr(image, "PACKAGES", (*image.PACKAGES, "frr"))
    assert image.tree_path(release="bookworm") != before


@pytest.mark.parametrize(
    ("addresses", "routes", "expected"),
    [
        ([("eth0", "192.0.2.2", 24)], [{"dst": "default", "dev": "eth0"}], []),
        ([("eth0", "198.18.7.1", 24)], [], ["address 198.18.7.1/24 on eth0"]),
        ([(network.CONTROLLER_LINK, "198.18.255.254", 16)], [], []),
        ([], [{"dst": "10.200.3.0/24", "dev": "vpn0"}], ["route 10.200.3.0/24 on vpn0"]),
        ([], [{"dst": "10.101.4.5", "dev": "vpn0"}], ["route 10.101.4.5 on vpn0"]),
        ([], [{"dst": "10.0.0.0/8", "dev": "vpn0"}], []),
        ([], [{"dst": "198.18.0.0/15", "type": "unreachable", "metric": network.METRIC}], []),
    ],
)
def test_ranges_in_use_on_the_machine(
    monkeypatch: pytest.MonkeyPatch,
    addresses: list[tuple[str, str, int]],
    routes: list[dict[str, Any]],
    expected: list[str],
) -> None:
    links = [
        {"ifname": name, "addr_info": [{"local": local, "prefixlen": length}]} for name, local, length in addresses
    ]
    monkeypatch.setattr(network, "_json", lambda command: links if "address" in command else routes)
    assert network.foreign_uses() == expected
    if expected:
        with pytest.raises(LabError, match=r"are in use on this machine: .* Remove that first"):
            network.require_free_ranges()


def test_limits_are_raised_never_lowered_and_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"low": tmp_path / "low", "high": tmp_path / "high", "touched": tmp_path / "touched"}
    for name, value in (("low", 128), ("high", 9999), ("touched", 5)):
        values[name].write_text(f"{value}\n", encoding="ascii")
    monkeypatch.setattr(machine, "SYSCTLS", {"low": 1000, "high": 1000, "touched": 1000, "absent": 1})
    monkeypatch.setattr(machine, "_sysctl", lambda name: tmp_path / name)
    monkeypatch.setattr(state.State, "save", lambda _self: None)
    lab = state.State(boot_id="", release="", tree="", sites=1)
    machine.raise_limits(state=lab)
    machine.raise_limits(state=lab)
    assert [values[name].read_text(encoding="ascii").strip() for name in values] == ["1000", "9999", "1000"]
    assert machine.limits_not_restored(state=lab) == ["sysctl low is still 1000", "sysctl touched is still 1000"]
    values["touched"].write_text("2000", encoding="ascii")
    machine.restore_limits(state=lab)
    assert [values[name].read_text(encoding="ascii") for name in values] == ["128", "9999\n", "2000"]
    assert machine.limits_not_restored(state=lab) == []


def test_only_the_process_that_was_meant_is_killed() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        meant = processes.remember(child.pid)
        assert meant is not None
        processes.kill(state.Process(pid=meant.pid, started=meant.started + 1))
        time.sleep(0.05)
        assert child.poll() is None
        processes.kill(meant)
        assert child.wait(timeout=5) == -9
    assert not processes.alive(meant)
    processes.kill(meant)


def test_the_host_gets_its_own_tun_device_and_namespace() -> None:
    command = processes.nspawn_command(name="gw1")
    assert f"--bind={paths.TUN}:/dev/net/tun" in command
    assert "--network-namespace-path=/run/netns/gw1" in command
    assert "--directory=/run/spokewright-lab/disks/gw1/root" in command


def test_the_end_of_the_console_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "DISKS", tmp_path)
    assert disk.console_tail("gw1") == "  (it printed nothing)"
    (tmp_path / "gw1").mkdir()
    (tmp_path / "gw1/console.log").write_text("\n".join(str(line) for line in range(100)), encoding="utf-8")
    assert disk.console_tail("gw1", lines=2) == "  98\n  99"


def test_run_without_a_command_says_how(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cli.main(["run", "gw1", "--"]) == 1
    assert capsys.readouterr().err == "error: What is to be run on gw1? tools/lab run gw1 -- COMMAND\n"
