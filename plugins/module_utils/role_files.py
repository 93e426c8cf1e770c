# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text files of a role, all or none: each is tried beside the others before the first takes its place.

Runs on gateways: standard library only. A file that its own program refuses leaves every file as it was, also the good
ones. What takes its place does so by rename, whole and on disk.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shlex
import stat
import tempfile
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.module_utils.exact_directory import sync_directory

Run = t.Callable[[t.Sequence[str]], "tuple[int, str, str]"]

DIRECTORY_MODE = 0o755
SAID_LINES = 4


class RoleFilesError(Exception):
    """The files cannot be installed; nothing was changed."""


@dataclass(frozen=True)
class Rights:
    """Mode and owner of a file or directory."""

    mode: int
    owner: str = "root"
    group: str = "root"

    def __str__(self) -> str:
        return "%s:%s %04o" % (self.owner, self.group, self.mode)


@dataclass(frozen=True)
class RoleFile:
    """One file as it should be. ``validate`` is a command; %s in it stands for the file that is tried."""

    path: Path
    content: str
    rights: Rights
    validate: str = ""


@dataclass(frozen=True)
class Difference:
    """One file that is not as it should be. What it was is None where there is no such file."""

    wanted: RoleFile
    content: str | None
    rights: Rights | None


def found_rights(*, path: Path) -> Rights | None:
    """Mode and owner of what lies there; a symbolic link is nothing of ours."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(found.st_mode):
        return None
    return Rights(stat.S_IMODE(found.st_mode), _user(found.st_uid), _group(found.st_gid))


def differences(*, files: t.Iterable[RoleFile]) -> tuple[Difference, ...]:
    """Which files are not as wanted, in the order given.

    Raises:
        RoleFilesError: something that is no file is in the way.
    """
    found = [_difference(wanted=file) for file in files]
    return tuple(one for one in found if one is not None)


def install(*, changes: t.Sequence[Difference], run: Run) -> None:
    """Write every file beside its place, have each tried, and only then put them all in place.

    Raises:
        RoleFilesError: a file was refused by its program, or an owner is unknown; all of them are named.
        OSError: a file cannot be written. Nothing was changed, unless the renames had begun: then each file is whole.
    """
    unknown = sorted({problem for change in changes for problem in _unknown(rights=change.wanted.rights)})
    if unknown:
        raise RoleFilesError("%s. Install what makes them first. Nothing was changed" % "; ".join(unknown))
    made: list[Path] = []
    staged: dict[Path, RoleFile] = {}
    try:
        for change in changes:
            made += make_directories(path=change.wanted.path.parent)
            staged[_stage(file=change.wanted)] = change.wanted
        refused = [text for path, file in staged.items() for text in _refusal(path=path, file=file, run=run)]
        if refused:
            raise RoleFilesError("%s. Nothing was changed" % "; ".join(refused))
        made.clear()
        for path, file in list(staged.items()):
            path.replace(file.path)
            del staged[path]
    finally:
        for path in staged:
            path.unlink(missing_ok=True)
        for directory in reversed(made):
            # Somebody, perhaps a program that tried a file, has put something there.
            with contextlib.suppress(OSError):
                directory.rmdir()
    for directory in sorted({change.wanted.path.parent for change in changes}):
        sync_directory(directory=directory)


def make_directories(*, path: Path) -> list[Path]:
    """Make a directory and those above it, whatever the umask; which were made, outermost first."""
    missing = [directory for directory in (*reversed(path.parents), path) if not directory.exists()]
    for directory in missing:
        directory.mkdir(mode=DIRECTORY_MODE)
        directory.chmod(DIRECTORY_MODE)
    return missing


def own(*, target: int | Path, rights: Rights) -> None:
    """Give an open file or a directory its owner and mode."""
    os.chown(target, pwd.getpwnam(rights.owner).pw_uid, grp.getgrnam(rights.group).gr_gid)
    os.chmod(target, rights.mode)  # noqa: PTH101 - it may be an open file


def _difference(*, wanted: RoleFile) -> Difference | None:
    rights = found_rights(path=wanted.path)
    if rights is not None and not wanted.path.is_file():
        raise RoleFilesError("%s: is there and is no file. Move it away. Nothing was changed" % wanted.path)
    content = None if rights is None else wanted.path.read_text(encoding="utf-8", errors="replace")
    if (content, rights) == (wanted.content, wanted.rights):
        return None
    return Difference(wanted=wanted, content=content, rights=rights)


def _unknown(*, rights: Rights) -> t.Iterator[str]:
    for kind, name, ask in (("user", rights.owner, pwd.getpwnam), ("group", rights.group, grp.getgrnam)):
        try:
            ask(name)
        except KeyError:
            yield "there is no %s %s on this host" % (kind, name)


def _stage(*, file: RoleFile) -> Path:
    handle, name = tempfile.mkstemp(prefix=".%s." % file.path.name, dir=file.path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(file.content)
            stream.flush()
            own(target=stream.fileno(), rights=file.rights)
            os.fsync(stream.fileno())
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def _refusal(*, path: Path, file: RoleFile, run: Run) -> t.Iterator[str]:
    if not file.validate:
        return
    argv = [word.replace("%s", str(path)) for word in shlex.split(file.validate)]
    code, out, err = run(argv)
    if code != 0:
        said = [line.strip() for line in (out + "\n" + err).splitlines() if line.strip()]
        words = "; ".join(said[-SAID_LINES:]).replace(str(path), str(file.path)).rstrip(".") or "without a word"
        yield "%s: refused by %s (exit %d): %s" % (file.path, argv[0], code, words)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
