# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SSH with the OpenSSH client, for hosts so old that paramiko no longer talks to them.

Same door, same pins, same errors. Each command is a process of its own; nothing of the user's configuration, agent or
known_hosts is looked at. What went wrong is read from the client's log, which is kept apart from what the host says.
"""

from __future__ import annotations

import contextlib
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_bastion import (
    bastion_target,
    of_bastion,
    refused_forwarding,
    unreachable_behind,
    way,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_login import login_key
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_options import (
    BASTION_LOG_FILE,
    LOG_FILE,
    PINS_FILE,
    command_line,
    pins,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_process import ClientProcess
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_says import (
    LOST,
    STARTED,
    failure,
    forwarding_failure,
    last_line,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_types import (
    Answer,
    Clock,
    SshError,
    Target,
    Timeouts,
    cut_off,
    persistently,
    pinned_key,
)

if TYPE_CHECKING:
    from types import TracebackType

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_types import Wanted

_LOST = 255


class OpenSshSession:
    """Commands on one host, each over a login of its own. Use it in a with statement."""

    def __init__(self, *, target: Target, timeouts: Timeouts | None = None) -> None:
        self.target = target
        self.timeouts = timeouts or Timeouts()
        self._clock = Clock(target=target, timeouts=self.timeouts)
        self._bastion = None if target.bastion is None else bastion_target(bastion=target.bastion)
        self._held = contextlib.ExitStack()
        self._folder = Path()

    def __enter__(self) -> Self:
        pinned_key(target=self.target)
        login_key(self.target.private_key_file)
        if self._bastion is not None:
            self._check_bastion(self._bastion)
        if self.target.bastion is not None:
            self._held.enter_context(way(bastion=self.target.bastion).turn(clock=self._clock))
        self._folder = Path(self._held.enter_context(tempfile.TemporaryDirectory(prefix="spokewright-ssh-")))
        everyone = [self.target] if self._bastion is None else [self.target, self._bastion]
        (self._folder / PINS_FILE).write_text(pins(targets=everyone), encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def run(self, *, command: str, stdin: bytes = b"") -> Answer:
        """Run one command to its end."""
        return self._exchange(command=command, stdin=stdin, wanted=None)

    def converse(self, *, command: str, stdin: bytes, wanted: Wanted) -> Answer:
        """Run one command and let its output decide what else it is sent, as the other transport does."""
        return self._exchange(command=command, stdin=stdin, wanted=wanted)

    def _check_bastion(self, bastion: Target) -> None:
        try:
            pinned_key(target=bastion)
            login_key(bastion.private_key_file)
        except SshError as exc:
            raise of_bastion(site=self.target.name, error=exc) from exc

    def _exchange(self, *, command: str, stdin: bytes, wanted: Wanted | None) -> Answer:
        return persistently(clock=self._clock, attempt=lambda: self._once(command=command, stdin=stdin, wanted=wanted))

    def _once(self, *, command: str, stdin: bytes, wanted: Wanted | None) -> Answer:
        for name in (LOG_FILE, BASTION_LOG_FILE):
            (self._folder / name).unlink(missing_ok=True)
        words = command_line(target=self.target, bastion=self._bastion, folder=self._folder, timeouts=self.timeouts)
        end = min(self._clock.end, time.monotonic() + self.timeouts.command)
        talk = ClientProcess(words=[*words, command], name=self.target.name, stdin=stdin, wanted=wanted)
        try:
            answer = talk.to_its_end(end=end)
        except TimeoutError as exc:
            doing = "finish the command" if self._started else "answer the login"
            raise self._clock.stalled(doing) from exc
        finally:
            talk.kill()
        if answer.exit_status in {_LOST, -signal.SIGKILL} and not self._started:
            raise self._why()
        # What it says at the end of a session goes to standard error and not into its log.
        said = self._log(LOG_FILE) + last_line(answer.stderr.decode("utf-8", "replace"))
        lost = LOST.search(said) if answer.exit_status == _LOST else None
        if lost is not None:
            raise cut_off(target=self.target, why=lost[0])
        return answer

    @property
    def _started(self) -> bool:
        return STARTED in self._log(LOG_FILE)

    def _log(self, name: str) -> str:
        try:
            return (self._folder / name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def _why(self) -> SshError:
        log = self._log(BASTION_LOG_FILE)
        if self._bastion is None or self.target.bastion is None:
            return failure(target=self.target, log=self._log(LOG_FILE))
        if STARTED not in log:
            return of_bastion(site=self.target.name, error=failure(target=self._bastion, log=log))
        refused = forwarding_failure(log)
        if refused is None:
            return failure(target=self.target, log=self._log(LOG_FILE))
        prohibited, why = refused
        if prohibited:
            return refused_forwarding(target=self.target, bastion=self.target.bastion, why=why)
        return unreachable_behind(target=self.target, bastion=self._bastion, why=why)


def shown_host_key(*, target: Target, clock: Clock) -> str:
    """The host key a host shows, TYPE BASE64, without logging in: what the client would remember of it.

    Raises:
        SshError: it shows none.
    """
    bastion = None if target.bastion is None else bastion_target(bastion=target.bastion)
    with tempfile.TemporaryDirectory(prefix="spokewright-ssh-") as name:
        folder = Path(name)
        (folder / PINS_FILE).write_text(pins(targets=[] if bastion is None else [bastion]), encoding="utf-8")
        words = command_line(target=target, bastion=bastion, folder=folder, timeouts=clock.timeouts)
        # The first of two options counts.
        words[1:1] = ["-o", "StrictHostKeyChecking=accept-new", "-o", "PreferredAuthentications=none"]
        talk = ClientProcess(words=[*words, "true"], name=target.name, stdin=b"", wanted=None)
        try:
            talk.to_its_end(end=clock.end)
        except TimeoutError as exc:
            raise clock.stalled("show its host key") from exc
        finally:
            talk.kill()
        for line in (folder / PINS_FILE).read_text(encoding="utf-8").splitlines():
            host, _space, key = line.partition(" ")
            if host == target.name:
                return " ".join(key.split()[:2])
        raise failure(target=target, log=(folder / LOG_FILE).read_text(encoding="utf-8", errors="replace"))
