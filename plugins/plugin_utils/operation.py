# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is or was at work on the key store, and what it had begun to make.

The lock dies with its process and leaves nothing behind; this record stays, so that the next one can finish.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import secrets as random
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import write_atomic
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import KeyStoreError, KeyStoreLockedError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_lock import Process, who

if TYPE_CHECKING:
    from pathlib import Path

RECORD: Final = "operation.json"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One piece of work on the key store. `pending` names the files it is about to make or to remove."""

    id: str
    what: str
    who: str
    since: str
    owner: Process
    # The owner goes on after this piece of work, and nobody else may get in between.
    held: bool = False
    open: bool = True
    reason: str = ""
    pending: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        return f"{self.what} #{self.id}"

    @property
    def holder(self) -> str:
        """What another operator is told."""
        return f"{self.who} (pid {self.owner.pid}) since {self.since}: {self.what}"


def begin(*, directory: Path, what: str, owner: int | None) -> tuple[Operation, Operation | None]:
    """A new operation, and the one before it when that did not end well.

    Raises:
        KeyStoreLockedError: the one before belongs to a run that still goes on.
    """
    before = read(directory)
    process = Process.find(os.getpid() if owner is None else owner)
    held = owner is not None
    if before is not None and before.held and before.owner != process and before.owner.lives:
        if not before.owner.is_ours:
            raise KeyStoreLockedError(
                f"the key store {directory} is in use by {before.holder}, which still runs. Wait for it to end, then "
                "run again."
            )
        # A step of a run that holds the store: it goes on holding it.
        process, held = before.owner, True
    since = dt.datetime.now(tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    begun = Operation(id=random.token_hex(4), what=what, who=who(), since=since, owner=process, held=held)
    return begun, before if before is not None and before.open else None


def read(directory: Path) -> Operation | None:
    """What is on record."""
    path = directory / RECORD
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Operation(**{**found, "owner": Process(**found["owner"]), "pending": tuple(found.get("pending", ()))})
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise KeyStoreError(f"{path} cannot be read: {exc.strerror or exc}. See to its owner and permissions.") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise KeyStoreError(
            f"{path} cannot be understood ({exc}). It holds nothing secret: see that nobody works on the key store, "
            "delete it, then run again."
        ) from exc


def write(*, directory: Path, operation: Operation) -> None:
    """Put it on record."""
    write_atomic(directory / RECORD, json.dumps(asdict(operation), indent=1).encode() + b"\n", 0o600)


def end(*, directory: Path, operation: Operation) -> None:
    """It ended well. The record stays: a run of several steps keeps others out between them by it."""
    write(directory=directory, operation=replace(operation, open=False, pending=()))
