# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts on the controller's disk, beside the plan: files that a person can read and diff. No secret is in them.

rollouts/current               the id of the last one that was begun: only that one can be unfinished
rollouts/claim.json            the run that is at work, if it still lives
rollouts/ID/plan.yml           what is to be done, in which waves; a person's
rollouts/ID/state.json         what was done; a run's
rollouts/ID/control.json       what people have said since: pause, abort, approvals
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import write_atomic
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError, LockedError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import shown_path
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout import Rollout
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_lines import GIVEN_UP, Control
from ansible_collections.spokewright.fleet.plugins.plugin_utils.run_report import iso
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_lock import Process, who
from ansible_collections.spokewright.fleet.plugins.plugin_utils.typed_reader import DamagedError, parsed, read_as
from ansible_collections.spokewright.fleet.plugins.plugin_utils.wave_plan import ID, refuse_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet

T = TypeVar("T")

DIRECTORY: Final = "rollouts"
CURRENT, CLAIM, LOCK = "current", "claim.json", "lock"
PLAN, STATE, CONTROL = "plan.yml", "state.json", "control.json"
MODE: Final = 0o644
_MEND: Final = (
    "It holds nothing secret, and what a site runs is asked of the site. Take it from a backup, or delete it: "
    "approvals and soak times begin anew then."
)


class RolloutLockedError(LockedError):
    """Another rollout is at work, or was begun and is not finished."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The run that is at work. Nobody else begins a rollout while its process lives."""

    rollout: str
    what: str
    reason: str
    who: str
    since: str
    began: float
    process: Process

    @property
    def said(self) -> str:
        """For whoever has to wait."""
        what = named(self.what, self.reason)
        return f"{self.rollout} ({what}) by {self.who} (pid {self.process.pid}) since {self.since}"


