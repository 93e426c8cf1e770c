# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting a host's systemd, finding it again, and ending exactly that."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import machine, paths, shell, topology
from .errors import LabError
from .state import HostState, Process

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STATUS_PIDS = 2  # an init has its number here and the number 1 inside
NSPAWN_RUN = Path("/run/systemd/nspawn")
# A gateway is a machine of its own. Where hundreds of sites and the controller share the processors of this one it
# would get what a single process of theirs gets, and its daemons would wait for seconds. 1024 is one session's share.
PAIR_SHARES = 100 * 1024
UNIT_WEIGHT = 10_000
# The caller puts itself into the host's cgroups, then becomes nspawn.
ENTER_CGROUPS = 'while [ "$1" != -- ]; do echo $$ >"$1" || exit 1; shift; done; shift; exec "$@"'


def started(pid: int) -> int | None:
    """The start time of a process in clock ticks since boot, None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def alive(process: Process | None) -> bool:
    """Whether exactly that process still runs."""
    return process is not None and started(process.pid) == process.started


def remember(pid: int) -> Process | None:
    """A process by pid and start time."""
    when = started(pid)
    return None if when is None else Process(pid=pid, started=when)


def _cgroup_mounts() -> tuple[list[Path], bool]:
    """The hierarchies systemd uses (named v1 and v2), and whether there is a v2 one."""
    found, unified = [], False
    for kind, options, mount in _hierarchies():
        if kind == "cgroup2":
            unified = True
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options):
            found.append(mount)
    return found, unified


def _hierarchies() -> Iterator[tuple[str, list[str], Path]]:
    """Everything that is mounted here, cgroups among it: file system, its options, where."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        yield kind, options.split(","), Path(left.split(" ")[4])


def _shares_mount() -> Path | None:
    """The v1 hierarchy that shares out processors, where there is one."""
    return next((mount for kind, options, mount in _hierarchies() if kind == "cgroup" and "cpu" in options), None)


def _is_gateway(name: str) -> bool:
    return topology.host(name=name, sites=topology.MAX_SITES).kind == "gateway"


def cgroups(name: str | None = None) -> list[Path]:
    """Where a host's processes are counted, or the parent of all hosts."""
    mounts, _ = _cgroup_mounts()
    return [mount / paths.CGROUP / name if name else mount / paths.CGROUP for mount in mounts]


def precedence_cgroups(name: str | None = None) -> list[Path]:
    """Where a gateway comes before the others, or the parent of both gateways."""
    shares = _shares_mount()
    return [] if shares is None else [shares / paths.CGROUP / name if name else shares / paths.CGROUP]


def _precedence(name: str) -> list[Path]:
    """Make it; a machine that does not let us has gateways like every other host."""
    groups = precedence_cgroups(name)
    try:
        for group in groups:
            group.mkdir(parents=True, exist_ok=True)
            (group.parent / "cpu.shares").write_text(str(PAIR_SHARES), encoding="ascii")
    except OSError:
        return []
    return groups


def nspawn_command(*, name: str) -> list[str]:
    """How a host is booted from its disk into its namespace."""
    return [
        "systemd-nspawn",
        "--quiet",
        "--keep-unit",
        "--register=no",
        f"--directory={paths.root(name)}",
        f"--machine={name}",
        f"--network-namespace-path={paths.netns(name)}",
        "--capability=CAP_NET_ADMIN,CAP_NET_RAW,CAP_SYS_NICE,CAP_IPC_LOCK",
        f"--bind={paths.TUN}:/dev/net/tun",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--console=read-only",
        "--boot",
    ]


