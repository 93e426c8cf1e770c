# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real host whose only userland is BusyBox: own processes, mounts and network, its init as process 1, dropbear."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils import ssh_transport as ssh

if TYPE_CHECKING:
    from collections.abc import Iterator

# Documentation ranges: the two ends of the out-of-band link, and of the link the tunnel runs over.
OOB = ("198.51.100.249", "198.51.100.250")
WAN = ("192.0.2.1", "192.0.2.2")
DIRECTORIES = ("bin", "sbin", "etc/init.d", "etc/dropbear", "dev", "proc", "sys", "run", "tmp", "var/log", "root/.ssh")
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/shells": "/bin/sh\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\n",
    "etc/inittab": "::sysinit:/etc/init.d/rcS\n::respawn:/usr/sbin/dropbear -F -s -P /run/dropbear.pid\n",
    # As Buildroot has it
    "etc/init.d/rcS": """#!/bin/sh
syslogd -O /var/log/messages
for i in /etc/init.d/S??*; do [ -x "$i" ] && "$i" start; done
""",
}
BOOT = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount -t tmpfs dev "$1/dev"
mount -t tmpfs run "$1/run"
mkdir "$1/dev/net"
mknod "$1/dev/null" c 1 3
mknod "$1/dev/zero" c 1 5
mknod "$1/dev/random" c 1 8
mknod "$1/dev/urandom" c 1 9
mknod "$1/dev/net/tun" c 10 200
chmod 666 "$1"/dev/*om "$1/dev/null" "$1/dev/zero"
# Each boot of a host has its own.
echo "$2" >"$1/run/.boot_id"
mount --bind "$1/run/.boot_id" "$1/proc/sys/kernel/random/boot_id"
exec chroot "$1" /sbin/init
"""


def sh(*words: str, check: bool = True) -> str:
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 or not check, f"{words}: {done.stderr}"
    return done.stdout


@dataclass
class Host:
    """The host, and beside it a network namespace in the place of a gateway."""

    tree: Path
    target: ssh.Target
    name: str
    gateway: str
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def boot(self) -> None:
        # It counts its own time since the boot.
        up = int(time.clock_gettime(time.CLOCK_BOOTTIME))
        own = ("--pid", "--mount", "--ipc", "--uts", "--time", "--boottime", f"-{up}", "--fork")
        words = ("ip", "netns", "exec", self.name, "unshare", *own)
        started = subprocess.Popen(
            [*words, "sh", "-c", BOOT, "boot", str(self.tree), str(uuid.uuid4())],
            stdin=subprocess.DEVNULL,
            stdout=(self.tree.parent / "console").open("ab"),
            stderr=subprocess.STDOUT,
        )
        self.running.append(started)
        end = time.monotonic() + 15
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection((self.target.address, 22), timeout=1):
                return
            assert started.poll() is None, (self.tree.parent / "console").read_text()
            time.sleep(0.05)
        raise AssertionError("no dropbear answers:\n" + (self.tree.parent / "console").read_text())

    def cut_power(self) -> None:
        """Its first process dies, and the kernel ends all the others with it."""
        if not self.running:
            return
        outside = self.running.pop()
        for child in Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        outside.wait(timeout=10)

    def run(self, command: str) -> str:
        return ssh.exchange(target=self.target, command=command).stdout.decode()

    def pings(self, address: str, *, seconds: float) -> bool:
        """Whether the gateway's end gets an answer through the tunnel within that time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            words = ("ip", "netns", "exec", self.gateway, "busybox", "ping", "-c", "1", "-W", "1", address)
            if subprocess.run(words, check=False, capture_output=True, timeout=10).returncode == 0:
                return True
            time.sleep(0.1)
        return False


def _libraries(program: str) -> list[str]:
    words = subprocess.run(["ldd", program], check=False, capture_output=True, text=True).stdout.split()
    return [word for word in words if word.startswith("/")]


def _plant(tree: Path, login: Path) -> str:
    """Put the host's files in place; returns its host key."""
    for directory in DIRECTORIES:
        (tree / directory).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    for program in (busybox, "/usr/sbin/dropbear", "/usr/sbin/openvpn"):
        for name in (program, *_libraries(program)):
            here = tree / name.lstrip("/")
            here.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, here)
    for applet in sh(busybox, "--list").split():
        (tree / "bin" / applet).symlink_to(busybox)
    (tree / "sbin/init").symlink_to(busybox)
    for name, text in FILES.items():
        (tree / name).write_text(text)
    (tree / "etc/init.d/rcS").chmod(0o755)
    (tree / "root/.ssh").chmod(0o700)
    shutil.copy(login.with_suffix(".pub"), tree / "root/.ssh/authorized_keys")
    said = sh("dropbearkey", "-t", "ed25519", "-f", str(tree / "etc/dropbear/dropbear_ed25519_host_key"))
    return next(" ".join(line.split()[:2]) for line in said.splitlines() if line.startswith("ssh-ed25519"))


@contextlib.contextmanager
def _links(name: str, gateway: str) -> Iterator[None]:
    """The out-of-band link to the controller, the other one to the gateway; both gone at the end."""
    ends = [f"{name}{letter}" for letter in "abcd"]
    try:
        for namespace in (name, gateway):
            sh("ip", "netns", "add", namespace)
        sh("ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1], "netns", name)
        sh("ip", "link", "add", ends[2], "netns", gateway, "type", "veth", "peer", "name", ends[3], "netns", name)
        inside = ((gateway, ends[2], WAN[0]), (name, ends[3], WAN[1]), (name, ends[1], OOB[1]))
        for namespace, device, address in inside:
            sh("ip", "-n", namespace, "address", "add", f"{address}/30", "dev", device)
            sh("ip", "-n", namespace, "link", "set", device, "up")
        sh("ip", "address", "add", f"{OOB[0]}/30", "dev", ends[0])
        sh("ip", "link", "set", ends[0], "up")
        yield
    finally:
        sh("ip", "link", "delete", ends[0], check=False)
        for namespace in (name, gateway):
            sh("ip", "netns", "delete", namespace, check=False)


@contextlib.contextmanager
def busybox_host(home: Path) -> Iterator[Host]:
    """The host, running, and reached by the controller over its out-of-band link."""
    name = f"swb{os.getpid()}"
    login = home / "login"
    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(login))
    tree = home / "tree"
    pinned = _plant(tree, login)
    target = ssh.Target(name="site-0001", address=OOB[1], port=22, user="root", host_key=pinned, private_key_file=login)
    host = Host(tree=tree, target=target, name=name, gateway=f"{name}g")
    with _links(name, host.gateway):
        try:
            host.boot()
            yield host
        finally:
            host.cut_power()
