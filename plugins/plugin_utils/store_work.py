# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work on the key store: one at a time, on record, and finished by the next one when it broke off."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils import operation
from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import WriteError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import KeyStoreError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_lock import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_storage import Storage
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.operation import Operation

# One site of a fan-out at its slowest (120 s), and what the fan-out gives it beyond that (30 s).
ORPHAN_SECONDS = 160.0


class StoreWork:
    """Holds the lock and the record while something is changed."""

    def __init__(self, *, storage: Storage, finish: Callable[[Operation], None]) -> None:
        self.storage = storage
        self._finish = finish
        self.now: Operation | None = None
        # What this process took over and finished.
        self.left: Operation | None = None

    @property
    def name(self) -> str:
        """What the ledger calls the work at hand."""
        return self.now.name if self.now else ""

    def unfinished(self) -> bool:
        """Whether a crash left something to finish, and nobody who could still do it."""
        left = operation.read(self.storage.root)
        return left is not None and left.open and (left.owner.is_ours or not left.owner.lives)

    @contextlib.contextmanager
    def run(self, what: str, *, owner: int | None) -> Iterator[Operation]:
        """Be the only one at work. Within itself it is only another name for what runs already."""
        if self.now is not None:
            yield self.now
            return
        root = self.storage.root
        with contextlib.ExitStack() as stack:
            with told(self.storage):
                self.storage.check()
                self.storage.make("")
                self.storage.refuse_foreign()
                begun, before = operation.begin(directory=root, what=what, owner=owner)
                # A step of a run that was killed still ends what it has in hand, and begins nothing more.
                orphan = before is not None and before.held and not before.owner.lives
                patience = ORPHAN_SECONDS if orphan else 0.0
                stack.enter_context(locked(directory=root, holder=begun.holder, patience=patience))
                # The store may have been given another key since this process read its own.
                self.storage.key.forget()
                # Who held the lock until now has said what it left.
                self.storage.clean("")
                begun, self.left = operation.begin(directory=root, what=what, owner=owner)
            self.now = begun
            try:
                with told(self.storage):
                    if self.left is not None:
                        self._finish(self.left)
                    operation.write(directory=root, operation=begun)
                yield begun
            except BaseException:
                # What was begun and is not done stays on record for the next run.
                if not self.now.pending:
                    with contextlib.suppress(OSError, WriteError):
                        operation.end(directory=root, operation=self.now)
                raise
            else:
                with told(self.storage):
                    operation.end(directory=root, operation=self.now)
            finally:
                self.now = None

    @contextlib.contextmanager
    def intend(self, pending: Sequence[str], *, reason: str = "") -> Iterator[None]:
        """Say what is about to be made, before it is."""
        if self.now is None:
            raise KeyStoreError("the key store is changed inside an operation only.")
        self.now = dataclasses.replace(self.now, pending=tuple(pending), reason=reason)
        operation.write(directory=self.storage.root, operation=self.now)
        yield
        self.now = dataclasses.replace(self.now, pending=(), reason="")


@contextlib.contextmanager
def told(storage: Storage, *, doing: str = "written") -> Iterator[None]:
    """One clear text for whatever the system refuses."""
    try:
        yield
    except (OSError, WriteError) as exc:
        cause = exc if isinstance(exc, OSError) else exc.__cause__
        said = (cause.strerror or cause) if isinstance(cause, OSError) else exc
        name = getattr(cause, "filename", None)
        raise KeyStoreError(
            f"the key store {storage.root} cannot be {doing}: {said}{f' ({name})' if name else ''}. No key was lost. "
            "See to free space and to the permissions of the directory, then run again."
        ) from exc
