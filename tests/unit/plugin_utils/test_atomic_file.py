# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file is the old one or the new one, never half of either."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import WriteError, write_atomic


def test_content_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "secret"

    write_atomic(path, b"one")

    assert path.read_bytes() == b"one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomic(tmp_path / "lock", b"", mode=0o644)
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o644


def test_a_failed_write_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    write_atomic(path, b"old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError) as caught:
        write_atomic(path, b"new")

    assert str(caught.value) == (
        f"{path}: cannot be written: No space left on device. What was there before is untouched. "
        f"Check free space and permissions of {tmp_path}, then run again."
    )
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["store"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to(target)

    write_atomic(link, b"new")

    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="No such file or directory"):
        write_atomic(tmp_path / "none" / "file", b"")


def test_it_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    fsync = os.fsync
    replace = Path.replace

    def note_sync(handle: int) -> None:
        seen.append("directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def note_rename(self: Path, target: Path) -> Path:
        seen.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_rename)
    write_atomic(tmp_path / "file", b"x")

    assert seen == ["file", "rename", "directory"]