def start(*, name: str) -> Process:
    """Boot the host, detached from the caller's session: it outlives this command."""
    command = nspawn_command(name=name)
    environment = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "LANG": "C.UTF-8"}
    # A gateway sets its own network sysctls; nspawn mounts them read-only in a namespace that it did not make itself.
    environment["SYSTEMD_NSPAWN_API_VFS_WRITABLE"] = "network"
    if _cgroup_mounts()[1]:
        environment["SYSTEMD_NSPAWN_UNIFIED_HIERARCHY"] = "1"
    if machine.runs_systemd():
        return _start_as_unit(name=name, command=command, environment=environment)
    groups = cgroups(name)
    for group in groups:
        group.mkdir(parents=True, exist_ok=True)
    if _is_gateway(name):
        groups += _precedence(name)
    with paths.console(name).open("ab") as console:
        child = subprocess.Popen(
            ["sh", "-c", ENTER_CGROUPS, "sh", *(str(group / "cgroup.procs") for group in groups), "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            cwd="/",
        )
    _children[child.pid] = child
    process = remember(child.pid)
    if process is None:
        raise LabError(f"{name}: systemd-nspawn ended at once.")
    return process


# Held so that a host that dies while this command runs is reaped and seen as gone.
_children: dict[int, subprocess.Popen[bytes]] = {}


def _unit(name: str) -> str:
    return f"spokewright-lab-{name}.service"


def _start_as_unit(*, name: str, command: list[str], environment: dict[str, str]) -> Process:
    """On a machine with systemd, nspawn wants a cgroup subtree that systemd has delegated."""
    console = paths.console(name)
    shell.run(
        [
            "systemd-run",
            "--quiet",
            "--collect",
            f"--unit={_unit(name)}",
            "--property=Delegate=yes",
            *([f"--property=CPUWeight={UNIT_WEIGHT}"] if _is_gateway(name) else []),
            f"--property=StandardOutput=append:{console}",
            f"--property=StandardError=append:{console}",
            *(f"--setenv={key}={value}" for key, value in environment.items()),
            *command,
        ]
    )
    pid = int(shell.run(["systemctl", "show", "--property=MainPID", "--value", _unit(name)]).strip() or 0)
    process = remember(pid) if pid else None
    if process is None:
        raise LabError(f"{name}: systemd-nspawn ended at once. See: journalctl --unit {_unit(name)}")
    return process


def gone(process: Process | None) -> bool:
    """Whether a process has ended, reaping it when it is a child of this command."""
    if process is not None and process.pid in _children:
        _children[process.pid].poll()
    return not alive(process)


def find_init(nspawn: Process) -> Process | None:
    """The host's own init: nspawn's child that is number 1 in its pid namespace."""
    try:
        children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text(encoding="ascii").split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    for child in children:
        if _inner_pids(int(child))[1:] == ["1"]:
            return remember(int(child))
    return None


def _inner_pids(pid: int) -> list[str]:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])


@dataclass(frozen=True, kw_only=True)
class Found:
    """A process of, or in, a lab host, found by looking rather than by remembering."""

    process: Process
    host: str
    role: str  # nspawn, init, inside or foreign
    command: str


def scan(names: set[str]) -> list[Found]:
    """Every process of these hosts: nspawn by its directory, the rest by the network namespace it is in.

    `foreign` ones sit in a host's network but in this machine's pid namespace: somebody's `ip netns exec`.
    """
    namespaces = {}
    for name in names:
        with contextlib.suppress(OSError):
            namespaces[paths.netns(name).stat().st_ino] = name
    own_pids = Path("/proc/self/ns/pid").stat().st_ino
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            role = _role(entry, names=names, namespaces=namespaces, own_pids=own_pids)
            process = remember(int(entry.name))
            if role and process:
                command = (entry / "comm").read_text(encoding="utf-8", errors="replace").strip()
                found.append(Found(process=process, host=role[0], role=role[1], command=command))
    return found


