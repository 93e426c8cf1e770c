# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real capacity trial on this machine, in namespaces of its own: what it says, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils import capacity_host as host
from ansible_collections.spokewright.fleet.plugins.module_utils import gateway_look, pair_watch
from ansible_collections.spokewright.fleet.plugins.module_utils.capacity_traffic import checksum, datagram
from ansible_collections.spokewright.fleet.plugins.module_utils.capacity_trial import TrialError, look, server_lines
from ansible_collections.spokewright.fleet.plugins.plugin_utils import capacity_run, pair
from ansible_collections.spokewright.fleet.plugins.plugin_utils.gateway_program import Program
from unit.roles.test_tunnel_server import render

real = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("openvpn"), reason="needs root and openvpn to start a daemon"
)
# A gateway's directories, in a mount namespace of the test's own: what lies there on this machine is not touched.
SCENE = """
mount -t tmpfs tmpfs /etc/openvpn && mount -t tmpfs tmpfs /run || exit 9
mkdir -p /run/openvpn-server /etc/openvpn/server "$1"/denied
cp "$1"/gw.conf /etc/openvpn/server/tun0.conf && exec {launch}
"""


def without_systemd(launch: str) -> str:
    """The launcher as it is, but for systemd: where tests run it may not be the first process."""
    return launch[launch.index("nice") :]


def program(*, handshakes: int = 12, instances: tuple[str, ...] = ("tun0",), busiest: float = 1000.0) -> Program:
    arguments = {
        "instances": list(instances),
        "material": capacity_run.material(key_type="p256"),
        "handshakes": handshakes,
        "seconds": 50,
        "busiest": busiest,
    }
    return Program(modules=capacity_run._MODULES, arguments=arguments)


