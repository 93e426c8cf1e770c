# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A capacity trial on a gateway: one OpenVPN daemon with the options of the real ones, and clients, one by one.

Runs on gateways: standard library only, needs root. It is started as the first process of namespaces of its own
(network, mounts, processes). So it has no network but its loopback device, what it writes lies in memory that nobody
else sees, and when it ends, or is killed, the kernel ends all it has started and forgets all it has written.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import statistics
import subprocess
import time
import typing as t
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.module_utils import capacity_host as host
from ansible_collections.spokewright.fleet.plugins.module_utils.capacity_traffic import (
    counters,
    datagram,
    first_packet,
    flood,
    knock,
)
from ansible_collections.spokewright.fleet.plugins.module_utils.management import Management, ManagementError

# The judging script writes here which key a site came with; a file system of the trial's own hides the real directory.
RUN = Path("/run/openvpn-server")
PORT = 11194
NETWORK = "10.255.0.0 255.255.0.0"
UP = "Initialization Sequence Completed"
WARM_UP, FIRST_PACKETS, HOOK_RUNS = 10, 1000, 40
TRAFFIC_SECONDS = 1.0
# What a trial takes over from a real instance: all that a handshake or a packet costs.
KEPT = {
    *("topology", "push", "dh", "remote-cert-tls", "tls-version-min", "tls-ciphersuites", "tls-cipher", "tls-groups"),
    *("data-ciphers", "allow-compression", "script-security", "tls-crypt-v2-verify", "persist-key", "disable-dco"),
    *("rcvbuf", "sndbuf", "tun-mtu", "mssfix", "max-packet-size", "passtos", "verb", "hand-window"),
}


class TrialError(Exception):
    """The trial could not be made. The text says why."""


def look(
    *,
    instances: t.Sequence[str],
    material: t.Mapping[str, str],
    handshakes: int,
    seconds: float,
    busiest: float,
) -> dict[str, t.Any]:
    """Make the trial.

    Args:
        instances: the tunnel instances of this gateway; the trial has the options of the first.
        material: file names and texts of keys that were made for this trial alone.
        handshakes: how many clients come.
        seconds: when all is over, come what may.
        busiest: the load for each core with which the trial is still made.

    Returns:
        ``measured``, or ``refused``: why it was not made. ``in_force``: the limits each instance runs with.
    """
    found: dict[str, t.Any] = {"time": time.time(), "refused": host.trouble(busiest=busiest), "measured": None}
    found["in_force"] = host.in_force(instances=instances)
    if not found["in_force"]:
        found["refused"].append(
            "it has no tunnel instance yet, and a trial runs with the options of one: build it first"
        )
    if found["refused"]:
        return found
    _leave_at(seconds)
    real = (host.SERVER / ("%s.conf" % next(iter(found["in_force"])))).read_text(encoding="utf-8")
    with Trial(options=host.options(text=real), material=material, seconds=seconds) as trial:
        found["measured"] = {**host.facts(), **trial.measure(handshakes=handshakes)}
    return found


def _leave_at(seconds: float) -> None:
    """Whoever asks us to end, or the time, ends the first process of the namespace and so everything in it."""
    if os.getpid() != 1 or [name for _number, name in socket.if_nameindex()] != ["lo"]:
        raise TrialError("a trial runs as the first process of namespaces of its own, and this is none")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, lambda _number, _frame: os._exit(1))
    signal.alarm(int(seconds))


def server_lines(*, options: host.Options) -> list[str]:
    """The daemon's configuration: what the real one says about handshakes and packets, and places of our own."""
    kept = [" ".join(words) for words in options if words[0] in KEPT]
    return [
        *("dev trial", "dev-type tun", "proto udp4", "local 127.0.0.1", "port %d" % PORT),
        # Sessions of earlier clients stay while the others come, which shows what each takes of memory.
        *("server %s" % NETWORK, "duplicate-cn", "keepalive 600 3600", "ifconfig-noexec", "route-noexec"),
        *("ca ca.crt", "cert server.crt", "key server.key", "crl-verify crl.pem"),
        "tls-crypt-v2 server-psk.pem force-cookie",
        *("max-clients 2048", "connect-freq-initial 1000000 10", "management trial.sock unix"),
        *kept,
    ]


