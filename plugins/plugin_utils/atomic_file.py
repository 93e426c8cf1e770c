# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replace a file so that a reader, a crash or a full disk only ever leaves the old or the new content."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError


class WriteError(FleetError):
    """A file could not be written; what was there before is untouched."""


def write_atomic(path: Path, data: bytes, mode: int = 0o600, *, sync_parent: bool = True) -> None:
    """Write `data` to `path` by temporary file, fsync, rename and fsync of the directory.

    The temporary file has its final mode from the moment it exists, so a secret is never readable by others. A symbolic
    link is followed: the file it points to is replaced, the link stays. Who writes many files into one directory leaves
    out `sync_parent` and calls `sync_directory` once at the end.
    """
    # Looking into every directory above for links takes longer than to write.
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    there = False
    try:
        write_durable(temporary, data, mode)
        temporary.replace(target)
        there = True
        if sync_parent:
            sync_directory(target.parent)
    except OSError as exc:
        raise WriteError(
            f"{path}: cannot be written: {exc.strerror or exc}. What was there before is untouched. "
            f"Check free space and permissions of {target.parent}, then run again."
        ) from exc
    finally:
        if not there:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_durable(path: Path, data: bytes, mode: int) -> None:
    """Make a new file that is on the disk when this returns; its name is so only after `sync_directory`."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(handle, mode)
        write_all(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(handle: int, data: bytes) -> None:
    """Write every byte, however many calls it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