class RolloutFiles:
    """The rollouts of one fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.directory = fleet.plan_file.parent / DIRECTORY

    def path(self, rollout: str) -> Path:
        """The directory of one."""
        refuse_id(rollout)
        return self.directory / rollout

    def ids(self) -> list[str]:
        """All of them, by name."""
        if not self.directory.is_dir():
            return []
        found = (one for one in self.directory.iterdir() if ID.fullmatch(one.name))
        return sorted(one.name for one in found if (one / PLAN).exists() or (one / STATE).exists())

    def unknown(self, rollout: str) -> FleetError:
        """What to say of an id that nobody has planned or begun."""
        known = ", ".join(self.ids()[-5:]) or "none"
        return FleetError(
            f"rollout {rollout}: there is none of this id in {shown_path(self.directory)} (the last are: {known}). "
            "Plan one: tools/fleet rollout plan --help."
        )

    def read(self, rollout: str) -> Rollout | None:
        """What was done, nothing when it was never begun."""
        path = self.path(rollout) / STATE
        found = _read(Rollout, path)
        if found is not None and found.rollout != rollout:
            raise FleetError(_unreadable(path, f"rollout: {found.rollout!r} is not {rollout}, whose file it is"))
        return found

    def write(self, rollout: Rollout) -> None:
        """Keep what was done."""
        path = self._made(rollout.rollout)
        write_atomic(path / STATE, json.dumps(asdict(rollout), indent=1).encode() + b"\n", MODE)

    def control(self, rollout: str) -> Control:
        """What people have said of it."""
        return _read(Control, self.path(rollout) / CONTROL) or Control()

    def write_control(self, rollout: str, control: Control) -> None:
        """Say all of it."""
        path = self._made(rollout)
        write_atomic(path / CONTROL, json.dumps(asdict(control), indent=1).encode() + b"\n", MODE)

    def say(self, rollout: str, change: Callable[[Control], Control]) -> None:
        """Say something of it; a run sees it before its next step. Two who speak at once are both heard."""
        with self._locked():
            self.write_control(rollout, change(self.control(rollout)))

    def plan_text(self, rollout: str) -> str | None:
        """Its plan, if it has one."""
        return _text(self.path(rollout) / PLAN)

    def write_plan(self, rollout: str, text: str) -> Path:
        """Write a new plan. One that is there is a person's, and stays."""
        path = self.path(rollout) / PLAN
        if path.exists() or (path.parent / STATE).exists():
            raise FleetError(f"{path.parent}: there is a rollout of this name. Name another with --id.")
        write_atomic(self._made(rollout) / PLAN, text.encode(), MODE)
        return path

    def current(self) -> Rollout | None:
        """The rollout that was begun last."""
        path = self.directory / CURRENT
        name = (_text(path) or "").strip()
        if name and not ID.fullmatch(name):
            raise FleetError(f"{path} holds {name[:80]!r}, and not the id of the rollout that was begun last. {_MEND}")
        return self.read(name) if name else None

    def make_current(self, rollout: str) -> None:
        """It is the one that was begun last."""
        write_atomic(self.directory / CURRENT, f"{rollout}\n".encode(), MODE)

    # --- one at a time

    def claim(self) -> Claim | None:
        """Who is at work, or was."""
        return _read(Claim, self.directory / CLAIM)

    def take(self, *, what: str, reason: str, process: Process, asked: str = "", dry: bool = False) -> str:
        """Be the one that is at work; returns the id of the rollout, an unfinished one's if this goes on with it.

        A run that brings several things one after the other takes each of them.

        Args:
            what: what is changed.
            reason: why.
            process: the run. It is at work as long as this process lives.
            asked: the id that was asked for; without it there is one for what is done and why.
            dry: only look whether it could be taken.

        Raises:
            RolloutLockedError: another one is at work, or is not finished.
        """
        with self._locked(dry=dry):
            claim, current = self.claim(), self.current()
            if claim is not None and claim.process != process and claim.process.lives:
                raise RolloutLockedError(
                    f"rollout {claim.said} is under way. Wait for it to end, or let it stop after its wave with "
                    f"`tools/fleet rollout pause {claim.rollout}`. Nothing was changed."
                )
            rollout = asked or _name(what=what, reason=reason, current=current)
            self._refuse_unfinished(current, rollout=rollout)
            if self.control(rollout).aborted_by:
                raise FleetError(f"rollout {rollout} was aborted. Plan a new one: tools/fleet rollout plan.")
            if not dry:
                began = time.time()
                begun = Claim(
                    rollout=rollout, what=what, reason=reason, who=who(), since=iso(began), began=began, process=process
                )
                write_atomic(self.directory / CLAIM, json.dumps(asdict(begun), indent=1).encode() + b"\n", MODE)
            return rollout

    def release(self, *, process: Process) -> None:
        """The run is over, though its process lives on."""
        with self._locked():
            claim = self.claim()
            if claim is not None and claim.process == process:
                (self.directory / CLAIM).unlink()

    def _refuse_unfinished(self, current: Rollout | None, *, rollout: str) -> None:
        if current is None or current.is_over or current.rollout == rollout:
            return
        known = f"rollout {current.rollout} ({named(current.what, current.reason)}), begun by {current.by},"
        if self.control(current.rollout).aborted_by:
            raise RolloutLockedError(
                f"{known} is half given up. Abort it once more: tools/fleet rollout abort {current.rollout}. To change "
                "these sites all the same: -e rollout_beside=true. Nothing was changed."
            )
        raise RolloutLockedError(
            f"{known} is not finished{f': {current.why}' if current.why else ''}. Go on with it: "
            f"ansible-playbook playbooks/rollout.yml -e rollout={current.rollout}. Or give it up: tools/fleet rollout "
            f"abort {current.rollout}. To change these sites all the same: -e rollout_beside=true. Nothing was changed."
        )

    @contextlib.contextmanager
    def _locked(self, *, dry: bool = False) -> Iterator[None]:
        if dry:
            # Who writes nothing keeps nobody out, and each file is whole at any time.
            yield
            return
        path = self.directory / LOCK
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
        except OSError as exc:
            raise _unusable(path, exc) from exc
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _made(self, rollout: str) -> Path:
        path = self.path(rollout)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise _unusable(path, exc) from exc
        return path


def named(what: str, reason: str) -> str:
    """A rollout in a few words."""
    return f"{what}: {reason}" if reason else what


def _name(*, what: str, reason: str, current: Rollout | None) -> str:
    """The unfinished one of the same kind, or a new name. Why keys are made anew names the rollout for good."""
    if current is not None and (current.what, current.reason) == (what, reason) and current.outcome != GIVEN_UP:
        missing = what == "keys" and bool(reason) and current.exit_code
        if not current.is_over or missing:
            return current.rollout
    return new_id(what)


def new_id(what: str) -> str:
    """An id that tells when and what."""
    return f"{dt.datetime.now(tz=dt.UTC):%Y%m%d-%H%M%S}-{what}"


def _read(kind: type[T], path: Path) -> T | None:
    text = _text(path)
    try:
        return None if text is None else read_as(kind, parsed(text))
    except DamagedError as exc:
        raise FleetError(_unreadable(path, exc)) from exc


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as exc:
        raise FleetError(_unreadable(path, exc)) from exc
    except OSError as exc:
        raise _unusable(path, exc) from exc


def _unreadable(path: Path, why: object) -> str:
    return f"{path} cannot be understood ({why}). {_MEND}"


def _unusable(path: Path, exc: OSError) -> FleetError:
    return FleetError(
        f"{path} cannot be used: {exc.strerror or exc}. Is it another user's? Run it as the one who owns "
        f"{path.parent}. What was done at the sites stands."
    )
