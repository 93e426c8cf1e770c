# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

from ansible_collections.spokewright.fleet.plugins.module_utils.exact_directory import apply, compare

if t.TYPE_CHECKING:
    from pathlib import Path

MODE = 0o644


def kinds(directory: Path, desired: dict[str, str]) -> list[tuple[str, str]]:
    return [(change.path.name, change.kind) for change in compare(directory=directory, desired=desired, mode=MODE)]


def put(directory: Path, desired: dict[str, str]) -> None:
    directory.mkdir(exist_ok=True)
    apply(changes=compare(directory=directory, desired=desired, mode=MODE), mode=MODE)


def test_a_second_run_changes_nothing_and_rewrites_nothing(tmp_path: Path) -> None:
    ccd = tmp_path / "ccd"
    put(ccd, {"a": "1\n"})
    before = (ccd / "a").stat().st_ino
    put(ccd, {"a": "1\n"})
    assert kinds(ccd, {"a": "1\n"}) == []
    assert (ccd / "a").stat().st_ino == before


def test_removals_come_last_and_only_what_differs_is_named(tmp_path: Path) -> None:
    ccd = tmp_path / "ccd"
    put(ccd, {"a": "1\n", "b": "2\n", "z": "3\n"})
    assert kinds(ccd, {"b": "2\n", "c": "new\n", "z": "4\n"}) == [("c", "added"), ("z", "changed"), ("a", "removed")]
    put(ccd, {"b": "2\n", "c": "new\n", "z": "4\n"})
    assert {path.name: path.read_text(encoding="utf-8") for path in ccd.iterdir()} == {
        "b": "2\n",
        "c": "new\n",
        "z": "4\n",
    }


def test_a_missing_directory_counts_as_empty(tmp_path: Path) -> None:
    assert kinds(tmp_path / "none", {"a": ""}) == [("a", "added")]


def test_a_link_and_a_wrong_mode_are_put_right(tmp_path: Path) -> None:
    ccd = tmp_path / "ccd"
    put(ccd, {"a": "1\n", "b": "2\n"})
    (ccd / "a").chmod(0o600)
    (ccd / "b").unlink()
    (ccd / "b").symlink_to("a")
    put(ccd, {"a": "1\n", "b": "2\n"})
    assert [(path.is_symlink(), path.stat().st_mode & 0o777) for path in sorted(ccd.iterdir())] == [(False, MODE)] * 2


def test_a_default_file_would_let_everybody_in_and_is_removed(tmp_path: Path) -> None:
    ccd = tmp_path / "ccd"
    put(ccd, {})
    (ccd / "DEFAULT").write_text("", encoding="utf-8")
    assert kinds(ccd, {}) == [("DEFAULT", "removed")]


def test_no_temporary_file_is_ever_seen_in_the_directory_or_left_beside_it(tmp_path: Path) -> None:
    ccd = tmp_path / "ccd"
    put(ccd, {f"site-{number}": "x\n" for number in range(50)})
    assert [path.name for path in tmp_path.iterdir()] == ["ccd"]
