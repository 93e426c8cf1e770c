# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of a role: all or none, whatever is refused and whenever."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import typing as t

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils.role_files import (
    Rights,
    RoleFile,
    RoleFilesError,
    differences,
    install,
    make_directories,
)

if t.TYPE_CHECKING:
    from pathlib import Path

ME, MINE = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
PLAIN = Rights(0o644, ME, MINE)


def run(argv: t.Sequence[str]) -> tuple[int, str, str]:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def put(*files: RoleFile) -> None:
    install(changes=differences(files=files), run=run)


def tree(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


def test_what_is_as_wanted_is_left_alone(tmp_path: Path) -> None:
    file = RoleFile(tmp_path / "a", "text\n", Rights(0o640, ME, MINE))
    put(file)
    inode = (tmp_path / "a").stat().st_ino
    assert differences(files=[file]) == ()
    put(file)
    assert (tmp_path / "a").stat().st_ino == inode
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("wanted", [Rights(0o600, ME, MINE), PLAIN])
def test_a_wrong_mode_is_a_difference_and_put_right(wanted: Rights, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("text\n")
    path.chmod(0o666)
    (found,) = differences(files=[RoleFile(path, "text\n", wanted)])
    assert (found.content, found.rights) == ("text\n", Rights(0o666, ME, MINE))
    put(RoleFile(path, "text\n", wanted))
    assert path.stat().st_mode & 0o777 == wanted.mode


def test_one_refused_file_leaves_all_as_they_were_and_every_refusal_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old\n")
    files = [
        RoleFile(tmp_path / "a", "new\n", PLAIN),
        RoleFile(tmp_path / "etc/unit.d/b", "broken\n", PLAIN, "grep -q whole %s"),
        RoleFile(tmp_path / "c", "odd\n", PLAIN, "sh -c 'echo line 1 of $0 is odd; exit 3' %s"),
    ]
    with pytest.raises(RoleFilesError) as caught:
        put(*files)
    assert str(caught.value) == (
        f"{tmp_path}/etc/unit.d/b: refused by grep (exit 1): without a word; "
        f"{tmp_path}/c: refused by sh (exit 3): line 1 of {tmp_path}/c is odd. Nothing was changed"
    )
    assert tree(tmp_path) == {"a": "old\n"}
    assert not (tmp_path / "etc").exists()


def test_what_is_tried_has_its_owner_and_mode_already(tmp_path: Path) -> None:
    look = "sh -c 'test -x $0 && ! test -x $0.other' %s"
    put(RoleFile(tmp_path / "a", "x", Rights(0o750, ME, MINE), look))
    assert tree(tmp_path) == {"a": "x"}


def test_a_link_is_replaced_and_what_it_led_to_stays(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs\n")
    (tmp_path / "a").symlink_to("theirs")
    put(RoleFile(tmp_path / "a", "ours\n", PLAIN))
    assert not (tmp_path / "a").is_symlink()
    assert tree(tmp_path) == {"a": "ours\n", "theirs": "theirs\n"}


def test_a_directory_in_the_way_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(RoleFilesError) as caught:
        put(RoleFile(tmp_path / "a", "x", PLAIN), RoleFile(tmp_path / "b", "x", PLAIN))
    assert str(caught.value) == f"{tmp_path}/b: is there and is no file. Move it away. Nothing was changed"
    assert tree(tmp_path) == {}


def test_an_unknown_owner_is_named(tmp_path: Path) -> None:
    with pytest.raises(RoleFilesError) as caught:
        put(RoleFile(tmp_path / "a", "x", Rights(0o644, "nobody-here", "none-here")))
    assert str(caught.value) == (
        "there is no group none-here on this host; there is no user nobody-here on this host. "
        "Install what makes them first. Nothing was changed"
    )
    assert tree(tmp_path) == {}


def test_directories_are_for_everybody_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        assert make_directories(path=tmp_path / "a/b") == [tmp_path / "a", tmp_path / "a/b"]
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o755, 0o755]
    assert make_directories(path=tmp_path / "a/b") == []


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        put(RoleFile(tmp_path / "new/a", "x", PLAIN))
    assert list(tmp_path.iterdir()) == []