def start(folder: Path) -> subprocess.Popen[bytes]:
    (folder / "gw.conf").write_text(render("instance.conf.j2", folder), encoding="utf-8")
    hook = folder / "tunnel-verify"
    hook.write_text(render("tunnel-verify.j2", folder, __tunnel_server_run="/run/openvpn-server"), encoding="utf-8")
    hook.chmod(0o755)
    scene = SCENE.format(launch=without_systemd(capacity_run.LAUNCH))
    return subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", scene, "sh", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def daemons() -> list[int]:
    """The daemons of trials, wherever they run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().split(b"\0") if path.exists() else []
        if b"trial.conf" in words:
            found.append(int(path.parent.name))
    return found


@real
def test_a_trial_measures_a_real_daemon_and_leaves_nothing(tmp_path: Path) -> None:
    trial = start(tmp_path)
    out, err = trial.communicate(program().source(), timeout=100)

    assert trial.returncode == 0, err.decode()
    said: dict[str, Any] = json.loads(out)
    measured = said["measured"]
    assert said["refused"] == []
    assert said["in_force"] == {
        "tun0": {
            "max-clients": "2048",
            "connect-freq-initial": "2048 10",
            "rcvbuf": "2097152",
            "keepalive": "2 6",
            "hand-window": "30",
        }
    }
    # Wide bounds: a wrong unit or a figure that nothing was counted for does not lie within them.
    assert 0.5 < measured["handshake_ms"] < 50
    assert 0.1 < measured["hook_ms"] < 200
    assert 0.002 < measured["first_packet_ms"] < 2
    assert 20 < measured["mbit_per_core"] < 20000
    assert 3000 < measured["handshake_bytes"] < 20000
    assert 3000 < measured["daemon_kb"] < 40000
    assert 20 < measured["client_kb"] < 1000
    assert measured["buffer_limit"] >= 212992
    assert measured["openvpn"].startswith("2.")
    assert measured["cores"] == os.cpu_count()
    assert measured["cpu"]
    capacity_run.taken(gateway="gw1", answer=said, key_type="p256")
    assert daemons() == []


@real
def test_a_trial_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    trial = start(tmp_path)
    assert trial.stdin is not None
    trial.stdin.write(program(handshakes=200).source())
    trial.stdin.close()
    end = time.monotonic() + 30
    while not daemons() and time.monotonic() < end:
        time.sleep(0.05)
    assert daemons(), "it never began"

    # `exec` has made it the launcher itself.
    os.kill(trial.pid, signal.SIGKILL)
    trial.wait(timeout=10)

    while daemons() and time.monotonic() < end:
        time.sleep(0.05)
    assert daemons() == []


def test_a_trial_never_runs_outside_of_namespaces_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tun0.conf").write_text("max-clients 5\n", encoding="utf-8")
    monkeypatch.setattr(host, "SERVER", tmp_path)
    monkeypatch.setattr(host, "trouble", lambda **_asked: [])
    monkeypatch.setattr(host, "in_force", lambda **_asked: {"tun0": {}})

    with pytest.raises(TrialError, match="the first process of namespaces of its own"):
        look(instances=["tun0"], material={}, handshakes=10, seconds=5, busiest=1)


def test_a_gateway_without_instances_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "trouble", lambda **_asked: [])
    monkeypatch.setattr(host, "in_force", lambda **_asked: {})

    said = look(instances=["tun0"], material={}, handshakes=10, seconds=5, busiest=1)

    assert said["measured"] is None
    assert "build it first" in said["refused"][0]


@pytest.mark.parametrize(
    ("health", "said"),
    [
        ({"storm": {"since": 5.0}}, ["its health daemon sees a storm"]),
        ({"storm": {"since": None}}, []),
        ({"hold_until": 7.0}, ["it is giving its addresses away"]),
        (
            {"checks": [{"name": "inside 10.0.0.1", "well": False}, {"name": "x", "well": True}]},
            ["its health daemon says inside 10.0.0.1 is not well"],
        ),
    ],
)
def test_trouble_is_a_reason_to_leave_a_gateway_alone(tmp_path: Path, health: dict[str, Any], said: list[str]) -> None:
    path = tmp_path / "health.json"
    path.write_text(json.dumps({"time": time.time(), **health}), encoding="utf-8")

    assert host.trouble(busiest=1000, health=path) == said


def test_what_an_ended_health_daemon_left_is_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    for left in ({"time": time.time() - host.FRESH}, {}, {"time": None}):
        path.write_text(json.dumps({"storm": {"since": 5.0}, **left}), encoding="utf-8")
        assert host.trouble(busiest=1000, health=path) == []


def test_everybody_takes_the_same_age_for_too_old() -> None:
    assert {host.FRESH, gateway_look.FRESH, pair_watch.FRESH_SECONDS, pair.FRESH_SECONDS} == {12.0}


def test_a_busy_gateway_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)

    (why,) = host.trouble(busiest=0.7, health=tmp_path / "none")

    assert why == "its load is 3.0 on 2 cores, more than 0.7 for each"
    assert host.trouble(busiest=1.5, health=tmp_path / "none") == []


def test_the_trials_daemon_takes_over_what_a_handshake_costs_and_nothing_of_production(tmp_path: Path) -> None:
    lines = server_lines(options=host.options(text=render("instance.conf.j2", tmp_path)))
    words = [line.split()[0] for line in lines]

    assert {"tls-crypt-v2-verify", "tls-groups", "rcvbuf", "data-ciphers", "tun-mtu"} <= set(words)
    assert {"status", "multihome", "client-config-dir"}.isdisjoint(words)
    assert [line for line in lines if str(tmp_path) in line] == [f"tls-crypt-v2-verify {tmp_path}/tunnel-verify"]
    assert [word for word in set(words) if word != "push" and words.count(word) > 1] == []


def test_a_crafted_packet_is_one() -> None:
    packet = datagram(source="10.255.0.2", target="198.51.100.1")

    assert len(packet) == 1300
    assert checksum(packet[:20]) == 0
