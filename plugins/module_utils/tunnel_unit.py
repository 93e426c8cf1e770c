# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the tunnel instances of a gateway to what their files say, one after another.

Runs on gateways: standard library only. A daemon is restarted when it was not started with the configuration that is
now on disk, or when its program was replaced by an upgrade, and for nothing else. What it was started with is written
down by the unit itself (see STARTED_WITH), so that neither a run that broke off, nor a clock that was set, makes a
daemon miss its restart or get one for nothing.
"""

from __future__ import annotations

import hashlib
import shutil
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.module_utils.management import Management, ManagementError
from ansible_collections.spokewright.fleet.plugins.module_utils.tunnel_drain import release, send_away
from ansible_collections.spokewright.fleet.plugins.module_utils.udp_ports import Holder, udp_holders

Run = t.Callable[[t.Sequence[str]], "tuple[int, str, str]"]
Action = t.Literal["none", "start", "restart"]

CONFIG_DIRECTORY = Path("/etc/openvpn/server")
UNIT_DIRECTORY = Path("/etc/systemd/system")
RUN_DIRECTORY = Path("/run/openvpn-server")
DROP_IN = "spokewright.conf"
PROC = Path("/proc")
STARTED_WITH = "%s.started"
"""Written by ExecStartPre= of the drop-in: one ``sha256sum`` line per file the daemon was started with. While it is not
there the drop-in takes the start for that of a boot, and lets the instances with lower numbers go first."""
TLS_LIBRARIES = ("libssl", "libcrypto")


class UnitError(Exception):
    """A tunnel instance could not be brought to what its files say."""


@dataclass(frozen=True)
class Paths:
    """Where things lie; tests put them elsewhere."""

    config: Path = CONFIG_DIRECTORY
    units: Path = UNIT_DIRECTORY
    run: Path = RUN_DIRECTORY
    proc: Path = PROC

    def files(self, *, name: str) -> tuple[Path, Path]:
        """The files whose change asks for a restart of this instance."""
        return self.config / ("%s.conf" % name), self.units / ("openvpn-server@%s.service.d" % name) / DROP_IN

    def started_with(self, *, name: str) -> Path:
        """The record of what this instance was started with."""
        return self.run / (STARTED_WITH % name)

    def socket(self, *, name: str) -> Path:
        """The management socket of this instance."""
        return self.run / ("%s.sock" % name)


@dataclass(frozen=True)
class UnitState:
    """How an instance runs now."""

    name: str
    active: bool
    enabled: bool
    pid: int
    needs_reload: bool
    started_with_these_files: bool
    replaced: tuple[str, ...]
    """What an upgrade has replaced while this daemon runs on with the old: program and TLS libraries."""


@dataclass(frozen=True)
class Step:
    """What an instance needs, and why."""

    state: UnitState
    action: Action
    why: str = ""


def unit_name(*, name: str) -> str:
    """Debian's own template unit."""
    return "openvpn-server@%s.service" % name


def look(*, name: str, run: Run, paths: Paths) -> UnitState:
    """Ask systemd, and compare the files on disk with those the daemon was started with."""
    wanted = "ActiveState,MainPID,UnitFileState,NeedDaemonReload"
    _code, out, _err = run(["systemctl", "show", unit_name(name=name), "--property", wanted])
    shown = dict(line.partition("=")[::2] for line in out.splitlines())
    pid = int(shown.get("MainPID") or 0)
    return UnitState(
        name=name,
        active=shown.get("ActiveState") == "active",
        enabled=shown.get("UnitFileState") == "enabled",
        pid=pid,
        needs_reload=shown.get("NeedDaemonReload") == "yes",
        started_with_these_files=_recorded(name=name, paths=paths) == _on_disk(name=name, paths=paths),
        replaced=_replaced(pid=pid, proc=paths.proc) if pid else (),
    )


def _recorded(*, name: str, paths: Paths) -> dict[str, str]:
    record = paths.started_with(name=name)
    if not record.is_file():
        return {}
    rows = (line.split(maxsplit=1) for line in record.read_text(encoding="utf-8").splitlines())
    return {row[1].lstrip("*"): row[0] for row in rows if len(row) == 2}


def _on_disk(*, name: str, paths: Paths) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths.files(name=name) if path.is_file()
    }


