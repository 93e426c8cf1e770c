# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's disk: the shared tree below, the host's own changes above, all of them in one tmpfs."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from . import machine, paths, shell, topology
from .errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterable

TUN_MAJOR, TUN_MINOR = 10, 200
HOST_KEY = "etc/ssh/ssh_host_ed25519_key"
DEVICE_MODE = 0o666  # as udev has it on any Debian: networkd opens it as its own user


def mounted(path: Path) -> bool:
    """Whether something is mounted exactly there."""
    return str(path) in mount_points()


def mount_points() -> list[str]:
    """Every mount of this machine, in the order they were made."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return [line.split(" ")[1] for line in lines]


def prepare() -> None:
    """Mount the tmpfs for all disks and make the tun device that hosts get."""
    paths.DISKS.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not mounted(paths.DISKS):
        size = machine.memory_total() * 6 // 10
        options = f"size={size},nr_inodes=0,mode=0755"
        shell.run(["mount", "-t", "tmpfs", "-o", options, "spokewright-lab", str(paths.DISKS)])
    if not paths.TUN.exists():
        os.mknod(paths.TUN, 0o20000 | DEVICE_MODE, os.makedev(TUN_MAJOR, TUN_MINOR))
    # mknod obeys the umask, chmod does not.
    paths.TUN.chmod(DEVICE_MODE)


def attach(*, host: topology.Host, tree: Path) -> None:
    """Mount the host's disk; on its first boot give it a name, an identity and a host key."""
    disk, root = paths.disk(host.name), paths.root(host.name)
    for directory in (disk, disk / "upper", disk / "work", root):
        directory.mkdir(mode=0o755, exist_ok=True)
    if not mounted(root):
        options = f"lowerdir={tree},upperdir={disk / 'upper'},workdir={disk / 'work'}"
        shell.run(["mount", "-t", "overlay", "-o", options, f"lab-{host.name}", str(root)])
    if not (disk / "seeded").exists():
        _seed(host=host, root=root)
        (disk / "seeded").touch()


def _seed(*, host: topology.Host, root: Path) -> None:
    (root / "etc/hostname").write_text(f"{host.name}\n", encoding="ascii")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {host.name}\n", encoding="ascii")
    (root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n", encoding="ascii")
    key = root / HOST_KEY
    key.unlink(missing_ok=True)
    make_key(path=key, comment=host.name)


def make_key(*, path: Path, comment: str) -> None:
    """Make an ed25519 pair; ssh-keygen creates the private half with mode 0600."""
    done = subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(f"ssh-keygen could not make {path}: {done.stderr.strip() or done.stdout.strip()}")


def authorize(*, name: str, public_key: str) -> None:
    """Let the holder of this key log in as root, keeping whoever could before."""
    directory = paths.root(name) / "root/.ssh"
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / "authorized_keys"
    known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if public_key in known:
        return
    temporary = directory / ".authorized_keys.new"
    temporary.write_text("".join(f"{line}\n" for line in [*known, public_key]), encoding="utf-8")
    temporary.chmod(0o600)
    temporary.replace(path)


def host_key(name: str) -> str:
    """The host's public key as `type base64`."""
    text = (paths.root(name) / f"{HOST_KEY}.pub").read_text(encoding="ascii")
    return " ".join(text.split()[:2])


def detach(names: Iterable[str]) -> None:
    """Unmount the disks; what was written stays in the tmpfs."""
    there = set(mount_points())
    roots = [str(paths.root(name)) for name in names if str(paths.root(name)) in there]
    if roots:
        shell.run(["umount", *roots])


def destroy(name: str) -> None:
    """Remove the host's disk for good."""
    detach([name])
    shutil.rmtree(paths.disk(name), ignore_errors=True)


def console_tail(name: str, lines: int = 15) -> str:
    """The last lines the host printed."""
    try:
        text = paths.console(name).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "  (it printed nothing)"
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (it printed nothing)"
