# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine under the lab: what it must have, and the few kernel limits the lab raises."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import LabError, NotRootError

if TYPE_CHECKING:
    from .state import State

TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "bridge": "iproute2",
    "nft": "nftables",
    "ssh-keygen": "openssh-client",
    "sysctl": "procps",
    "nsenter": "util-linux",
}
# Raised, never lowered: a machine may already allow more.
SYSCTLS = {
    "fs.inotify.max_user_instances": 65536,
    "fs.inotify.max_user_watches": 1048576,
    "kernel.pid_max": 4194304,
    "net.core.rmem_max": 8388608,
    "net.core.wmem_max": 8388608,
    "net.ipv4.neigh.default.gc_thresh1": 4096,
    "net.ipv4.neigh.default.gc_thresh2": 8192,
    "net.ipv4.neigh.default.gc_thresh3": 16384,
}
TUN_DEVICE = Path("/dev/net/tun")
HOST_BYTES = 30 << 20


def require_root() -> None:
    """The lab makes namespaces and mounts."""
    if os.geteuid() != 0:
        raise NotRootError("tools/lab needs root. Run it as: sudo tools/lab ...")


def require_tools() -> None:
    """One error for everything that is missing, with the command that brings it."""
    missing = {tool: package for tool, package in TOOLS.items() if shutil.which(tool) is None}
    if missing:
        packages = " ".join(sorted(set(missing.values())))
        raise LabError(f"Not installed: {', '.join(sorted(missing))}. Run: apt-get install --yes {packages}")
    try:
        present = stat.S_ISCHR(TUN_DEVICE.stat().st_mode)
    except OSError:
        present = False
    if not present:
        raise LabError(
            f"{TUN_DEVICE} is missing: without it no host can have a tunnel. "
            "Run: modprobe tun (in a container: let it have the device 10:200)."
        )


def require_memory(*, new_hosts: int) -> None:
    """Say so before the machine runs out, not after."""
    available = 0
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    needed = new_hosts * HOST_BYTES
    if needed > available:
        raise LabError(
            f"{new_hosts} more hosts need about {needed >> 20} MiB of memory, {available >> 20} MiB are free. "
            "Ask for fewer with --sites."
        )


def memory_total() -> int:
    """The machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def runs_systemd() -> bool:
    """Whether this machine's own init is systemd."""
    return Path("/run/systemd/system").is_dir()


def _sysctl(name: str) -> Path:
    return Path("/proc/sys") / name.replace(".", "/")


def raise_limits(*, state: State) -> None:
    """Raise what the hosts need, remembering what was there before it is changed."""
    for name, wanted in SYSCTLS.items():
        path = _sysctl(name)
        try:
            now = path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            continue
        if int(now) >= wanted:
            continue
        before = state.sysctls.get(name, (now, ""))[0]
        state.sysctls[name] = (before, str(wanted))
        state.save()
        try:
            path.write_text(str(wanted), encoding="ascii")
        except OSError as exc:
            raise LabError(f"sysctl {name} cannot be raised from {now} to {wanted}: {exc.strerror}.") from exc


def restore_limits(*, state: State) -> None:
    """Put back what the lab raised, unless somebody has set it otherwise since."""
    for name, (before, ours) in state.sysctls.items():
        path = _sysctl(name)
        if path.read_text(encoding="ascii").strip() == ours:
            path.write_text(before, encoding="ascii")


def limits_not_restored(*, state: State) -> list[str]:
    """The sysctls that still have the lab's value."""
    return [
        f"sysctl {name} is still {ours}"
        for name, (before, ours) in state.sysctls.items()
        if before != ours and _sysctl(name).read_text(encoding="ascii").strip() == ours
    ]