def _replaced(*, pid: int, proc: Path) -> tuple[str, ...]:
    process, gone = proc / str(pid), " (deleted)"
    try:
        used = [str((process / "exe").readlink())]
        used += [line.split(maxsplit=5)[-1] for line in (process / "maps").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ()
    names = [Path(path[: -len(gone)]).name for path in used if path.endswith(gone)]
    program = names[:1] if used[0].endswith(gone) else []
    return tuple(dict.fromkeys(program + [name for name in names if name.startswith(TLS_LIBRARIES)]))


def needed(*, state: UnitState, will_change: bool, restart_outdated: bool) -> Step:
    """What this instance needs. ``will_change``: check mode knows that its files would have been changed."""
    if not state.active:
        return Step(state=state, action="start", why="it does not run")
    if will_change or not state.started_with_these_files:
        return Step(state=state, action="restart", why="its configuration, keys or unit changed since it started")
    if state.replaced and restart_outdated:
        return Step(state=state, action="restart", why="%s replaced since it started" % _were(state.replaced))
    return Step(state=state, action="none")


def _were(names: t.Sequence[str]) -> str:
    return "%s %s" % (", ".join(names), "was" if len(names) == 1 else "were")


def outdated(*, state: UnitState) -> str:
    """What there is to say of an instance that is left as it is though it is older than its program."""
    return "%s replaced since it started; it runs on with the old" % _were(state.replaced)


def strangers_on_ports(*, ports: t.Mapping[str, int], names: t.Collection[str], run: Run, paths: Paths) -> list[str]:
    """Say which wanted ports are held by a process that is none of this role's instances."""
    ours = {look(name=name, run=run, paths=paths).pid for name in (*names, *strangers(names=names, paths=paths))}
    holders = udp_holders(ports=set(ports.values()), proc=paths.proc)
    return [
        "UDP port %d of %s is taken by %s" % (port, name, _described(holders[port]))
        for name, port in ports.items()
        if port in holders and holders[port].pid not in ours
    ]


def _described(holder: Holder) -> str:
    return "%s (pid %d)" % (holder.program, holder.pid) if holder.pid else holder.program


def port(*, name: str, paths: Paths) -> int:
    """The port that the configuration on disk gives this instance; 0 when there is none."""
    config = paths.files(name=name)[0]
    lines = config.read_text(encoding="utf-8").splitlines() if config.is_file() else []
    words = (line.split() for line in lines)
    return next((int(word[1]) for word in words if len(word) > 1 and word[0] == "port"), 0)


def make_room(*, steps: t.Sequence[Step], run: Run, paths: Paths) -> None:
    """Stop the instances that hold a port which another instance gets now: two may change places.

    Each of them is started in its turn.
    """
    wanted = {port(name=step.state.name, paths=paths): step.state for step in steps if step.action != "none"}
    holders = udp_holders(ports=set(wanted), proc=paths.proc)
    for step in steps:
        held = [one for one, holder in holders.items() if holder.pid == step.state.pid]
        if step.action == "restart" and any(wanted[one].name != step.state.name for one in held):
            unit = unit_name(name=step.state.name)
            _must(run(["systemctl", "stop", unit]), what="stop %s, whose port another instance gets" % unit)


def bring_up(*, step: Step, run: Run, paths: Paths, timeout: float, per_second: float) -> int:
    """Enable the instance, start or restart it, and wait until its management socket answers.

    Returns how many live sessions were told to start anew before the restart.

    Raises:
        UnitError: with the last lines of the daemon's own log.
    """
    name, unit = step.state.name, unit_name(name=step.state.name)
    if not step.state.enabled:
        _must(run(["systemctl", "enable", unit]), what="enable %s" % unit)
    if step.action == "none":
        return 0
    told = 0
    if step.action == "start" and paths.run.is_dir():
        paths.started_with(name=name).touch()
    if step.action == "restart":
        where = port(name=name, paths=paths)
        told = send_away(socket=paths.socket(name=name), port=where, per_second=per_second, run=run)
    try:
        code, _out, err = run(["systemctl", "restart", unit])
        problem = err.strip() if code else wait_until_it_answers(name=name, run=run, paths=paths, timeout=timeout)
    finally:
        if told:
            release(run=run)
    if problem:
        _code, log, _err = run(["journalctl", "--unit", unit, "--lines", "15", "--no-pager", "--output", "cat"])
        raise UnitError(
            "%s did not come up after a %s: %s\nIts last words:\n%s\nThe other instances were left alone. Correct the "
            "cause and run again." % (unit, step.action, problem, log.strip())
        )
    return told


def wait_until_it_answers(*, name: str, run: Run, paths: Paths, timeout: float) -> str:
    """Empty when the daemon that systemd started answers on its management socket, else the last problem."""
    deadline = time.monotonic() + timeout
    while True:
        problem = _answers(name=name, run=run, paths=paths)
        if not problem or time.monotonic() > deadline:
            return problem
        time.sleep(0.1)


def _answers(*, name: str, run: Run, paths: Paths) -> str:
    pid = look(name=name, run=run, paths=paths).pid
    try:
        with Management(str(paths.socket(name=name)), 1.0) as daemon:
            answering = daemon.pid()
            state = (daemon.command("state") or [""])[-1]
    except (ManagementError, ValueError) as exc:
        return str(exc)
    if answering != pid:
        return "its management socket is answered by pid %d, but systemd started pid %d" % (answering, pid)
    return "" if ",CONNECTED," in state else "it is not ready: %s" % state


def strangers(*, names: t.Collection[str], paths: Paths) -> tuple[str, ...]:
    """Instances this role made once that are no longer in the plan, known by their drop-in."""
    found = paths.units.glob("openvpn-server@*.service.d/%s" % DROP_IN)
    instances = (path.parent.name[len("openvpn-server@") : -len(".service.d")] for path in found)
    return tuple(sorted(name for name in instances if name not in names))


def retire(*, name: str, run: Run, paths: Paths) -> None:
    """Stop and disable an instance and remove its files."""
    _must(run(["systemctl", "disable", "--now", unit_name(name=name)]), what="stop %s" % unit_name(name=name))
    config, drop_in = paths.files(name=name)
    shutil.rmtree(paths.config / name, ignore_errors=True)
    for path in (config, paths.started_with(name=name), paths.socket(name=name), drop_in):
        path.unlink(missing_ok=True)
    if not any(drop_in.parent.iterdir()):
        drop_in.parent.rmdir()
    daemon_reload(run=run)


def daemon_reload(*, run: Run) -> None:
    """Let systemd read its units again; running daemons do not notice."""
    _must(run(["systemctl", "daemon-reload"]), what="let systemd read its units again")


def _must(result: tuple[int, str, str], *, what: str) -> None:
    code, _out, err = result
    if code:
        raise UnitError("could not %s: systemctl ended with %d: %s" % (what, code, err.strip()))
