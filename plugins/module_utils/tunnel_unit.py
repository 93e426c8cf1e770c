# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the tunnel instances of a gateway to what their files say, one after another.

Runs on gateways: standard library only. A daemon is restarted when it was not started with the configuration that is
now on disk, and for nothing else. What it was started with is written down by the unit itself (see STARTED_WITH), so
that neither a run that broke off, nor a clock that was set, makes a daemon miss its restart or get one for nothing.
"""

from __future__ import annotations

import hashlib
import shutil
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.module_utils.management import Management, ManagementError

Run = t.Callable[[t.Sequence[str]], "tuple[int, str, str]"]
Action = t.Literal["none", "start", "restart"]

CONFIG_DIRECTORY = Path("/etc/openvpn/server")
UNIT_DIRECTORY = Path("/etc/systemd/system")
RUN_DIRECTORY = Path("/run/openvpn-server")
DROP_IN = "spokewright.conf"
STARTED_WITH = "%s.started"
"""Written by ExecStartPre= of the drop-in: one ``sha256sum`` line per file the daemon was started with."""


class UnitError(Exception):
    """A tunnel instance could not be brought to what its files say."""


@dataclass(frozen=True)
class Paths:
    """Where things lie; tests put them elsewhere."""

    config: Path = CONFIG_DIRECTORY
    units: Path = UNIT_DIRECTORY
    run: Path = RUN_DIRECTORY

    def files(self, *, name: str) -> tuple[Path, Path]:
        """The files whose change asks for a restart of this instance."""
        return self.config / ("%s.conf" % name), self.units / ("openvpn-server@%s.service.d" % name) / DROP_IN

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
    binary_replaced: bool


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
        binary_replaced=pid > 0 and _binary_replaced(pid=pid),
    )


def _recorded(*, name: str, paths: Paths) -> dict[str, str]:
    record = paths.run / (STARTED_WITH % name)
    if not record.is_file():
        return {}
    rows = (line.split(maxsplit=1) for line in record.read_text(encoding="utf-8").splitlines())
    return {row[1].lstrip("*"): row[0] for row in rows if len(row) == 2}


def _on_disk(*, name: str, paths: Paths) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths.files(name=name) if path.is_file()
    }


def _binary_replaced(*, pid: int) -> bool:
    try:
        return str(Path("/proc/%d/exe" % pid).readlink()).endswith(" (deleted)")
    except OSError:
        return False


def needed(*, state: UnitState, will_change: bool) -> Action:
    """What this instance needs. ``will_change``: check mode knows that its files would have been changed."""
    if not state.active:
        return "start"
    return "restart" if will_change or not state.started_with_these_files else "none"


def bring_up(*, state: UnitState, action: Action, run: Run, paths: Paths, timeout: float) -> None:
    """Enable the instance, start or restart it, and wait until its management socket answers.

    Raises:
        UnitError: with the last lines of the daemon's own log.
    """
    unit = unit_name(name=state.name)
    if not state.enabled:
        _must(run(["systemctl", "enable", unit]), what="enable %s" % unit)
    if action == "none":
        return
    code, _out, err = run(["systemctl", "restart", unit])
    problem = err.strip() if code else wait_until_it_answers(name=state.name, run=run, paths=paths, timeout=timeout)
    if problem:
        _code, log, _err = run(["journalctl", "--unit", unit, "--lines", "15", "--no-pager", "--output", "cat"])
        raise UnitError(
            "%s did not come up after a %s: %s\nIts last words:\n%s\nThe other instances were left alone. Correct the "
            "cause and run again." % (unit, action, problem, log.strip())
        )


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
    for path in (config, paths.run / (STARTED_WITH % name), paths.socket(name=name), drop_in):
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
