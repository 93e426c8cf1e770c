# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory that holds exactly the small text files it should: each replaced atomically, strangers removed last.

Runs on gateways: standard library only. A daemon that reads the directory at any moment finds each file either as it
was or as it will be, and never finds one missing that belongs there.
"""

from __future__ import annotations

import os
import stat
import tempfile
import typing as t
from dataclasses import dataclass
from pathlib import Path

Kind = t.Literal["added", "changed", "removed"]


@dataclass(frozen=True)
class FileChange:
    """One file that is not as it should be. ``before`` or ``after`` is None where there is no file."""

    path: Path
    kind: Kind
    before: str | None
    after: str | None


def compare(*, directory: Path, desired: t.Mapping[str, str], mode: int) -> tuple[FileChange, ...]:
    """What differs, sorted by name, removals last. A missing directory counts as empty."""
    present = {entry.name: entry for entry in directory.iterdir()} if directory.is_dir() else {}
    changes: list[FileChange] = []
    for name, text in sorted(desired.items()):
        path = directory / name
        if name not in present:
            changes.append(FileChange(path=path, kind="added", before=None, after=text))
        elif not _is_as_desired(path=path, text=text, mode=mode):
            changes.append(FileChange(path=path, kind="changed", before=_text(path=path), after=text))
    for name, path in sorted(present.items()):
        if name not in desired and (path.is_symlink() or not path.is_dir()):
            changes.append(FileChange(path=path, kind="removed", before=_text(path=path), after=None))
    return tuple(changes)


def apply(*, changes: t.Iterable[FileChange], mode: int) -> None:
    """Make the changes: every write of every directory first, then the removals."""
    ordered = list(changes)
    directories = {change.path.parent for change in ordered}
    for change in ordered:
        if change.after is not None:
            _write(path=change.path, text=change.after, mode=mode)
    for change in ordered:
        if change.after is None:
            change.path.unlink(missing_ok=True)
    for directory in sorted(directories):
        sync_directory(directory=directory)


def _is_as_desired(*, path: Path, text: str, mode: int) -> bool:
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == mode and _text(path=path) == text


def _text(*, path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _write(*, path: Path, text: str, mode: int) -> None:
    # The temporary file lies outside the directory: whatever reads the directory must not take it for an entry.
    handle, name = tempfile.mkstemp(prefix=".%s." % path.parent.name, dir=path.parent.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sync_directory(*, directory: Path) -> None:
    """Have the names in a directory on disk, too."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
