# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The root tree all hosts share: made once by mmdebstrap, kept in a cache named by its inputs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import paths
from .errors import LabError

if TYPE_CHECKING:
    from .progress import Progress

RELEASES = ("bookworm", "trixie")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
NEEDED_BYTES = 1 << 30
PACKAGES = (
    "busybox",
    "dbus",
    "frr",
    "frr-pythontools",
    "iproute2",
    "iputils-ping",
    "keepalived",
    "kmod",
    "libfaketime",
    "nftables",
    "openssh-server",
    "openvpn",
    "procps",
    "python3",
    "systemd",
    "systemd-sysv",
)
MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "getty@.service",
    "systemd-logind.service",
)
DISABLED = ("frr.service", "keepalived.service", "nftables.service", "openvpn.service", "systemd-networkd.service")
FILES = {
    "etc/ssh/sshd_config.d/00-lab.conf": (
        "HostKey /etc/ssh/ssh_host_ed25519_key\n"
        "PasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\n"
        "UseDNS no\n"
        "MaxStartups 100:30:200\n"
    ),
    # 420 journals lie in this machine's memory.
    "etc/systemd/journald.conf.d/lab.conf": "[Journal]\nSystemMaxUse=24M\nSystemMaxFileSize=4M\nRuntimeMaxUse=8M\n",
    "etc/default/openvpn": "AUTOSTART=none\n",
    "etc/resolv.conf": "# A lab host resolves no names.\n",
}
REMOVED = ("etc/hostname", "etc/machine-id", "var/lib/dbus/machine-id", "usr/sbin/policy-rc.d")


def sources(*, release: str) -> tuple[str, ...]:
    """The archives of a release; LAB_MIRROR names a nearer one."""
    mirror = os.environ.get("LAB_MIRROR", "http://deb.debian.org").rstrip("/")
    signed = f"[signed-by={KEYRING}]"
    return (
        f"deb {signed} {mirror}/debian {release} main",
        f"deb {signed} {mirror}/debian-security {release}-security main",
    )


def tree_path(*, release: str) -> Path:
    """Where the tree of these inputs lies, whether or not it has been made."""
    inputs = json.dumps([release, PACKAGES, MASKED, DISABLED, FILES, REMOVED], sort_keys=True)
    return paths.CACHE / f"{release}-{hashlib.sha256(inputs.encode()).hexdigest()[:16]}"


def ensure(*, release: str, progress: Progress) -> Path:
    """Return the tree, making it first when the cache has none."""
    if release not in RELEASES:
        raise LabError(f"--release {release}: the lab knows {' and '.join(RELEASES)}.")
    tree = tree_path(release=release)
    if tree.is_dir():
        return tree
    paths.CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    free = shutil.disk_usage(paths.CACHE).free
    if free < NEEDED_BYTES:
        raise LabError(f"{paths.CACHE} has {free >> 20} MiB free, a root tree needs {NEEDED_BYTES >> 20}. Make room.")
    progress.say(f"Making the root tree of {release} (once, about half a minute) ...")
    started = time.monotonic()
    _clear_unfinished()
    # mmdebstrap drops privileges for downloads and must be able to enter the directory.
    build = Path(tempfile.mkdtemp(prefix="build-", dir=paths.CACHE))
    build.chmod(0o755)
    try:
        _bootstrap(release=release, target=build / "tree")
        _customise(build / "tree")
        (build / "tree").rename(tree)
    finally:
        shutil.rmtree(build, ignore_errors=True)
    progress.say(f"Root tree of {release} made in {time.monotonic() - started:.0f} s: {tree}")
    return tree


def _clear_unfinished() -> None:
    for leftover in paths.CACHE.glob("build-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _bootstrap(*, release: str, target: Path) -> None:
    command = [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        release,
        str(target),
        *sources(release=release),
    ]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        tail = "\n".join(f"  {line}" for line in done.stdout.splitlines()[-12:])
        raise LabError(
            f"mmdebstrap could not make the root tree of {release} (exit code {done.returncode}):\n{tail}\n"
            "Is the Debian archive reachable, and has the disk room? LAB_MIRROR=URL names another mirror."
        )


def _customise(tree: Path) -> None:
    def systemctl(verb: str, *units: str) -> None:
        done = subprocess.run(
            ["systemctl", f"--root={tree}", verb, *units], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise LabError(f"systemctl {verb} in the root tree failed: {done.stderr.strip()}")

    systemctl("disable", *DISABLED)
    systemctl("mask", *MASKED)
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    for name in REMOVED:
        (tree / name).unlink(missing_ok=True)
    for name, text in FILES.items():
        path = tree / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)