def _role(entry: Path, *, names: set[str], namespaces: dict[int, str], own_pids: int) -> tuple[str, str] | None:
    arguments = (entry / "cmdline").read_bytes().split(b"\0")
    if Path(os.fsdecode(arguments[0])).name == "systemd-nspawn":
        for argument in arguments:
            _, is_directory, path = argument.partition(b"--directory=")
            name = Path(os.fsdecode(path)).parent.name
            if is_directory and name in names and os.fsdecode(path) == str(paths.root(name)):
                return name, "nspawn"
    host = namespaces.get((entry / "ns/net").stat().st_ino)
    if host is None:
        return None
    if (entry / "ns/pid").stat().st_ino == own_pids:
        return host, "foreign"
    return host, "init" if _inner_pids(int(entry.name))[-1:] == ["1"] else "inside"


def kill(process: Process | None) -> None:
    """SIGKILL, after making sure that it is still the process that was meant."""
    if process is None:
        return
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(process.pid)
        try:
            if alive(process):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def wait_gone(processes: list[Process], *, seconds: float) -> list[Process]:
    """Wait until all have ended; returns those that have not."""
    deadline = time.monotonic() + seconds
    left = [process for process in processes if not gone(process)]
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = [process for process in left if not gone(process)]
    return left


def power_off(*, hosts: dict[str, HostState]) -> None:
    """Kill the hosts' inits, which takes everything under them along; nspawn then ends by itself."""
    scanned = [found for found in scan(set(hosts)) if found.role in {"init", "nspawn"}]
    inits = [state.init for state in hosts.values()] + [found.process for found in scanned if found.role == "init"]
    nspawns = [state.nspawn for state in hosts.values()]
    nspawns += [found.process for found in scanned if found.role == "nspawn"]
    for init in inits:
        kill(init)
    known_inits = [process for process in inits if process is not None]
    known_nspawns = [process for process in nspawns if process is not None]
    wait_gone(known_inits, seconds=10 + len(hosts) / 10)
    # One that was caught before it had a child never ends by itself.
    for process in wait_gone(known_nspawns, seconds=2 + len(hosts) / 20):
        kill(process)
    left = wait_gone(known_inits + known_nspawns, seconds=10)
    if left:
        raise LabError(f"Processes that do not end after SIGKILL: {', '.join(str(process.pid) for process in left)}.")
    for name, state in hosts.items():
        state.init = state.nspawn = None
        remove_cgroups([*cgroups(name), *precedence_cgroups(name)])


def remove_traces(*, names: Iterable[str]) -> None:
    """Remove what nspawn leaves in /run on a machine whose init is not systemd.

    While a host runs its lock is held, so this is for hosts without power and before their disks are detached.
    """
    for name in names:
        with contextlib.suppress(OSError):
            root = paths.root(name).stat()
            (NSPAWN_RUN / "locks" / f"inode-{root.st_dev}:{root.st_ino}").unlink(missing_ok=True)
        for directory in ("propagate", "unix-export"):
            with contextlib.suppress(OSError):
                (NSPAWN_RUN / directory / name).rmdir()
    for empty in (*(NSPAWN_RUN / name for name in ("propagate", "unix-export", "locks")), NSPAWN_RUN):
        with contextlib.suppress(OSError):
            empty.rmdir()
    with contextlib.suppress(OSError):
        NSPAWN_RUN.parent.rmdir()


def remove_cgroups(groups: list[Path]) -> None:
    """Remove empty cgroups, innermost first; the kernel needs a moment after the last process."""
    for group in groups:
        for _ in range(50):
            for directory, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    Path(directory).rmdir()
            if not group.exists():
                break
            time.sleep(0.02)


def enter_command(*, init: Process, command: list[str], terminal: str | None) -> list[str]:
    """Run a command inside a host, in all of its namespaces, with a clean environment."""
    environment = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/root",
        "USER=root",
        "LANG=C.UTF-8",
        *([f"TERM={terminal}"] if terminal else []),
    ]
    return ["nsenter", f"--target={init.pid}", "--all", "--", "env", "-i", "-C", "/root", *environment, *command]