class Trial:
    """The daemon of a trial, from its start to its end."""

    def __init__(self, *, options: host.Options, material: t.Mapping[str, str], seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._running: list[subprocess.Popen[bytes]] = []
        self._hook = next((words[1] for words in options if words[0] == "tls-crypt-v2-verify"), "")
        self._tun_mtu = next((words[1] for words in options if words[0] == "tun-mtu"), "1500")
        _run("mount", "-t", "tmpfs", "-o", "size=32m,mode=0700", "tmpfs", str(RUN))
        _run("ip", "link", "set", "lo", "up")
        for name, text in {**material, "trial.conf": "\n".join(server_lines(options=options)) + "\n"}.items():
            (RUN / name).write_text(text, encoding="utf-8")

    def __enter__(self) -> t.Self:
        with (RUN / "server.log").open("wb") as log:
            self._server = self._start("--config", "trial.conf", out=log)
        while UP not in (said := (RUN / "server.log").read_text(encoding="utf-8", errors="replace")):
            if self._server.poll() is not None or self._left() <= 0:
                raise TrialError("the trial's daemon does not start: %s" % " / ".join(said.splitlines()[-4:]))
            time.sleep(0.02)
        return self

    def __exit__(self, *_exc: object) -> None:
        for process in self._running:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()

    def measure(self, *, handshakes: int) -> dict[str, t.Any]:
        """Everything, each by its own small run."""
        started_kb = _resident_kb(self._server.pid)
        for _each in range(WARM_UP):
            self._shake_hands()
        cpu, wire, kb = self._cpu(), counters(device="lo"), _resident_kb(self._server.pid)
        walls = [self._shake_hands() for _each in range(handshakes)]
        cpu, now = self._cpu() - cpu, counters(device="lo")
        grown_kb = _resident_kb(self._server.pid) - kb
        hooks = self._hook_runs()
        banner = _run("openvpn", "--version", may_fail=True).split()
        return {
            "openvpn": banner[1] if len(banner) > 1 else "",
            "handshakes": handshakes,
            "handshake_ms": round(cpu * 1000 / handshakes, 3),
            "handshake_wall_ms": round(statistics.median(walls) * 1000, 1),
            "handshake_bytes": (now[0] - wire[0]) // handshakes,
            "hook_ms": round(statistics.median(hooks), 2) if hooks else 0.0,
            "hook_p99_ms": round(sorted(hooks)[int(len(hooks) * 0.99)], 2) if hooks else 0.0,
            "first_packet_ms": self._first_packet_ms(),
            "mbit_per_core": self._mbit_per_core(),
            "daemon_kb": started_kb,
            "client_kb": max(1, round(grown_kb / handshakes)),
        }

    def _shake_hands(self) -> float:
        """One client, from its start until it is up; it is then gone without a word. Seconds it took."""
        began = time.monotonic()
        client = self._client("--dev", "null")
        took = self._until_up(client) - began
        self._drop(client)
        return took

    def _first_packet_ms(self) -> float:
        clients: list[subprocess.Popen[bytes]] = []
        packet = first_packet(
            start=lambda port: clients.append(self._client("--dev", "null", port=port)), seconds=self._left()
        )
        self._drop(clients[0])
        before = self._cpu()
        answered = knock(port=PORT, packet=packet, times=FIRST_PACKETS)
        if not answered:
            raise TrialError("the trial's daemon answers no first packet")
        return round((self._cpu() - before) * 1000 / answered, 4)

    def _mbit_per_core(self) -> int:
        """What one daemon carries if it has a core for itself: the smaller one of both directions."""
        known = self._addresses()
        client = self._client("--dev", "site", "--dev-type", "tun", "--tun-mtu", self._tun_mtu)
        self._until_up(client)
        for device in ("trial", "site"):
            _run("ip", "link", "set", device, "up")
        (address,) = self._addresses() - known
        found = []
        outside = "198.51.100.1"
        for device, beyond, packet in (
            ("trial", "site", datagram(source=outside, target=address)),
            ("site", "trial", datagram(source=address, target=outside)),
        ):
            before = self._cpu()
            carried = flood(device=device, beyond=beyond, packet=packet, seconds=TRAFFIC_SECONDS)
            found.append(carried * 8 / 1e6 / (self._cpu() - before))
        self._drop(client)
        return int(min(found))

    def _addresses(self) -> set[str]:
        try:
            with Management(str(RUN / "trial.sock"), timeout=max(0.1, self._left())) as daemon:
                return {client.virtual_address for client in daemon.status().clients}
        except ManagementError as exc:
            raise TrialError(str(exc)) from exc

    def _hook_runs(self) -> list[float]:
        """Milliseconds that the daemon waits for the script that judges keys, run as OpenVPN runs it."""
        if not self._hook:
            return []
        environment = {"script_type": "tls-crypt-v2-verify", "metadata_type": "0", "metadata_file": "metadata"}
        quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
        os.chdir(RUN)
        found = []
        for _each in range(HOOK_RUNS):
            began = time.perf_counter()
            pid = os.posix_spawn(self._hook, [self._hook], environment, file_actions=quiet)
            _pid, status = os.waitpid(pid, 0)
            found.append((time.perf_counter() - began) * 1000)
            if status:
                raise TrialError("%s refuses the trial's key" % self._hook)
        return found

    def _client(self, *words: str, port: int = PORT) -> subprocess.Popen[bytes]:
        return self._start(
            *("--client", "--nobind", "--remote", "127.0.0.1", str(port), "udp4", "--remote-cert-tls", "server"),
            *("--ca", "ca.crt", "--cert", "site.crt", "--key", "site.key", "--tls-crypt-v2", "site-psk.pem"),
            *("--ifconfig-noexec", "--route-noexec", "--verb", "3", "--connect-retry-max", "1", *words),
            out=subprocess.PIPE,
        )

    def _start(self, *words: str, out: t.Any) -> subprocess.Popen[bytes]:
        # Not run_command: this is a program of its own on the gateway, there is no module around it.
        # pylint: disable-next=ansible-bad-function
        process = subprocess.Popen(
            ["openvpn", *words], cwd=RUN, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
        self._running.append(process)
        return process

    def _drop(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
        self._running.remove(process)

    def _until_up(self, client: subprocess.Popen[bytes]) -> float:
        output = client.stdout.fileno() if client.stdout else -1
        said = b""
        while UP.encode() not in said:
            ready, _out, _err = select.select([output], [], [], max(0.0, min(self._left(), 15.0)))
            data = os.read(output, 65536) if ready else b""
            if not data:
                words = said.decode(errors="replace").splitlines()[-3:]
                raise TrialError("a client of the trial does not come up: %s" % " / ".join(words))
            said += data
        return time.monotonic()

    def _left(self) -> float:
        return self._end - time.monotonic()

    def _cpu(self) -> float:
        """Seconds of CPU of the daemon alone, which the kernel counts in nanoseconds."""
        return int(Path("/proc/%d/schedstat" % self._server.pid).read_text(encoding="ascii").split()[0]) / 1e9


def _resident_kb(pid: int) -> int:
    found = re.search(r"^VmRSS:\s*(\d+) kB", Path("/proc/%d/status" % pid).read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) if found else 0


def _run(*command: str, may_fail: bool = False) -> str:
    # pylint: disable-next=ansible-bad-function
    done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8", errors="replace", timeout=20)
    if done.returncode and not may_fail:
        raise TrialError("%s: %s" % (" ".join(command), (done.stderr or done.stdout).strip()))
    return done.stdout
